"""How long to wait before dialling again: growing, fully jittered, bounded, reset by success.

Full jitter (a time drawn from the whole interval, not an interval with a bit of noise) is what keeps a
thousand agents from coming back in step after a DMZ node's restart.
"""

from __future__ import annotations

import random
from collections.abc import Callable

BASE_S = 0.5
# A node that is down costs nothing to try, and requests wait for its agents after its return (arrivals.py).
UNREACHABLE_CEILING_S = 2.0
# A node that refused us had to work for it.
REFUSED_CEILING_S = 30.0
# Tunnels that do not live this long, one after the other, are not worth an immediate next one.
STABLE_S = 10.0
UNSTABLE_CEILING_S = 5.0
# Nobody can send us away for longer.
MAX_SUGGESTED_S = 300.0


class Backoff:
    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self.failures = 0  # tries since a tunnel was last up
        self._short_lives = 0  # tunnels in a row that did not last

    def succeeded(self) -> None:
        """A tunnel is up."""
        self.failures = 0

    def after_failure(self, *, refused: bool, suggested_s: float = 0) -> float:
        """Seconds to wait after a try that failed. `suggested_s`: the peer's Retry-After, a lower bound."""
        ceiling = REFUSED_CEILING_S if refused else UNREACHABLE_CEILING_S
        self.failures += 1
        suggested = min(max(suggested_s, 0), MAX_SUGGESTED_S)
        return suggested + self._draw(0, _doubled(self.failures - 1, ceiling))

    def after_loss(self, lived_s: float, *, spread_s: float | None = None) -> float:
        """Seconds to wait after a tunnel was lost. `spread_s`: over how long the peer spreads its agents."""
        self._short_lives = self._short_lives + 1 if lived_s < STABLE_S else 0
        spread = BASE_S if spread_s is None else min(max(spread_s, 0), MAX_SUGGESTED_S)
        if self._short_lives > 1:
            spread = max(spread, _doubled(self._short_lives - 1, UNSTABLE_CEILING_S))
        return self._draw(0, spread)


def _doubled(times: int, ceiling: float) -> float:
    interval: float = min(ceiling, BASE_S * 2 ** min(times, 16))
    return interval
