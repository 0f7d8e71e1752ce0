"""Writes what was measured into the documentation: python -m bench.peers.document

From the newest file in bench/results: the goals and plots into docs/performance.md, all tables into
docs/measurements.md. A test holds that both are those of that file.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

from bench.peers import goals, plots
from bench.peers.contestants import contestants
from bench.peers.render import as_markdown, markdown
from bench.peers.results import Results
from bench.peers.scenarios import scenarios

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "bench" / "results"
SUMMARY = ROOT / "docs" / "performance.md"
TABLES = ROOT / "docs" / "measurements.md"
PLOTS = ROOT / "docs" / "plots"
BEGIN, END = "<!-- measured: written by bench.peers.document -->", "<!-- end of measured -->"
HEAD = """# Measurements

Every contestant in every scenario: medians of the rounds; `x haproxy` is the median of the ratios to one
plain HAProxy hop in the same round. Written by `python -m bench.peers.document` from `bench/results/{name}`.
[How to run it again, and what each figure means](../bench/README.md); what it comes to:
[Performance](performance.md).

"""


def newest() -> Path:
    return max(RESULTS.glob("*.json"))


def load(path: Path) -> Results:
    """With tables in the order of the contestants and scenarios there are."""
    return Results.load(path).ordered(contestants(None), scenarios())


def tables(results: Results, name: str) -> str:
    """The whole of docs/measurements.md."""
    return HEAD.format(name=name) + "\n".join(markdown(results, "haproxy")).rstrip() + "\n"


def summary(results: Results, text: str) -> str:
    """docs/performance.md with what stands between the two marks written anew."""
    about = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    lines = [BEGIN, f"Measured on: {about}.", "", *as_markdown(goals.table(results), heading=False)]
    for name, scenario, figure in plots.PLOTS:
        if figure in results.figures(scenario):
            lines += [f"![{results.scenarios[scenario]}](plots/{name}.svg)", ""]
    block = "\n".join([*lines, END])
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"{SUMMARY.name} must have the two marks once each")
    return re.sub(re.escape(BEGIN) + ".*" + re.escape(END), lambda _: block, text, flags=re.DOTALL)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.peers.document", description=__doc__.splitlines()[0]
    )
    parser.parse_args()
    source = newest()
    results = load(source)
    PLOTS.mkdir(exist_ok=True)
    for name, scenario, figure in plots.PLOTS:
        if figure in results.figures(scenario):
            plots.bars(results, scenario, figure, PLOTS / f"{name}.svg")
    TABLES.write_text(tables(results, source.name))
    SUMMARY.write_text(summary(results, SUMMARY.read_text()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
