"""What processes cost, from the operating system's own accounting (Linux)."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

PROC = Path("/proc")
TICK = os.sysconf("SC_CLK_TCK")

# Fields of /proc/PID/stat, counted from the one after the command's name (see proc(5)).
PARENT = 1
CHILDREN_USER = 13
CHILDREN_SYSTEM = 14


@dataclass(frozen=True)
class Memory:
    """Resident memory in KiB; `pss` divides shared pages among those who share them."""

    rss: int
    pss: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.rss + other.rss, self.pss + other.pss)

    def __sub__(self, other: Memory) -> Memory:
        return Memory(self.rss - other.rss, self.pss - other.pss)


def tree(roots: Iterable[int]) -> list[int]:
    """The living processes among `roots` and all their descendants."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            fields = _stat(int(entry.name))
            if fields:
                children.setdefault(int(fields[PARENT]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid for pid in roots if _stat(pid)]
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting.extend(children.get(pid, ()))
    return found


def cpu_seconds(pids: Iterable[int]) -> float:
    """User and system time of the processes, all their threads, and the children that they have reaped.

    The process's CPU clock counts nanoseconds where /proc/PID/stat counts ticks of 10 ms.
    """
    return sum(_process_cpu(pid) for pid in pids)


def memory(pids: Iterable[int]) -> Memory:
    """The sum over the processes."""
    return sum((_process_memory(pid) for pid in pids), Memory(0, 0))


def _process_cpu(pid: int) -> float:
    fields = _stat(pid)
    if not fields:
        return 0.0
    reaped = (int(fields[CHILDREN_USER]) + int(fields[CHILDREN_SYSTEM])) / TICK
    try:
        return time.clock_gettime(_cpu_clock(pid)) + reaped
    except OSError:  # it has ended between the two looks
        return reaped


def _cpu_clock(pid: int) -> int:
    """The clock id of a process's CPU time: what clock_getcpuclockid(3) computes on Linux."""
    scheduler_clock = 2
    return (~pid << 3) | scheduler_clock


def _process_memory(pid: int) -> Memory:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return Memory(0, 0)
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines[1:])}
    return Memory(sizes.get("Rss", 0), sizes.get("Pss", 0))


def _stat(pid: int) -> list[str]:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return []
    return text[text.rindex(")") + 2 :].split()
