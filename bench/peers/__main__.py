"""Whole processes side by side, in interleaved rounds.

python -m bench.peers --contestants ours,haproxy,nginx --scenarios c64,c256 --rounds 5 --json out.json
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table as RichTable

from bench.peers import link, machine
from bench.peers.contestant import Contestant
from bench.peers.contestants import contestants
from bench.peers.contestants.nginx import service_missing
from bench.peers.loads import wrk
from bench.peers.results import Measurement, Results
from bench.peers.run import Run, execute, unfit
from bench.peers.scenario import FIGURES, Scenario
from bench.peers.scenarios import scenarios
from bench.peers.tables import Table, number, scenario_table

DEFAULT_CONTESTANTS = "direct,ours,haproxy,haproxy2,nginx,rhttp"
DEFAULT_SCENARIOS = "c1,c64,c256,new"

Item = TypeVar("Item")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.peers", description=__doc__.splitlines()[0])
    parser.add_argument("--contestants", default=DEFAULT_CONTESTANTS, help="names, or all (%(default)s)")
    parser.add_argument("--scenarios", default=DEFAULT_SCENARIOS, help="names, or all (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load")
    parser.add_argument("--json", type=Path, help="where the results are kept")
    parser.add_argument("--add", action="store_true", help="to what is in that file already")
    parser.add_argument("--base", default="haproxy", help="the contestant that ratios compare with")
    parser.add_argument("--access-log", action="store_true", help="every contestant that can writes one")
    parser.add_argument("--haproxy-rhttp", type=Path, metavar="PATH", help="an HAProxy of 2.9 or newer")
    parser.add_argument(
        "--tree",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="another working copy of this product, built: the contestant ours@NAME",
    )
    parser.add_argument("--list", action="store_true", help="say what there is and end")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    console = Console(stderr=True, highlight=False, markup=False)  # failures say what they like
    known, loads = contestants(options.haproxy_rhttp, options.tree), scenarios()
    if options.list:
        _list(known, loads)
        return 0
    try:
        chosen = _choose(known, options.contestants)
        chosen_loads = _choose(loads, options.scenarios)
    except KeyError as unknown:
        console.print(f"there is no {unknown.args[0]}; --list says what there is")
        return 2
    for need in (service_missing(), wrk.missing()):
        if need:
            console.print(f"needed: {need}")
            return 1
    descriptors = machine.raise_descriptor_limit()
    skipped = {each.name: why for each in chosen if (why := each.missing())}
    for load in chosen_loads:
        if load.link and (why := link.missing()):
            skipped[load.name] = why
        for each in chosen:
            if each.name not in skipped and (why := unfit(each, load, descriptors)):
                skipped[f"{load.name} {each.name}"] = why
    for name, why in skipped.items():
        console.print(f"{name} is skipped: {why}")
    run = Run(
        [each for each in chosen if each.name not in skipped],
        [each for each in chosen_loads if each.name not in skipped],
        options.rounds,
        options.seconds,
        descriptors,
        options.access_log,
    )
    results = _prepare(run, skipped)
    if options.add and options.json.exists():
        results = Results.load(options.json).joined(results)
        again = {(load.name, each.name) for load in run.scenarios for each in run.contestants}
        kept = [each for each in results.measurements if (each.scenario, each.contestant) not in again]
        results.measurements = kept
    _execute(run, results, console, options)
    return 0


def _execute(run: Run, results: Results, console: Console, options: argparse.Namespace) -> None:
    def take(measurement: Measurement) -> None:
        results.measurements.append(measurement)
        if options.json:
            results.save(options.json)
        progress.advance(task)
        progress.update(task, description=f"{measurement.scenario} {measurement.contestant}")
        if not console.is_terminal or measurement.failure:
            console.print(_line(measurement))

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        task = progress.add_task("starting", total=run.measurements())
        execute(run, take)
    if options.json:
        results.save(options.json)  # where everybody was skipped, that is what is to be kept
    output = Console(highlight=False, markup=False, width=None if sys.stdout.isatty() else 220)
    for scenario in (load.name for load in run.scenarios):
        output.print(_rich(scenario_table(results, scenario, options.base)))


def _prepare(run: Run, skipped: dict[str, str]) -> Results:
    versions = {
        each.name: {
            "title": each.title,
            "version": each.version(),
            "access log": "yes" if run.access_log and each.logs else "no",
        }
        for each in run.contestants
    }
    settings = {
        "seconds": run.seconds,
        "access log": run.access_log,
        "wrk": wrk.version(),
    }
    titles = {each.name: each.title for each in run.scenarios}
    return Results(machine.describe(), settings, versions, titles, skipped)


def _choose(known: Mapping[str, Item], names: str) -> list[Item]:
    if names == "all":
        return list(known.values())
    return [known[name] for name in dict.fromkeys(names.split(","))]


def _line(measurement: Measurement) -> str:
    head = f"{measurement.scenario} {measurement.contestant} {measurement.round + 1}:"
    if measurement.failure:
        return f"{head} failed: {measurement.failure}"
    figures = (
        f"{FIGURES[name].title} {number(value, FIGURES[name].digits)}"
        for name, value in measurement.figures.items()
    )
    return f"{head} {', '.join(figures)}"


def _rich(table: Table) -> RichTable:
    shown = RichTable(title=table.title, title_justify="left")
    for position, column in enumerate(table.columns):
        shown.add_column(column, justify="left" if position == 0 else "right")
    for row in table.rows:
        shown.add_row(*row)
    return shown


def _list(known: Mapping[str, Contestant], loads: Mapping[str, Scenario]) -> None:
    print("contestants:")
    for name, contestant in known.items():
        print(f"  {name:14} {contestant.title}")
    print("scenarios:")
    for name, scenario in loads.items():
        print(f"  {name:14} {scenario.title}")


if __name__ == "__main__":
    sys.exit(main())
