"""broker status"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access


@click.command(short_help="Show what is up in a running node.")
@admin_options
@click.option("--json", "as_json", is_flag=True, help="As the node gives it, for machines.")
def status(access: Access, as_json: bool) -> None:
    """Show what is up in a running node: ports, agents, tunnels, services, streams.

    \b
      broker status
      broker status --admin http://127.0.0.1:7002 --json
    """
    from broker.cli.admin import ask

    answer = ask(access, "GET", "/status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    from broker.cli.tables import show

    show(answer)
