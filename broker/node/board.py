"""Shared memory of all workers of a node: how many connections each has at each external port, and from whom.

Made before the first worker is, so that all inherit it. A row for each port, a cell for each worker, and one
table of addresses for all ports (`_fastpath/crowd.pyx`). A worker writes its own cells only, the supervisor
those of a worker that has died.
"""

from __future__ import annotations

import mmap
import os

from _fastpath.connection import Headcount
from _fastpath.crowd import KEY_SIZE, Crowd, clear_row, crowd_size

CELL = 4
MAX_PORTS = 1024


class Board:
    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._memory = memoryview(mmap.mmap(-1, MAX_PORTS * workers * CELL)).cast("I")
        self._addresses = memoryview(mmap.mmap(-1, crowd_size(workers)))
        self._key = os.urandom(KEY_SIZE)
        self.rows: dict[str, int] = {}

    def assign(self, ports: list[str]) -> None:
        """The supervisor's: a row for each port. The first ones keep theirs, so do those that are gone."""
        for port in ports:
            if port not in self.rows and len(self.rows) < MAX_PORTS:
                self.rows[port] = len(self.rows)

    def headcount(self, port: str, worker: int) -> Headcount:
        row = self.rows[port] * self._workers
        return Headcount(self._memory[row : row + self._workers], worker)

    def crowd(self, port: str, worker: int) -> Crowd:
        return Crowd(self._addresses, self._key, self._workers, worker, self.rows[port])

    def clear(self, worker: int) -> None:
        """The worker has died, and its connections with it."""
        for row in range(len(self.rows)):
            self._memory[row * self._workers + worker] = 0
        clear_row(self._addresses, self._workers, worker)
