"""What several scenarios measure in the same way."""

from __future__ import annotations

import uvloop

from bench.peers.contestant import Running
from bench.peers.scenario import Figures
from broker.bench import load

MIB = 1024 * 1024


def run_plan(plan: load.Plan, running: Running | None = None) -> load.Outcome:
    """Runs a plan; its meter counts the CPU seconds of the contestant where one is given."""
    return uvloop.run(load.run(plan, meter=running.cpu_seconds if running else None))


def figures_of(outcome: load.Outcome) -> Figures:
    """Of a load of the project's own generator, with CPU per request where it was metered."""
    p50, p99, p999 = outcome.percentiles(50, 99, 99.9)
    figures: Figures = {"rate": outcome.rate, "p50": p50, "p99": p99, "p99.9": p999}
    figures["errors"] = sum(outcome.errors.values())
    if outcome.metered and outcome.completed:
        figures["cpu_us"] = outcome.metered / outcome.completed * 1e6
    return figures


def state_of(running: Running) -> Figures:
    """Memory, and connections between the processes."""
    figures: Figures = {"memory_mib": running.memory().pss / 1024}
    between = running.connections_between()
    if between is not None:
        figures["between"] = between
    return figures
