"""wrk: as many requests as a number of connections carries, from one thread."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.contestants.programs import ask_version, find
from bench.peers.processes import Failed, end_with_parent

REPORT = Path(__file__).with_name("report.lua")
HOSTS = Path(__file__).with_name("hosts.lua")
ERRORS = ("connect", "read", "write", "status", "timeout")
PATIENCE = 20.0  # seconds that wrk gets beyond the duration of its load


@dataclass(frozen=True)
class Result:
    requests: int
    bytes: int
    seconds: float
    errors: int
    percentiles: dict[str, float]  # milliseconds

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def missing() -> str | None:
    return None if find("wrk") else "wrk (Debian: apt install wrk)"


def version() -> str:
    return ask_version(find("wrk"), "-v")


def run(
    url: str,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] | None = None,
    hosts: Sequence[str] = (),
) -> Result:
    """Loads for so many whole seconds, at least one; with `hosts`, each request asks for the next of them."""
    program = find("wrk")
    assert program is not None, "the run has asked what is missing"
    duration = max(1, round(seconds))
    command = [str(program), "-t1", f"-c{connections}", f"-d{duration}s", "--latency", "--timeout", "10s"]
    for name, value in (headers or {}).items():
        command += ["-H", f"{name}: {value}"]
    try:
        done = subprocess.run(
            [*command, "-s", str(HOSTS if hosts else REPORT), url, *(["--", *hosts] if hosts else [])],
            capture_output=True,
            text=True,
            timeout=duration + PATIENCE,
            check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent,
        )
    except subprocess.TimeoutExpired:
        raise Failed(f"wrk did not end {PATIENCE:.0f} s after its load") from None
    if done.returncode or not done.stdout.strip().endswith("}"):
        raise Failed(f"wrk: {(done.stderr or done.stdout).strip()[-200:]}")
    return _read(json.loads(done.stdout.strip().splitlines()[-1]))


def _read(report: dict[str, float]) -> Result:
    return Result(
        requests=int(report["requests"]),
        bytes=int(report["bytes"]),
        seconds=report["microseconds"] / 1e6,
        errors=int(sum(report[kind] for kind in ERRORS)),
        percentiles={name: report[name] / 1000 for name in ("p50", "p90", "p99", "p99.9")},
    )
