"""The access log's file: blocks of lines from the core, written by a thread of its own.

A disk that is slow or full stops nothing: the core hands over so many blocks and drops records, and counts
them, until one has been written. A line is never torn: what a full disk took of one is ended before the next.
All workers of a node write to the same file. The kernel appends a block to a file as a whole; to a pipe or a
socket it does not, so there they take turns, by a lock on it.
"""

from __future__ import annotations

import fcntl
import logging
import os
import queue
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _fastpath.record import Journal, Lines
from broker.config.model import AccessLog
from broker.errors import RunError
from broker.observe.limited import Limiter

log = logging.getLogger("broker.access")

STDOUT = 1
MODE = 0o640
FLUSH_S = 0.2  # lines are in the file at most this much later
GOODBYE_S = 2.0  # for the last lines, when the node ends


def open_log(config: AccessLog) -> int:
    """A descriptor to append to. RunError with a sentence for people."""
    if config.path is None:
        return os.dup(STDOUT)
    try:
        return os.open(config.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, MODE)
    except OSError as error:
        raise RunError(f"the access log {config.path} cannot be opened: {error.strerror}") from None


class AccessLogFile:
    """Takes what `journal` formats, from now until `close`. The descriptor becomes its own."""

    def __init__(self, journal: Journal, config: AccessLog, fd: int) -> None:
        self.config = config
        self.problem = ""
        self.lost = 0
        self._fd = fd
        self._torn = False
        self._limiter = Limiter()
        self._queue: queue.SimpleQueue[Lines | int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()
        journal.write(config.format, self._queue.put, config.query)

    @property
    def where(self) -> str:
        return "stdout" if self.config.path is None else str(self.config.path)

    def reopen(self, fd: int) -> None:
        """Write to this descriptor from the next block on: the file has been moved away."""
        self._queue.put(fd)

    def close(self) -> None:
        """End after what was handed over; a file that takes nothing is not waited for long."""
        self._queue.put(None)
        self._thread.join(GOODBYE_S)

    def _run(self) -> None:
        while True:
            item = self._queue.get()
            if item is None:
                os.close(self._fd)
                return
            if isinstance(item, int):
                os.close(self._fd)
                self._fd = item
                self._torn = False
                continue
            self._write(item)
            del item  # gives the block back

    def _write(self, lines: Lines) -> None:
        view = memoryview(lines)
        try:
            with turn(self._fd):
                if self._torn:
                    os.write(self._fd, b"\n")
                    self._torn = False
                while view:
                    taken = os.write(self._fd, view)
                    self._torn = view[taken - 1] != 0x0A
                    view = view[taken:]
        except OSError as error:
            self.lost += bytes(view).count(b"\n")
            self.problem = (error.strerror or str(error)).lower()
            held = self._limiter.passes(error.errno)
            if held is not None:
                log.warning("the access log %s cannot be written: %s", self.where, self.problem)
        else:
            self.problem = ""


@contextmanager
def turn(fd: int) -> Iterator[None]:
    """Nobody else of this node writes there meanwhile."""
    shared = not stat.S_ISREG(os.fstat(fd).st_mode)
    if shared:
        fcntl.lockf(fd, fcntl.LOCK_EX)  # of a process, and gone with it
    try:
        yield
    finally:
        if shared:
            fcntl.lockf(fd, fcntl.LOCK_UN)


def access_status(file: AccessLogFile | None, journal: Journal) -> dict[str, Any] | None:
    if file is None:
        return None
    return {
        "path": file.where,
        "format": file.config.format,
        "records": journal.records,
        "dropped": journal.dropped + file.lost,
        "problem": file.problem,
    }
