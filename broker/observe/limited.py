"""Log lines that strangers can cause: each kind at most once in a while, the rest counted."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Hashable

MAX_KINDS = 1024


class Limiter:
    """Lets one line per kind and interval pass. Memory is bounded: the oldest kinds are forgotten."""

    def __init__(self, interval_s: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = interval_s
        self._clock = clock
        self._kinds: OrderedDict[Hashable, tuple[float, int]] = OrderedDict()

    def passes(self, kind: Hashable) -> int | None:
        """How many lines of this kind were held back since the last one; None: hold this one back too."""
        now = self._clock()
        last, held = self._kinds.pop(kind, (-self._interval, 0))
        due = now - last >= self._interval
        self._kinds[kind] = (now, 0) if due else (last, held + 1)
        if len(self._kinds) > MAX_KINDS:
            self._kinds.popitem(last=False)
        return held if due else None
