"""broker top"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from broker.cli.options import admin_options

if TYPE_CHECKING:
    from broker.cli.admin import Access
    from broker.cli.top_screen import Screen

VIEWS = ("services", "tunnels", "agents", "ports", "upstreams", "failures")


@click.command(short_help="Watch a running node, live.")
@admin_options
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the node is asked.",
)
@click.option(
    "--view",
    type=click.Choice(VIEWS),
    default=VIEWS[0],
    show_default=True,
    help="What is shown first.",
)
@click.option("--sort", metavar="COLUMN", help="What it is sorted by; -COLUMN for the other way round.")
@click.option("--json", "as_json", is_flag=True, help="All views once, with rates, for machines.")
def top(access: Access, interval: float, view: str, sort: str | None, as_json: bool) -> None:
    """Watch a running node: services, tunnels, agents, ports, upstreams and the last failures, with rates.

    \b
      broker top
      broker top --view tunnels --sort rtt_ms
      broker top --view failures --admin http://127.0.0.1:7002
      broker top --json | jq '.services[] | select(.failures_s > 0)'

    Keys: 1 to 6 or Tab choose what is shown, left and right the column that it is sorted by, r turns the
    order round, / filters, p stands still, h has the rest, q quits.

    Without a terminal one view is printed, with the rates of one interval. Rates are those of the last ten
    seconds. A node that is restarted meanwhile is found again.
    """
    from rich.console import Console

    from broker.cli.admin import Admin
    from broker.cli.top_screen import Screen

    admin = Admin(access)

    def ask() -> dict[str, Any]:
        return admin.ask("GET", "/status")

    screen = Screen(interval=interval, view=VIEWS.index(view))
    choose_sort(screen, sort)
    screen.answered(ask())
    console = Console(highlight=False)
    if not as_json and console.is_terminal and not console.is_dumb_terminal and sys.stdin.isatty():
        from broker.cli.top_terminal import run

        run(screen, ask, console)
        return
    time.sleep(interval)
    screen.answered(ask())
    if as_json:
        click.echo(json.dumps(everything(screen), indent=2))
    else:
        print_once(screen, console)


def choose_sort(screen: Screen, sort: str | None) -> None:
    if sort is None:
        return
    column = screen.shown.column(sort.removeprefix("-"))
    if column is None:
        known = ", ".join(each.key for each in screen.shown.columns)
        raise click.BadParameter(
            f"{sort.removeprefix('-')} is no column of {screen.shown.name}; known: {known}"
        )
    screen.sorts[screen.shown.name] = column.key, column.number == sort.startswith("-")


def everything(screen: Screen) -> dict[str, Any]:
    from broker.cli.top_views import VIEWS as ALL
    from broker.cli.top_views import totals

    status, rates = screen.status or {}, screen.rates
    found = {name: status.get(name) for name in ("node", "time", "state", "ready", "reasons")}
    rows = {view.name: list(view.rows(status, rates)) for view in ALL}
    return {**found, "seconds": round(rates.seconds, 3), "totals": totals(status, rates), **rows}


def print_once(screen: Screen, console: Any) -> None:
    """One table, as wide as it needs to be."""
    from rich.console import Console

    from broker.cli.tables import PLAIN_WIDTH

    wide = Console(highlight=False, width=PLAIN_WIDTH) if not console.is_terminal else console
    for line in screen.head(wide.width)[:3]:
        wide.print(line)
    wide.print()
    wide.print(screen.table(screen.rows(), wide.width))
