"""broker drain"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access


@click.command(short_help="Let the running node finish, and end.")
@admin_options
def drain(access: Access) -> None:
    """Let the running node take nothing new, finish what runs, and end.

    What isn't done after timeouts.drain is cut.

    \b
      broker drain
      broker drain --admin http://127.0.0.1:7002
    """
    from broker.cli.admin import ask

    ask(access, "POST", "/drain")
    click.echo("The node drains: it takes nothing new, and ends when all is done.")
