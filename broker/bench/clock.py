"""Ticks at a steady interval below a millisecond, which is as fine as an event loop's own timers get."""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from types import TracebackType
from typing import Self

_NONBLOCK_CLOEXEC = os.O_NONBLOCK | os.O_CLOEXEC


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Timer(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("first", _Timespec)]


class Ticks:
    """A Linux timer behind a file descriptor, watched by the running event loop."""

    def __init__(self, interval: float) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._loop = asyncio.get_running_loop()
        self._tick = asyncio.Event()
        self._descriptor = libc.timerfd_create(time.CLOCK_MONOTONIC, _NONBLOCK_CLOEXEC)
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "no timer")
        span = _Timespec(int(interval), int(interval % 1 * 1e9))
        if libc.timerfd_settime(self._descriptor, 0, ctypes.byref(_Timer(span, span)), None):
            os.close(self._descriptor)
            raise OSError(ctypes.get_errno(), "the timer takes no such interval")

    def __enter__(self) -> Self:
        self._loop.add_reader(self._descriptor, self._on_tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    async def next(self) -> None:
        """Returns at the next tick; ticks that nobody waited for are not made up for."""
        self._tick.clear()
        await self._tick.wait()

    def _on_tick(self) -> None:
        os.read(self._descriptor, 8)
        self._tick.set()
