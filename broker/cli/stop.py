"""broker stop"""

from __future__ import annotations

import click

from broker.cli.options import admin_option


@click.command(short_help="Let the running node end at once.")
@admin_option
def stop(admin: str) -> None:
    """Let the running node end at once: what runs is cut. `broker drain` is the gentle way.

    \b
      broker stop
      broker stop --admin http://127.0.0.1:7002
    """
    from broker.cli.admin import ask

    ask(admin, "POST", "/stop")
    click.echo("The node stops.")
