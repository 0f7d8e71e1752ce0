"""Large bodies."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.peers.contestant import Running
from bench.peers.loads import bulk, wrk
from bench.peers.scenario import Figures, Scenario, Settings

GIB = 1024**3
MIB = 1024**2


def transfer(move: Callable[[Running, Settings], int]) -> Callable[[Running, Settings], Figures]:
    """One body, which `move` moves."""

    def measure(running: Running, settings: Settings) -> Figures:
        cpu_before, begun = running.cpu_seconds(), time.monotonic()
        size = move(running, settings)
        seconds, cpu = time.monotonic() - begun, running.cpu_seconds() - cpu_before
        memory = running.memory().pss / 1024
        return {"cpu_s_per_gib": cpu * GIB / size, "mib_per_s": size / MIB / seconds, "memory_mib": memory}

    return measure


def download(name: str) -> Callable[[Running, Settings], int]:
    return lambda running, _settings: bulk.download(running.host, running.port, f"/{name}")


def upload(name: str) -> Callable[[Running, Settings], int]:
    return lambda running, settings: bulk.upload(running.host, running.port, "/", settings.files / name)


def bodies(running: Running, settings: Settings) -> Figures:
    """1 MiB bodies, again and again."""
    before = running.cpu_seconds()
    result = wrk.run(running.url("/1m"), 8, settings.seconds)
    cpu = running.cpu_seconds() - before
    figures: Figures = {"mib_per_s": result.bytes / MIB / result.seconds, "errors": result.errors}
    figures["memory_mib"] = running.memory().pss / 1024
    if result.bytes:
        figures["cpu_s_per_gib"] = cpu * GIB / result.bytes
    return figures


SCENARIOS = [
    Scenario("bodies", "1 MiB bodies, 8 connections", bodies, tls=True),
    Scenario("download", "1 GiB download, one stream", transfer(download("1g"))),
    Scenario("upload", "1 GiB upload, one stream", transfer(upload("1g")), "service"),
]
