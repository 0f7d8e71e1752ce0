"""broker reload"""

from __future__ import annotations

import click

from broker.cli.options import admin_option


@click.command(short_help="Let the running node read its files again.")
@admin_option
def reload(admin: str) -> None:
    """Let the running node read its files again: configuration and tokens.

    Where something is wrong, nothing changes, and the command says what it is.

    \b
      broker check dmz.yaml && broker reload
    """
    from broker.cli.admin import ask

    ask(admin, "POST", "/reload")
    click.echo("The node has read its files again.")
