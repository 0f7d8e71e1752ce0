"""broker reload"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access


@click.command(short_help="Let the running node read its files again.")
@admin_options
def reload(access: Access) -> None:
    """Let the running node read its files again: configuration and tokens.

    Where something is wrong, nothing changes, and the command says what it is.

    \b
      broker check dmz.yaml && broker reload
    """
    from broker.cli.admin import ask

    ask(access, "POST", "/reload")
    click.echo("The node has read its files again.")
