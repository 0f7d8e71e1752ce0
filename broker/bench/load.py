"""The load generator: GET requests on keep-alive connections, at a rate or as fast as they are answered."""

from __future__ import annotations

import asyncio
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from broker.bench.clock import Ticks
from broker.bench.response import BadResponse, ResponseReader

SHORTEST_TICK = 0.0002  # seconds; at a higher rate several requests become due at once
CONNECTS_AT_ONCE = 128
PORTS_PER_ADDRESS = 10_000  # beyond so many connections the next loopback address dials
GRACE = 5.0  # seconds that requests under way get at the end before they count as errors


@dataclass(frozen=True)
class Plan:
    """`rate` requests a second, or as many as `connections` carry, for so many `seconds` or `requests`."""

    host: str
    port: int
    target: str = "/"
    connections: int = 1
    seconds: float = 3.0
    rate: float | None = None
    requests: int | None = None
    warmup: float = 0.0  # seconds of the same before what counts begins
    grace: float = GRACE
    authority: str | None = None  # the Host header where it differs from the address

    def head(self) -> bytes:
        host = f"[{self.host}]" if ":" in self.host else self.host
        authority = self.authority or f"{host}:{self.port}"
        return f"GET {self.target} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


@dataclass
class Outcome:
    """What came of it. Latencies are in seconds and, at a fixed rate, count from the intended start."""

    seconds: float = 0.0
    latencies: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)
    completed: int = 0  # requests answered in that time; those under way at its end are only in the latencies
    metered: float = 0.0  # what the run's meter counted while the requests were sent that count

    @property
    def requests(self) -> int:
        return len(self.latencies)

    @property
    def rate(self) -> float:
        return self.completed / self.seconds if self.seconds else 0.0

    def percentiles(self, *shares: float) -> list[float]:
        """The latencies, in milliseconds, that these shares (0 to 100) of the requests did not exceed."""
        ordered = sorted(self.latencies)
        if not ordered:
            return [0.0 for _ in shares]
        last = len(ordered) - 1
        return [ordered[min(last, int(len(ordered) * share / 100))] * 1000 for share in shares]


