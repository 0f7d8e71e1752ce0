"""What a scenario is: a load, and the figures that it gives of a running contestant."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.peers.contestant import Running

Figures = dict[str, float]


@dataclass(frozen=True)
class Settings:
    """What a run has chosen, and where its materials lie."""

    seconds: float
    files: Path  # the files that the service serves, for uploads


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    measure: Callable[[Running, Settings], Figures]
    upstream: Literal["nginx", "service"] = "nginx"  # "service": the one that can wait and take bodies
    tunnels: int = 1
    warm: bool = True  # some requests beforehand, which are not counted
    descriptors: int = 0  # that a contestant must be allowed to have open, in all its processes together
    tls: bool = False  # whether its load can speak TLS
    agents: int = 1
    link: bool = False  # between agents and the rest: 60 ms


@dataclass(frozen=True)
class Figure:
    """A column of the tables."""

    title: str
    digits: int
    compared: bool = False  # shown as a ratio too


FIGURES = {
    "cpu_us": Figure("CPU µs/request", 1, compared=True),
    "cpu_s_per_gib": Figure("CPU s/GiB", 2, compared=True),
    "rate": Figure("requests/s", 0),
    "mib_per_s": Figure("MiB/s", 0),
    "p50": Figure("p50 ms", 3),
    "p99": Figure("p99 ms", 2),
    "p99.9": Figure("p99.9 ms", 2),
    "p99_alone": Figure("p99 alone ms", 2),
    "p99_beside": Figure("p99 beside ms", 2),
    "p99_ratio": Figure("beside / alone", 2),
    "seconds": Figure("seconds until all are answered", 2),
    "kib_per_client": Figure("KiB per client", 2, compared=True),
    "idle_cpu": Figure("CPU % while idle", 1),
    "growth_mib": Figure("largest growth of a process, MiB", 1),
    "memory_mib": Figure("memory MiB", 1),
    "between": Figure("connections between", 0),
    "errors": Figure("errors", 0),
}
