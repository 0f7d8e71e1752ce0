"""broker upgrade"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access

TIMEOUT_S = 60.0


@click.command(short_help="Let a new process take over from the running node.")
@admin_options
def upgrade(access: Access) -> None:
    """Let a new process take over from the running node, without a gap.

    The node starts the program again, as it is on disk now and with the same arguments. The new process gets
    the listening sockets, agents register with it, then clients reach it; the old one finishes what it has
    and ends. Where the new one cannot start, nothing changes, and the command says why. SIGUSR2 does the
    same.

    \b
      pip install --upgrade tunnel-broker && broker upgrade
    """
    from broker.cli.admin import ask

    answer = ask(access, "POST", "/upgrade", TIMEOUT_S)
    click.echo(f"Process {answer.get('pid')} has taken over.")
