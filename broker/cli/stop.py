"""broker stop"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access


@click.command(short_help="Let the running node end at once.")
@admin_options
def stop(access: Access) -> None:
    """Let the running node end at once: what runs is cut. `broker drain` is the gentle way.

    \b
      broker stop
      broker stop --admin http://127.0.0.1:7002
    """
    from broker.cli.admin import ask

    ask(access, "POST", "/stop")
    click.echo("The node stops.")
