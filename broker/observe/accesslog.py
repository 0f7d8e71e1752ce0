"""The access log's file: blocks of lines from the core, written by a thread of its own.

A disk that is slow or full stops nothing: the core hands over so many blocks and drops records, and counts
them, until one has been written. A line is never torn: what a full disk took of one is ended before the next.
All workers of a node write to the same file. The kernel appends a block to a file as a whole; to a pipe or a
socket it does not, so there they take turns, by a lock on it.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from typing import Any

from _fastpath.record import Journal
from _fastpath.spool import Spool
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
        # To open a pipe that nobody reads would take until somebody does: with O_NONBLOCK it is ENXIO.
        fd = os.open(config.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, MODE)
    except OSError as error:
        why = "nobody reads this pipe" if error.errno == errno.ENXIO else error.strerror
        raise RunError(f"the access log {config.path} cannot be opened: {why}") from None
    os.set_blocking(fd, True)
    return fd


class AccessLogFile:
    """Takes what `journal` formats, from now until `close`. The descriptor becomes its own."""

    def __init__(self, journal: Journal, config: AccessLog, fd: int) -> None:
        self.config = config
        self._limiter = Limiter()
        self._spool = Spool(fd)
        self._thread = threading.Thread(target=self._run, name="access log", daemon=True)
        self._thread.start()
        journal.write(config.format, self._spool, config.query)

    @property
    def where(self) -> str:
        return "stdout" if self.config.path is None else str(self.config.path)

    @property
    def problem(self) -> str:
        """Why the last block could not be written."""
        return os.strerror(self._spool.problem).lower() if self._spool.problem else ""

    @property
    def lost(self) -> int:
        """Lines that could not be written."""
        return self._spool.lost

    def reopen(self, fd: int) -> None:
        """Write to this descriptor from the next block on: the file has been moved away."""
        self._spool.reopen(fd)

    def close(self) -> None:
        """End after what was handed over; a file that takes nothing is not waited for long."""
        self._spool.stop()
        self._thread.join(GOODBYE_S)

    def _run(self) -> None:
        while True:
            try:
                self._spool.write()
            except OSError as error:
                if self._limiter.passes(error.errno) is not None:
                    why = (error.strerror or str(error)).lower()
                    log.warning("the access log %s cannot be written: %s", self.where, why)
            else:
                return


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
