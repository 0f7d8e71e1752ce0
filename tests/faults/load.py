"""Clients that ask without pause while something is done to the nodes, and an account of what they got.

Every request has a number of its own. The origin says how often it has seen each, so that what was answered
wrongly, cut short or delivered twice is known afterwards.
"""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from tests.harness.client import RawClient
from tests.harness.message import Closed
from tests.harness.origin import Origin, pattern, sha256
from tests.harness.waiting import wait_until

BODY = pattern(3000, seed=1)
BODY_HASH = sha256(BODY).encode()
METHODS = ("GET", "PUT", "POST", "GET")


@dataclass
class Load:
    """`threads` clients on `address()`; use as a context manager around what is to cost nothing."""

    address: Callable[[], tuple[str, int]]
    threads: int = 6
    methods: tuple[str, ...] = METHODS
    host: str = "test.example"
    done: Counter[str] = field(default_factory=Counter)
    failed: list[tuple[str, str, str]] = field(default_factory=list)  # method, number, what was wrong
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _stop: threading.Event = field(default_factory=threading.Event)
    _running: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Self:
        for index in range(self.threads):
            thread = threading.Thread(target=self._run, args=(bool(index % 2),), daemon=True)
            self._running.append(thread)
            thread.start()
        wait_until(lambda: sum(self.done.values()) > 2 * self.threads or self.failed, "the load runs")
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def more(self, count: int = 60) -> None:
        """Wait until so many more requests were answered."""
        goal = sum(self.done.values()) + count
        wait_until(lambda: sum(self.done.values()) >= goal or self.failed, "the load goes on")

    def assert_nothing_failed(self) -> None:
        assert not self.failed, f"{len(self.failed)} failed of {sum(self.done.values())}: {self.failed[:5]}"

    def assert_delivered_once(self, origins: list[Origin]) -> None:
        """No POST was delivered twice."""
        seen = Counter(head.target for origin in origins for head in origin.requests if head.method == "POST")
        twice = [target for target, count in seen.items() if count > 1]
        assert not twice, f"delivered more than once: {twice[:5]}"

    def _run(self, keep_alive: bool) -> None:
        client: RawClient | None = None
        random_ = random.Random(id(client))
        while not self._stop.is_set():
            method = random_.choice(self.methods)
            number = str(next(self._numbers))
            try:
                client = client or RawClient(self.address(), self.host, timeout=40)
                open_ = self._ask(client, method, number)
            except (OSError, Closed, AssertionError) as error:
                self.failed.append((method, number, repr(error)))
                open_ = False
            if not (open_ and keep_alive) and client is not None:
                with contextlib.suppress(OSError):
                    client.close()
                client = None
        if client is not None:
            client.close()

    def _ask(self, client: RawClient, method: str, number: str) -> bool:
        body = None if method == "GET" else BODY
        # Some answers have begun, and are not all there, when something happens.
        slow = [("Test-Pause", "0.005")] if int(number) % 4 == 0 else []
        response = client.request(method, f"/n/{number}", body=body, fields=slow)
        if response.status != 200:
            self.failed.append((method, number, f"{response.status} {response.body[:200]!r}"))
        elif body is not None and BODY_HASH not in response.body:
            self.failed.append((method, number, "the body came short"))
        else:
            self.done[method] += 1
        return response.keeps_open
