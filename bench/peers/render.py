"""Renders results as Markdown: python -m bench.peers.render out.json"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from bench.peers.results import Results
from bench.peers.tables import Table, overview_table, scenario_table

OVERVIEWS = ("cpu_us", "cpu_s_per_gib")


def markdown(results: Results, base: str) -> Iterator[str]:
    """Line by line: the machine, an overview, and a table for each scenario."""
    yield ", ".join(f"{name} {value}" for name, value in results.machine.items())
    yield ""
    versions = (f"{each['title']} {each['version']}".strip() for each in results.contestants.values())
    yield "Contestants: " + "; ".join(versions)
    yield ""
    yield "Settings: " + ", ".join(f"{name} {value}" for name, value in results.settings.items())
    yield ""
    for name, why in results.skipped.items():
        yield f"Skipped: {name}: {why}"
        yield ""
    for figure in OVERVIEWS:
        yield from as_markdown(overview_table(results, figure))
    for scenario in results.scenarios:
        yield from as_markdown(scenario_table(results, scenario, base))


def as_markdown(table: Table, *, heading: bool = True) -> Iterator[str]:
    """A table's lines; nothing where it has no rows."""
    if not table.rows:
        return
    if heading:
        yield f"### {table.title}"
        yield ""
    yield "| " + " | ".join(table.columns) + " |"
    yield "|---" + "|---:" * (len(table.columns) - 1) + "|"
    for row in table.rows:
        yield "| " + " | ".join(cell.replace("|", "/") for cell in row) + " |"
    yield ""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.render", description=__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("--base", default="haproxy", help="the contestant that ratios compare with")
    options = parser.parse_args()
    print("\n".join(markdown(Results.load(options.results), options.base)).rstrip())


if __name__ == "__main__":
    main()
