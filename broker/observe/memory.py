"""What the process uses, from the kernel and from the core."""

from __future__ import annotations

import os
from pathlib import Path

from _fastpath.memory import memory_usage

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident_bytes() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return 0


def memory_status(limit: int) -> dict[str, int]:
    used, chunks = memory_usage()
    return {"resident_bytes": resident_bytes(), "buffer_bytes": used, "buffers": chunks, "limit_bytes": limit}
