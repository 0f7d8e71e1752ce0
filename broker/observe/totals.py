"""Counts of tunnels that are over, so that what is counted by agent never goes down when one ends."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

MAX_AGENTS = 1000
OTHER_AGENTS = "(other)"
# What a tunnel counts from its beginning, and what is true of it now.
COUNTS = (
    *("opened", "accepted", "refused", "resets_in", "resets_out", "stalls"),
    *("frames_in", "frames_out", "bytes_in", "bytes_out"),
)
NOW = ("streams", "rate_in", "rate_out", "window_bytes")

Agent = tuple[str | None, str]  # user, name


class AgentTotals:
    """By user and agent. An agent chooses its name, so there is a bound: the oldest are counted as one."""

    def __init__(self) -> None:
        self._ended: dict[Agent, Counter[str]] = {}

    def ended(self, agent: Agent, counters: Mapping[str, Any]) -> None:
        """A tunnel of this agent is over."""
        total = self._ended.get(agent)
        if total is None:
            if len(self._ended) >= MAX_AGENTS:
                self._fold()
            total = self._ended[agent] = Counter()
        total.update({key: counters[key] for key in COUNTS})
        total["tunnels_ended"] += 1

    def rows(self, at: str, live: Iterable[tuple[Agent, Mapping[str, Any]]]) -> list[dict[str, Any]]:
        """One row for each agent that has tunnels, or had."""
        totals = {agent: Counter(total) for agent, total in self._ended.items()}
        for agent, counters in live:
            total = totals.setdefault(agent, Counter())
            total.update({key: counters[key] for key in (*COUNTS, *NOW)})
            total["tunnels"] += 1
        keys = ("tunnels", "tunnels_ended", *COUNTS, *NOW)
        return [
            {"at": at, "user": user, "agent": name, **{key: total[key] for key in keys}}
            for (user, name), total in totals.items()
        ]

    def _fold(self) -> None:
        oldest = next(agent for agent in self._ended if agent[1] != OTHER_AGENTS)
        total = self._ended.pop(oldest)
        self._ended.setdefault((None, OTHER_AGENTS), Counter()).update(total)
