"""A proxy between two nodes that does to a link what networks do to it.

One thread moves all bytes. Each direction of every connection has the same `Weather` (to the target: `up`,
back: `down`), which a test may change at any time:

    hang       nothing moves; the connections stay, as after a pulled cable
    rate       bytes per second
    delay      seconds that every byte is under way
    corrupt    one bit of the next bytes is turned over, once

`cut` ends connections by RST, `half_close` ends one direction by FIN, `refuse` closes whoever connects.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Self

PIECE = 65536
HELD = 262144  # bytes under way in one direction, at rest; with a delay as many as fit into it
TURN_S = 0.01


@dataclass
class Weather:
    """What one direction of the link is like; shared by all connections."""

    hang: bool = False
    rate: float | None = None
    delay: float = 0.0
    corrupt: bool = False
    half_close: bool = False


@dataclass(eq=False)
class Pipe:
    """One direction of one connection."""

    source: socket.socket
    sink: socket.socket
    weather: Weather
    queue: deque[tuple[float, bytes]] = field(default_factory=deque)
    held: int = 0
    ended: bool = False  # the source has ended
    closed: bool = False  # and the sink knows
    moved: int = 0
    credit: float = 0.0
    at: float = 0.0

    def read(self, now: float) -> None:
        limit = HELD if not self.weather.delay else 64 << 20
        while not self.ended and self.held < limit:
            try:
                data = self.source.recv(PIECE)
            except BlockingIOError:
                return
            if not data:
                self.ended = True
                return
            if self.weather.corrupt:
                self.weather.corrupt = False
                place = len(data) // 2
                data = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
            self.queue.append((now + self.weather.delay, data))
            self.held += len(data)

    def write(self, now: float) -> None:
        rate = self.weather.rate
        self.credit = (
            0.0 if rate is None else min(self.credit + rate * (now - self.at), max(rate * 0.05, 1.0))
        )
        self.at = now
        while self.queue and self.queue[0][0] <= now:
            due, data = self.queue[0]
            part = data if rate is None else data[: int(self.credit)]
            if not part:
                return
            try:
                sent = self.sink.send(part)
            except BlockingIOError:
                return
            self.credit -= sent if rate is not None else 0
            self.moved += sent
            self.held -= sent
            if sent == len(data):
                self.queue.popleft()
            else:
                self.queue[0] = (due, data[sent:])
        if ((self.ended and not self.queue) or self.weather.half_close) and not self.closed:
            self.closed = True
            self.sink.shutdown(socket.SHUT_WR)


class FaultProxy:
    """Listens on loopback, passes everything to `target`. Use as a context manager."""

    def __init__(self, target: tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.target = target
        self.up = Weather()
        self.down = Weather()
        self.refuse = False
        self.accepted = 0
        self._links: list[tuple[Pipe, Pipe]] = []
        self._lock = threading.Lock()
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((host, port))
        self._listener.listen(1024)
        self._listener.setblocking(False)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    @property
    def links(self) -> int:
        with self._lock:
            return len(self._links)

    @property
    def moved(self) -> tuple[int, int]:
        """Bytes that open connections have carried up and down."""
        with self._lock:
            return sum(up.moved for up, _ in self._links), sum(down.moved for _, down in self._links)

    # --- faults ---------------------------------------------------------------------------------

    def hang(self) -> None:
        self.up.hang = self.down.hang = True

    def throttle(self, rate: float | None) -> None:
        self.up.rate = self.down.rate = rate

    def cut(self, count: int | None = None) -> int:
        """End that many connections by RST, all without a number; returns how many."""
        with self._lock:
            chosen = self._links[:count]
            for link in chosen:
                self._end(link)
        return len(chosen)

    def heal(self) -> None:
        """Fair weather."""
        for weather in (self.up, self.down):
            weather.hang = weather.corrupt = weather.half_close = False
            weather.rate, weather.delay = None, 0.0
        self.refuse = False

    # --- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        selector = selectors.DefaultSelector()
        selector.register(self._listener, selectors.EVENT_READ)
        while not self._ending.is_set():
            selector.select(0 if self._move() else TURN_S / 4)
            self._accept()
        selector.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            far = socket.socket()
            try:
                if self.refuse:
                    raise ConnectionRefusedError
                far.connect(self.target)
            except OSError:
                near.close()
                far.close()
                continue
            for sock in (near, far):
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            now = time.monotonic()
            link = Pipe(near, far, self.up, at=now), Pipe(far, near, self.down, at=now)
            with self._lock:
                self._links.append(link)

    def _move(self) -> bool:
        """One turn for all; whether something moved."""
        now = time.monotonic()
        before = after = 0
        with self._lock:
            for link in list(self._links):
                for pipe in link:
                    before += pipe.moved
                    if not pipe.weather.hang:
                        self._turn(link, pipe, now)
                    after += pipe.moved
                if all(pipe.closed for pipe in link):
                    self._end(link, hard=False)
        return after > before

    def _turn(self, link: tuple[Pipe, Pipe], pipe: Pipe, now: float) -> None:
        try:
            pipe.read(now)
            pipe.write(now)
        except OSError:
            self._end(link)

    def _end(self, link: tuple[Pipe, Pipe], hard: bool = True) -> None:
        if link not in self._links:
            return
        self._links.remove(link)
        for sock in (link[0].source, link[0].sink):
            if hard:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()

    def close(self) -> None:
        self._ending.set()
        self._thread.join()
        self.cut()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
