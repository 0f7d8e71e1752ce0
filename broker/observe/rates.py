"""How fast the counters of status documents grow: what `broker top` shows beside what there is."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WINDOW_S = 10.0

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Sample:
    time: float
    values: dict[str, float]


class Rates:
    """Fed with one status after another. With another process all counters begin anew."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._samples: deque[Sample] = deque()
        self._process: object = None

    def add(self, status: Entry) -> None:
        time = float(status.get("time") or 0)
        process = status.get("pid"), (status.get("process") or {}).get("started")
        if process != self._process or (self._samples and time <= self._samples[-1].time):
            self._samples.clear()
            self._process = process
        self._samples.append(Sample(time, counters(status)))
        while len(self._samples) > 2 and time - self._samples[1].time >= self._window_s:
            self._samples.popleft()

    @property
    def seconds(self) -> float:
        """Between the two samples that rates are of; 0: there are no two yet."""
        return self._samples[-1].time - self._samples[0].time if self._samples else 0.0

    def per_second(self, name: str) -> float | None:
        """None where it is not known. A counter that is new began at 0."""
        if not self.seconds:
            return None
        growth = self._samples[-1].values.get(name, 0) - self._samples[0].values.get(name, 0)
        return growth / self.seconds if growth >= 0 else None


def service_key(service: Entry) -> str:
    return f"service|{service.get('at')}|{service.get('registration')}|{service.get('service')}"


def backend_key(service: Entry, backend: Entry) -> str:
    return f"{service_key(service)}|{backend.get('address')}"


def port_key(port: Entry) -> str:
    return f"port|{port.get('name')}"


def counters(status: Entry) -> dict[str, float]:
    """Every counter that has a rate, by name."""
    found: dict[str, float] = {"cpu": (status.get("process") or {}).get("cpu_s", 0)}
    front = status.get("external") or status.get("services") or []
    found["exchanges"] = sum(each.get("exchanges") or 0 for each in front)
    found["failures"] = sum(failures_of(each) for each in front)
    for name in ("bytes_in", "bytes_out"):
        found[name] = sum(each.get(name) or 0 for each in front)
    for port in status.get("external") or []:
        for name in ("exchanges", "bytes_in", "bytes_out"):
            found[f"{port_key(port)}|{name}"] = port.get(name) or 0
        found[f"{port_key(port)}|failures"] = failures_of(port)
    for service in status.get("services") or []:
        found[service_key(service)] = service.get("exchanges") or 0
        found[f"{service_key(service)}|failures"] = failures_of(service)
        for backend in service.get("backends") or []:
            found[backend_key(service, backend)] = backend.get("exchanges") or 0
    return found


def failures_of(entry: Entry) -> int:
    return sum((entry.get("failures") or {}).values())
