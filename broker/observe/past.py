"""What workers counted that are gone: sums over the workers of a node must never go down.

The supervisor keeps each worker's last status. When a worker is gone, what remains of it, its counts, is
added to what those before it have left behind. One that ends in order says a last word, and nothing is lost;
of one that was killed, what it counted since it was last asked is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from broker.observe.snapshot import Status, merge, remains

# Where a row says which port or URL it is about.
PLACES = ("name", "port", "at", "url")


class Past:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: dict[int, tuple[float, Status]] = {}
        self._gone: Status | None = None

    def seen(self, worker: int, status: Status) -> None:
        self._latest[worker] = (self._clock(), status)

    def lost(self, worker: int) -> float | None:
        """The worker is gone: of how many seconds its counts are lost. None: it had told nothing."""
        if worker not in self._latest:
            return None
        asked, status = self._latest.pop(worker)
        left = remains(status)
        self._gone = left if self._gone is None else merge([self._gone, left])
        return self._clock() - asked

    def merged(self) -> Status | None:
        """All workers as they were last seen, and what remains of those that are gone. None: nothing yet."""
        live = [status for _, status in self._latest.values()]
        if self._gone is None:
            return merge(live) if live else None
        if not live:
            return merge([self._gone])
        return merge([*live, _still_there(self._gone, live)])


def _still_there(gone: Status, live: list[Status]) -> Status:
    """Without what was counted of ports that a reload has taken away."""
    places = {row["name"] for status in live for key in ("external", "registration") for row in status[key]}
    places |= {row["url"] for status in live for row in status["connect"]}
    rows = {key: value for key, value in gone.items() if isinstance(value, list) and _are_rows(value)}
    return {**gone, **{key: [row for row in value if _is_at(row, places)] for key, value in rows.items()}}


def _are_rows(value: list[Any]) -> bool:
    return bool(value) and isinstance(value[0], dict)


def _is_at(row: dict[str, Any], places: set[str]) -> bool:
    place = next((row[key] for key in PLACES if key in row), None)
    return place is None or place in places
