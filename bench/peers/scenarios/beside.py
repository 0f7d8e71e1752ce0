"""Small requests beside something large, and beside someone who does not read."""

from __future__ import annotations

from collections.abc import Callable

from bench.peers.contestant import Running
from bench.peers.loads import bulk
from bench.peers.scenario import Figures, Scenario, Settings
from bench.peers.scenarios.measures import run_plan
from broker.bench import load

PROBE_RATE = 500
PROBE_CONNECTIONS = 8
BULK = 8
PACE = 20.0  # MiB a second of each paced download


def probe(running: Running, settings: Settings) -> tuple[float, float]:
    """The p99 of small requests at a low rate, and the errors."""
    plan = load.Plan(
        running.host,
        running.port,
        connections=PROBE_CONNECTIONS,
        seconds=settings.seconds,
        rate=PROBE_RATE,
        warmup=0.2,
    )
    outcome = run_plan(plan)
    return outcome.percentiles(99)[0], sum(outcome.errors.values())


def beside_bulk(pace: float | None) -> Callable[[Running, Settings], Figures]:
    """Beside downloads that are as fast as they get, or whose readers take only so much."""

    def measure(running: Running, settings: Settings) -> Figures:
        alone, errors_alone = probe(running, settings)
        with bulk.downloads(running.host, running.port, "/1g", BULK, pace):
            beside, errors = probe(running, settings)
        return _compare(alone, beside) | {"errors": errors_alone + errors}

    return measure


def beside_stalled(running: Running, settings: Settings) -> Figures:
    """Beside a download of which nothing is read."""
    alone, errors_alone = probe(running, settings)
    before = running.memory_by_process()
    stalled = bulk.open_download(running.host, running.port, "/1g")
    with stalled:
        beside, errors = probe(running, settings)
        after = running.memory_by_process()
    growth = max((after[name].pss - before[name].pss for name in before), default=0)
    return _compare(alone, beside) | {"growth_mib": growth / 1024, "errors": errors_alone + errors}


def _compare(alone: float, beside: float) -> Figures:
    figures: Figures = {"p99_alone": alone, "p99_beside": beside}
    if alone:
        figures["p99_ratio"] = beside / alone
    return figures


SCENARIOS = [
    Scenario("beside", "small requests beside 8 downloads at full speed", beside_bulk(None)),
    Scenario("beside-paced", f"small requests beside 8 downloads of {PACE:.0f} MiB/s", beside_bulk(PACE)),
    Scenario("stalled", "small requests beside a 1 GiB download that is not read", beside_stalled),
]
