"""One step of `broker doctor`: what was looked at, how long it took, what was found, what that means."""

from __future__ import annotations

import time
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any

from broker.node.causes import NONE, Advice, advice_for


@dataclass(frozen=True, slots=True)
class Step:
    subject: str  # what is looked at: a URL, a service, a port
    name: str
    state: str  # ok, warning or failed
    seconds: float
    detail: str
    advice: Advice = NONE

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "subject": self.subject,
            "step": self.name,
            "state": self.state,
            "ms": round(self.seconds * 1000, 3),
            "detail": self.detail,
            "cause": self.advice.cause,
            "mend": self.advice.mend,
        }


class Failed(Exception):
    """A step failed; the text is a clause for people."""


def number(count: int, what: str) -> str:
    """1 tunnel, 2 tunnels."""
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


async def timed(subject: str, name: str, work: Awaitable[str]) -> Step:
    started = time.perf_counter()
    try:
        detail = await work
    except Failed as error:
        return failed(subject, name, started, str(error))
    return Step(subject, name, "ok", since(started), detail)


def failed(subject: str, name: str, started: float, detail: str) -> Step:
    return Step(subject, name, "failed", since(started), detail, advice_for(name, detail))


def warning(subject: str, name: str, detail: str) -> Step:
    return Step(subject, name, "warning", 0.0, detail, advice_for(name, detail))


def since(started: float) -> float:
    return time.perf_counter() - started
