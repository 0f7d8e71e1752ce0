"""Registration ports of a node with several workers: connections are accepted here and passed on.

An agent has few tunnels. So that they do not end at the same worker by chance, each connection goes to the
worker that has the fewest of that agent's host; the worker does all the rest, TLS included.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Iterable

from broker.ports.registration import ACCEPT_BATCH, OUT_OF_RESOURCES, PAUSE_S

log = logging.getLogger("broker.node")

UNDER_WAY_S = 2.0  # so long a connection counts before it has logged in

PassOn = Callable[[int, str, socket.socket, tuple[str, int]], None]


class Reception:
    """`workers` are those that take connections now; `tunnels(worker, host)` counts what is registered."""

    def __init__(
        self,
        workers: Callable[[], list[int]],
        tunnels: Callable[[int, str | None], int],
        pass_on: PassOn,
    ) -> None:
        self._workers = workers
        self._tunnels = tunnels
        self._pass_on = pass_on
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[socket.socket, str] = {}
        self._under_way: Counter[tuple[int, str]] = Counter()
        self._held = False

    def serve(self, ports: Iterable[tuple[str, list[socket.socket]]]) -> None:
        """Accept from these from now on, and from no others. The sockets stay the caller's."""
        self._watch(False)
        self._sockets = {sock: name for name, sockets in ports for sock in sockets}
        self._watch(not self._held)

    def hold(self) -> None:
        self._held = True
        self._watch(False)

    def resume(self) -> None:
        self._held = False
        self._watch(True)

    def _watch(self, on: bool) -> None:
        for sock in self._sockets:
            if on:
                self._loop.add_reader(sock, self._accept_some, sock)
            else:
                self._loop.remove_reader(sock)

    def _accept_some(self, listener: socket.socket) -> None:
        if not self._workers():
            self._pause()
            return
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    log.warning("the registration ports cannot accept: %s", error.strerror)
                    self._pause()
                    return
                continue
            with sock:
                self._pass(listener, sock, address)

    def _pause(self) -> None:
        self._watch(False)
        self._loop.call_later(PAUSE_S, lambda: self._watch(not self._held))

    def _pass(self, listener: socket.socket, sock: socket.socket, address: tuple[str, int]) -> None:
        host = address[0]
        worker = min(self._workers(), key=lambda index: self._load(index, host))
        self._under_way[worker, host] += 1
        self._loop.call_later(UNDER_WAY_S, self._forget, worker, host)
        self._pass_on(worker, self._sockets[listener], sock, (host, address[1]))

    def _load(self, worker: int, host: str) -> tuple[int, int, int]:
        return (
            self._tunnels(worker, host) + self._under_way[worker, host],
            self._tunnels(worker, None),
            worker,
        )

    def arrived(self, worker: int, host: str) -> None:
        """It has logged in: the ledger has it now."""
        self._forget(worker, host)

    def _forget(self, worker: int, host: str) -> None:
        self._under_way[worker, host] -= 1
        if self._under_way[worker, host] <= 0:
            del self._under_way[worker, host]
