"""What the process uses, from the kernel and from the core."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path
from typing import Any

from _fastpath.memory import memory_usage

_PAGE = os.sysconf("SC_PAGE_SIZE")
_STARTED = time.time()


def resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def memory_status(limit: int) -> dict[str, int]:
    used, chunks = memory_usage()
    return {"resident_bytes": resident_bytes(), "buffer_bytes": used, "buffers": chunks, "limit_bytes": limit}


def process_status() -> dict[str, Any]:
    try:
        descriptors = len(os.listdir("/proc/self/fd"))
    except OSError:
        descriptors = 0
    return {
        "cpu_s": time.process_time(),
        "descriptors": descriptors,
        "descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "threads": threading.active_count(),
        "started": _STARTED,
    }
