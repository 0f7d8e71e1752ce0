"""Requests that the service answers late, so that many are under way at once."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers.contestant import Running
from bench.peers.scenario import Figures, Scenario, Settings
from bench.peers.scenarios.measures import figures_of, run_plan, state_of
from broker.bench import load

# The same rate at every number of streams: what differs is their number, not how many share a wake-up.
RATE = 2000
SPARE = 64  # connections beyond those that are expected to be under way
BATCH = 500
BATCH_DELAY = 2000


def many_streams(count: int) -> Callable[[Running, Settings], Figures]:
    """So many requests under way at any moment."""
    delay = count / RATE

    def measure(running: Running, settings: Settings) -> Figures:
        plan = load.Plan(
            running.host,
            running.port,
            f"/delay/{delay * 1000:.0f}",
            connections=count + SPARE,
            seconds=settings.seconds,
            rate=RATE,
            warmup=delay + 0.5,
            grace=delay + load.GRACE,
        )
        return figures_of(run_plan(plan, running)) | state_of(running)

    return measure


def slow_batch(running: Running, _settings: Settings) -> Figures:
    """All at once, each of which takes the service a while."""
    plan = load.Plan(
        running.host, running.port, f"/delay/{BATCH_DELAY}", connections=BATCH, requests=BATCH, seconds=20
    )
    outcome = run_plan(plan, running)
    errors = sum(outcome.errors.values()) + BATCH - outcome.requests
    return {"seconds": outcome.seconds, "errors": errors, **state_of(running)}


SCENARIOS = [
    *(
        Scenario(
            f"streams{count}", f"{count:,} streams at once, {RATE:,} a second", many_streams(count), "service"
        )
        for count in (1, 10, 100, 1000, 5000, 10_000)
    ),
    Scenario("slow", "500 requests at once of 2 s each, two tunnels", slow_batch, "service", tunnels=2),
]
