"""What `broker bench` says: the figures of a load, for people and for machines."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from broker.bench.load import Outcome, Plan

REFRESH = 0.1  # seconds


@dataclass(frozen=True)
class Report:
    """The figures; latencies in milliseconds, memory in KiB."""

    connections: int
    seconds: float
    requests: int
    requests_per_second: float
    p50: float
    p90: float
    p99: float
    errors: dict[str, int]
    cpu_us_per_request: float | None  # of the processes that were started for it, None where there were none
    memory: int | None  # likewise

    @classmethod
    def of(cls, plan: Plan, outcome: Outcome, memory: int | None) -> Report:
        p50, p90, p99 = (round(value, 3) for value in outcome.percentiles(50, 90, 99))
        cpu = None
        if memory is not None and outcome.completed:
            cpu = round(outcome.metered / outcome.completed * 1e6, 1)
        return cls(
            connections=plan.connections,
            seconds=round(outcome.seconds, 3),
            requests=outcome.requests,
            requests_per_second=round(outcome.rate, 1),
            p50=p50,
            p90=p90,
            p99=p99,
            errors=dict(outcome.errors),
            cpu_us_per_request=cpu,
            memory=memory,
        )

    @property
    def good(self) -> bool:
        return self.requests > 0 and not self.errors

    def print(self, as_json: bool) -> None:
        """On standard output: a table in a terminal, lines otherwise."""
        if as_json:
            click.echo(json.dumps(asdict(self), indent=2))
            return
        console = Console(highlight=False)
        if not console.is_terminal:
            for name, value in self._lines():
                click.echo(f"{name}: {value}")
            return
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for name, value in self._lines():
            table.add_row(name, value)
        console.print(table)

    def _lines(self) -> Iterator[tuple[str, str]]:
        yield "connections", f"{self.connections:,}"
        yield "requests", f"{self.requests:,} in {self.seconds:.1f} s"
        yield "requests/s", f"{self.requests_per_second:,.0f}"
        yield "p50", f"{self.p50:.3f} ms"
        yield "p90", f"{self.p90:.3f} ms"
        yield "p99", f"{self.p99:.3f} ms"
        yield "errors", ", ".join(f"{count} {name}" for name, count in self.errors.items()) or "none"
        if self.cpu_us_per_request is not None:
            yield "CPU of both nodes", f"{self.cpu_us_per_request:.1f} µs/request"
        if self.memory is not None:
            yield "memory of both nodes", f"{self.memory / 1024:.1f} MiB"


@contextmanager
def progress(seconds: float, quiet: bool) -> Iterator[None]:
    """A bar on standard error that fills while the load lasts; nothing without a terminal."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield
        return
    columns = (TextColumn("loading"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        moving = asyncio.get_running_loop().create_task(_move(bar, bar.add_task("", total=seconds)))
        try:
            yield
        finally:
            moving.cancel()


async def _move(bar: Progress, task: TaskID) -> None:
    begun = time.monotonic()
    while True:
        bar.update(task, completed=time.monotonic() - begun)
        await asyncio.sleep(REFRESH)
