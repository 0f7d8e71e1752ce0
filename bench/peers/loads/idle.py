"""Clients that asked once and then only stay connected."""

from __future__ import annotations

import socket
import ssl
from types import TracebackType
from typing import Self

from bench.peers.processes import Failed

PORTS_PER_ADDRESS = 10_000
PATIENCE = 20.0
IP_BIND_ADDRESS_NO_PORT = (
    24  # the port is chosen when connecting, so that it only has to be free for that peer
)


class IdleClients:
    """Keep-alive connections that have carried one request each."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._peer = (host, port)
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
            self._clients.append(self._client(len(self._clients)))

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

    def _client(self, number: int) -> socket.socket:
        client = socket.socket()
        client.settimeout(PATIENCE)
        try:
            client.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            client.bind((f"127.0.0.{1 + number // PORTS_PER_ADDRESS}", 0))
            client.connect(self._peer)
            if self._tls is not None:
                client = self._tls.wrap_socket(client)
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
