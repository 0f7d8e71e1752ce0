"""Clients that stay connected and ask nothing."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.peers.contestant import Running
from bench.peers.loads.idle import IdleCrowd
from bench.peers.scenario import Figures, Scenario, Settings
from bench.peers.scenarios.measures import state_of

FIRST = 500  # what a contestant allocates for its first clients does not count


def idle_clients(count: int) -> Callable[[Running, Settings], Figures]:
    def measure(running: Running, settings: Settings) -> Figures:
        with IdleCrowd(running.host, running.port, running.tls, count) as clients:
            clients.grow(FIRST)
            before = running.memory()
            clients.grow(count)
            cpu = running.cpu_seconds()
            # The wait is what is measured: what the processes burn while nobody asks.
            time.sleep(settings.seconds)
            cpu = running.cpu_seconds() - cpu
            grown = running.memory() - before
            figures = {"kib_per_client": grown.pss / (count - FIRST), "errors": clients.closed()}
            return figures | {"idle_cpu": 100 * cpu / settings.seconds} | state_of(running)

    return measure


SCENARIOS = [
    Scenario("idle5000", "5,000 idle clients", idle_clients(5000), tls=True),
    Scenario("idle15000", "15,000 idle clients", idle_clients(15_000), descriptors=15_500, tls=True),
    Scenario("idle20000", "20,000 idle clients", idle_clients(20_000), descriptors=20_500, tls=True),
]
