"""Waiting with a deadline: for a state of the world, never for an amount of time."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# Generous: it only has to end a test that hangs. A busy machine must not reach it.
DEADLINE = 20.0


def wait_until(predicate: Callable[[], T], what: str = "", deadline: float = DEADLINE) -> T:
    """Ask `predicate` until it returns something true; return that.

    The last false value is part of the failure, so let predicates return what they saw.
    """
    limit = time.monotonic() + deadline
    pause = 0.002
    while True:
        seen = predicate()
        if seen:
            return seen
        if time.monotonic() > limit:
            raise AssertionError(f"not within {deadline:g} s: {what or predicate}; last seen: {seen!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


def wait_equal(read: Callable[[], T], expected: T, what: str = "", deadline: float = DEADLINE) -> None:
    """Read a value until it is the expected one; the failure shows the last value."""
    limit = time.monotonic() + deadline
    while (seen := read()) != expected:
        if time.monotonic() > limit:
            raise AssertionError(
                f"not within {deadline:g} s: {what}: expected {expected!r}, last seen {seen!r}"
            )
        time.sleep(0.01)


class Timer:
    """Seconds since it was made; for figures in failure messages and generous upper bounds."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start
