"""Clients that asked once and then only stay connected."""

from __future__ import annotations

import multiprocessing
import socket
import ssl
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Self

from bench.peers.contestant import UNVERIFIED
from bench.peers.processes import Failed

CLIENTS_PER_PROCESS = 10_000  # each needs a descriptor, and a port of the process's address
PATIENCE = 20.0
IP_BIND_ADDRESS_NO_PORT = (
    24  # the port is chosen when connecting, so that it only has to be free for that peer
)


class IdleClients:
    """Keep-alive connections that have carried one request each; `number` tells processes' shares apart."""

    def __init__(self, host: str, port: int, tls: bool = False, number: int = 0) -> None:
        self._tls = UNVERIFIED if tls else None
        self._peer = (host, port)
        self._address = f"127.0.0.{1 + number}"
        self._clients: list[socket.socket] = []
        self._request = f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self._clients:
            client.close()

    def grow(self, count: int) -> None:
        """Connects until there are so many."""
        while len(self._clients) < count:
            self._clients.append(self._client())

    def closed(self) -> int:
        """How many the other side has closed."""
        gone = 0
        for client in self._clients:
            client.setblocking(False)
            try:
                gone += not client.recv(1)
            except (BlockingIOError, ssl.SSLWantReadError):
                pass
            except OSError:
                gone += 1
        return gone

    def _client(self) -> socket.socket:
        client = socket.socket()
        client.settimeout(PATIENCE)
        try:
            client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            client.bind((self._address, 0))
            client.connect(self._peer)
            if self._tls is not None:
                client = self._tls.wrap_socket(client, server_hostname=self._peer[0])
            client.sendall(self._request)
            _read_answer(client)
        except BaseException:
            client.close()
            raise
        return client


def _read_answer(client: socket.socket) -> None:
    answer = client.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200"):
        raise Failed(f"an idle client was answered by {answer[:60]!r}")
    head, _, body = answer.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            left = int(line.partition(b":")[2]) - len(body)
            while left > 0:
                left -= len(client.recv(left))
            return
    raise Failed("the answer to an idle client does not say how long it is")


class IdleCrowd:
    """More of them than one process may have descriptors for."""

    def __init__(self, host: str, port: int, tls: bool, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._parts: list[tuple[multiprocessing.process.BaseProcess, Connection]] = []
        for number in range(-(-count // CLIENTS_PER_PROCESS)):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, host, port, tls, number), daemon=True)
            process.start()
            theirs.close()
            self._parts.append((process, ours))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process, connection in self._parts:
            connection.close()
            process.join(PATIENCE)

    def grow(self, count: int) -> None:
        """Connects until there are so many."""
        for _, connection in self._parts:
            share = min(count, CLIENTS_PER_PROCESS)
            count -= share
            _ask(connection, share)

    def closed(self) -> int:
        """How many the other side has closed."""
        return sum(_ask(connection, None) for _, connection in self._parts)


def _ask(connection: Connection, share: int | None) -> int:
    connection.send(share)
    try:
        answer = connection.recv()
    except EOFError:
        raise Failed("a process of idle clients has ended") from None
    if isinstance(answer, str):
        raise Failed(answer)
    return int(answer)


def _serve(connection: Connection, host: str, port: int, tls: bool, number: int) -> None:
    """One process: grows to the number that arrives, and says for None how many have been closed."""
    with IdleClients(host, port, tls, number) as clients:
        while True:
            try:
                share = connection.recv()
            except EOFError:
                return
            try:
                if share is not None:
                    clients.grow(share)
                connection.send(0 if share is not None else clients.closed())
            except (Failed, OSError) as problem:
                connection.send(str(problem))
