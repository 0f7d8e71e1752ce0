"""Tables of results, as rows of text that a terminal or a document can show."""

from __future__ import annotations

from dataclasses import dataclass

from bench.peers.results import Results
from bench.peers.scenario import FIGURES


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]


def scenario_table(results: Results, scenario: str, base: str) -> Table:
    """One scenario: a row for each contestant, medians, and ratios to the base."""
    given = results.figures(scenario)
    names = [name for name in FIGURES if name in given]
    with_base = base in results.contestants
    columns = ["contestant"]
    for name in names:
        columns.append(FIGURES[name].title)
        if FIGURES[name].compared and with_base:
            columns.append(f"x {base}")
    rows = [_row(results, scenario, contestant, names, base, with_base) for contestant in results.contestants]
    return Table(f"{results.scenarios[scenario]} ({scenario})", columns, [row for row in rows if row])


def _row(
    results: Results, scenario: str, contestant: str, names: list[str], base: str, with_base: bool
) -> list[str]:
    if not results.of(scenario, contestant):
        return []
    row = [results.contestants[contestant]["title"]]
    failures = results.failures(scenario, contestant)
    if failures:
        row[0] += (
            f" ({len(failures)} of {len(results.of(scenario, contestant))} rounds failed: {failures[0]})"
        )
    for name in names:
        row.append(number(results.middle(scenario, contestant, name), FIGURES[name].digits))
        if FIGURES[name].compared and with_base:
            row.append(number(results.ratio(scenario, contestant, base, name), 2))
    return row


def overview_table(results: Results, figure: str) -> Table:
    """One figure: a row for each contestant, a column for each scenario that gave it."""
    scenarios = [name for name in results.scenarios if figure in results.figures(name)]
    rows = []
    for contestant, about in results.contestants.items():
        values = [results.middle(scenario, contestant, figure) for scenario in scenarios]
        rows.append([f"{about['title']} {about['version']}".strip()])
        rows[-1] += [number(value, FIGURES[figure].digits) for value in values]
    return Table(FIGURES[figure].title, ["contestant", *scenarios], rows)


def number(value: float | None, digits: int) -> str:
    """As tables show it; nothing where there is no figure."""
    return "-" if value is None else f"{value:,.{digits}f}"
