"""Connections that have not logged in yet: how many there are, from where, and who gives way.

An honest login takes milliseconds, so that whoever waits long is nobody to wait for. A newcomer is taken
always; where there are many, another one ends for him: the longest silent one, else the one that has waited
longest. That begins by chance and becomes certain as their number grows (as OpenSSH's MaxStartups does,
which turns newcomers away instead, the honest ones too). A network that has more than its share pays for
its own newcomers, so that one flood harms nobody else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from broker.config.model import Strangers as Limits

FIRST_CHANCE = 0.3  # of somebody having to go, where `early` is reached; 1 where `most` is


class Stranger(Protocol):
    @property
    def network(self) -> str: ...


S = TypeVar("S", bound=Stranger)


class Queue(Generic[S]):
    """Those that wait, the longest waiting first; apart from those that have not sent a byte."""

    __slots__ = ("silent", "speaking")

    def __init__(self) -> None:
        self.silent: dict[S, None] = {}
        self.speaking: dict[S, None] = {}

    def __len__(self) -> int:
        return len(self.silent) + len(self.speaking)

    def first(self) -> S:
        """Who is to go; there must be one."""
        return next(iter(self.silent or self.speaking))

    def speaks(self, stranger: S) -> None:
        if stranger in self.silent:
            del self.silent[stranger]
            self.speaking[stranger] = None

    def remove(self, stranger: S) -> None:
        self.silent.pop(stranger, None)
        self.speaking.pop(stranger, None)


class Strangers(Generic[S]):
    def __init__(self, limits: Limits, draw: Callable[[], float] = random.random) -> None:
        self.limits = limits
        self._draw = draw
        self._all: Queue[S] = Queue()
        self._by_network: dict[str, Queue[S]] = {}

    def __len__(self) -> int:
        return len(self._all)

    def __iter__(self) -> Iterator[S]:
        return iter([*self._all.silent, *self._all.speaking])

    def enter(self, stranger: S) -> S | None:
        """Who has to go for this newcomer; he stays in the books until `leave`."""
        own = self._by_network.setdefault(stranger.network, Queue())
        gone = self._who_goes(own)
        self._all.silent[stranger] = None
        own.silent[stranger] = None
        return gone

    def speaks(self, stranger: S) -> None:
        """It has sent something."""
        self._all.speaks(stranger)
        self._by_network[stranger.network].speaks(stranger)

    def leave(self, stranger: S) -> None:
        self._all.remove(stranger)
        own = self._by_network[stranger.network]
        own.remove(stranger)
        if not own:
            del self._by_network[stranger.network]

    def _who_goes(self, own: Queue[S]) -> S | None:
        limits, count = self.limits, len(self._all)
        if len(own) >= limits.per_address:
            return own.first()
        if count < limits.early or self._draw() >= self._chance(count):
            return None
        share = count // len(self._by_network)
        return own.first() if len(own) > share else self._all.first()

    def _chance(self, count: int) -> float:
        span = self.limits.most - self.limits.early
        if span <= 0 or count >= self.limits.most:
            return 1.0
        return FIRST_CHANCE + (1 - FIRST_CHANCE) * (count - self.limits.early) / span
