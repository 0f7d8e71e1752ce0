"""Binding: from a configured address to listening sockets, with errors that say what is wrong."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable

from broker.config.model import Listen, authority
from broker.errors import ListenError

BACKLOG = 4096  # the kernel lowers it to net.core.somaxconn


def bind(listen: Listen, what: str) -> list[socket.socket]:
    """Listening, non-blocking sockets for every address that the host stands for. ListenError.

    `::` takes IPv4 as well. With port 0 the kernel chooses one port, the same for all addresses.
    """
    sockets: list[socket.socket] = []
    try:
        port = listen.port
        for family, address in _addresses(listen.host, port):
            sockets.append(_bind_one(family, (address, port)))
            port = sockets[-1].getsockname()[1]
    except OSError as error:
        close_all(sockets)
        raise ListenError(f"{what} cannot listen on {listen.url}: {_explain(error, listen)}") from error
    return sockets


def close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def bound_url(listen: Listen, sock: socket.socket) -> str:
    """The URL with the port that the kernel gave."""
    return f"{listen.scheme}://{authority(listen.host, sock.getsockname()[1])}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind_one(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _explain(error: OSError, listen: Listen) -> str:
    if isinstance(error, socket.gaierror):
        return f"the host {listen.host} cannot be resolved ({error.strerror})"
    reasons = {
        errno.EADDRINUSE: "another process listens there",
        errno.EACCES: "that takes a privilege (ports below 1024 need CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "this machine does not have the address",
    }
    return reasons.get(error.errno or 0) or os.strerror(error.errno or 0).lower()
