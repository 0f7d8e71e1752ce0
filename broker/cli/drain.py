"""broker drain"""

from __future__ import annotations

import click

from broker.cli.options import admin_option


@click.command(short_help="Let the running node finish, and end.")
@admin_option
def drain(admin: str) -> None:
    """Let the running node take nothing new, finish what runs, and end.

    What isn't done after timeouts.drain is cut.

    \b
      broker drain
      broker drain --admin http://127.0.0.1:7002
    """
    from broker.cli.admin import ask

    ask(admin, "POST", "/drain")
    click.echo("The node drains: it takes nothing new, and ends when all is done.")