class Connection(asyncio.Protocol):
    """One client connection with at most one request under way."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._reader = ResponseReader()
        self._transport: asyncio.Transport | None = None
        self.started: float | None = None  # the intended start of the request under way

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def send(self, head: bytes, started: float) -> None:
        assert self._transport is not None
        self.started = started
        self._transport.write(head)

    def data_received(self, data: bytes) -> None:
        try:
            status = self._reader.feed(data)
        except BadResponse as problem:
            self._fail(str(problem))
            return
        if not status:
            return
        if self.started is None:
            self._fail("a response that nobody asked for")
            return
        started, self.started = self.started, None
        if not self._reader.keep_alive:
            self.close()
        self._load.answered(self, status, started)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._load.lost(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def _fail(self, why: str) -> None:
        self._load.outcome.errors[why] += 1
        self.started = None
        self.close()


class Load:
    """One run of a plan. `meter` is read when what counts begins and when it ends: CPU seconds, say."""

    def __init__(
        self,
        plan: Plan,
        progress: Callable[[int], None] | None = None,
        meter: Callable[[], float] | None = None,
    ) -> None:
        self.plan = plan
        self.outcome = Outcome()
        self._loop = asyncio.get_running_loop()
        self._head = plan.head()
        self._connections: set[Connection] = set()
        self._idle: deque[Connection] = deque()
        self._due: deque[float] = deque()  # intended starts that wait for an idle connection
        self._sent = 0
        self._underway = 0
        self._deadline = 0.0
        self._begun = 0.0  # when what counts began
        self._metered_before = 0.0
        self._sending = True  # there is more to send than what is due and under way
        self._finished = asyncio.Event()
        self._reconnects: set[asyncio.Task[None]] = set()
        self._progress = progress
        self._meter = meter or (lambda: 0.0)

    async def run(self) -> Outcome:
        """Connects, sends for as long as planned, waits for what is under way, and closes."""
        try:
            await self._connect_all()
            now = time.monotonic()
            self._deadline = now + self.plan.warmup + self.plan.seconds
            self._begin()
            if self.plan.warmup:
                self._loop.call_later(self.plan.warmup, self._begin)
            if self.plan.rate is None:
                self._send_on_all()
            else:
                await self._send_at_rate(now, self.plan.rate)
                self._sending = False
                self._end()
            await self._wait_for_answers()
            self._end()
        finally:
            self._close()
        return self.outcome

    def _begin(self) -> None:
        """What comes from now on counts."""
        self.outcome.latencies = array("d")
        self._begun = time.monotonic()
        self._metered_before = self._meter()

    def _end(self) -> None:
        if not self.outcome.seconds:
            self.outcome.metered = self._meter() - self._metered_before
            self.outcome.seconds = time.monotonic() - self._begun
            self.outcome.completed = self.outcome.requests

    def answered(self, connection: Connection, status: int, started: float) -> None:
        """A response is complete."""
        self._underway -= 1
        if 200 <= status < 300:
            self.outcome.latencies.append(time.monotonic() - started)
        else:
            self.outcome.errors[f"status {status}"] += 1
        if self._progress is not None:
            self._progress(len(self.outcome.latencies))
        if connection.open:
            self._ready(connection)
        self._check_finished()

    def lost(self, connection: Connection) -> None:
        """A connection has ended; another one takes its place while there is something to send."""
        self._connections.discard(connection)
        if connection.started is not None:
            self._underway -= 1
            self.outcome.errors["connection lost"] += 1
        if self._due or self._may_send():
            task = self._loop.create_task(self._reconnect())
            self._reconnects.add(task)
            task.add_done_callback(self._reconnects.discard)
        self._check_finished()

    async def _connect_all(self) -> None:
        turns = asyncio.Semaphore(CONNECTS_AT_ONCE)

        async def one(number: int) -> None:
            async with turns:
                await self._connect(number)

        async with asyncio.TaskGroup() as group:
            for number in range(self.plan.connections):
                group.create_task(one(number))

    async def _connect(self, number: int = 0) -> None:
        local = None
        if self.plan.host == "127.0.0.1" and number >= PORTS_PER_ADDRESS:
            local = (f"127.0.0.{2 + number // PORTS_PER_ADDRESS}", 0)
        _, connection = await self._loop.create_connection(
            lambda: Connection(self), self.plan.host, self.plan.port, local_addr=local
        )
        self._connections.add(connection)
        self._idle.append(connection)

    async def _reconnect(self) -> None:
        try:
            await self._connect()
        except OSError as problem:
            self.outcome.errors[f"connect: {problem.strerror or problem}"] += 1
            return
        self._ready(self._idle.pop())

    def _ready(self, connection: Connection) -> None:
        """An open connection has nothing under way: it takes what is due, or waits."""
        if self._due:
            self._send(connection, self._due.popleft())
        elif self.plan.rate is None and self._may_send():
            self._send(connection, time.monotonic())
        else:
            self._idle.append(connection)

    def _send_on_all(self) -> None:
        idle, self._idle = self._idle, deque()
        for connection in idle:
            if connection.open:
                self._ready(connection)

    async def _send_at_rate(self, begin: float, rate: float) -> None:
        planned = int(rate * (self.plan.warmup + self.plan.seconds))
        if self.plan.requests is not None:
            planned = min(planned, self.plan.requests)
        made_due = 0
        with Ticks(max(1 / rate, SHORTEST_TICK)) as ticks:
            while made_due < planned:
                due = min(planned, int((time.monotonic() - begin) * rate) + 1)
                self._due.extend(begin + number / rate for number in range(made_due, due))
                made_due = due
                self._send_due()
                await ticks.next()

    def _send_due(self) -> None:
        while self._due and self._idle:
            connection = self._idle.popleft()
            if connection.open:
                self._send(connection, self._due.popleft())

    def _send(self, connection: Connection, started: float) -> None:
        self._sent += 1
        self._underway += 1
        connection.send(self._head, started)

    def _may_send(self) -> bool:
        if self.plan.requests is not None and self._sent >= self.plan.requests:
            return False
        return self._sending and (self.plan.rate is not None or time.monotonic() < self._deadline)

    async def _wait_for_answers(self) -> None:
        left = max(0.0, self._deadline - time.monotonic())
        try:
            async with asyncio.timeout(left + self.plan.grace):
                self._check_finished()
                await self._finished.wait()
        except TimeoutError:
            unanswered = self._underway + len(self._due)
            if unanswered:
                self.outcome.errors["no answer in time"] += unanswered

    def _check_finished(self) -> None:
        if not self._underway and not self._due and not self._may_send():
            self._finished.set()

    def _close(self) -> None:
        self._sending = False
        self._due.clear()
        for connection in list(self._connections):
            connection.started = None
            connection.close()
        for task in self._reconnects:
            task.cancel()


async def run(
    plan: Plan, progress: Callable[[int], None] | None = None, meter: Callable[[], float] | None = None
) -> Outcome:
    """Runs a plan on the running event loop."""
    return await Load(plan, progress, meter).run()
