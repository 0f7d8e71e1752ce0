"""What a table must say of the machine that it was measured on."""

from __future__ import annotations

import os
import platform
import resource
from datetime import UTC, datetime
from pathlib import Path


def describe() -> dict[str, str | int]:
    """Processor, memory, kernel, distribution, congestion control, date."""
    return {
        "processor": _field(Path("/proc/cpuinfo"), "model name"),
        "processors": len(os.sched_getaffinity(0)),
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "distribution": _field(Path("/etc/os-release"), "PRETTY_NAME", "=").strip('"'),
        "python": platform.python_version(),
        "congestion control": _sysctl("net/ipv4/tcp_congestion_control"),
        "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE)[1],
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def raise_descriptor_limit() -> int:
    """To what this process may have; its children inherit it."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _field(file: Path, name: str, separator: str = ":") -> str:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return "unknown"
    for line in lines:
        key, _, value = line.partition(separator)
        if key.strip() == name:
            return value.strip()
    return "unknown"


def _sysctl(name: str) -> str:
    try:
        return (Path("/proc/sys") / name).read_text().strip()
    except OSError:
        return "unknown"
