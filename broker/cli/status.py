"""broker status"""

from __future__ import annotations

import json

import click

from broker.cli.options import admin_option


@click.command(short_help="Show what is up in a running node.")
@admin_option
@click.option("--json", "as_json", is_flag=True, help="As the node gives it, for machines.")
def status(admin: str, as_json: bool) -> None:
    """Show what is up in a running node: ports, agents, tunnels, services, streams.

    \b
      broker status
      broker status --admin http://127.0.0.1:7002 --json
    """
    from broker.cli.admin import ask

    answer = ask(admin, "GET", "/status")
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    from broker.cli.tables import show

    show(answer)
