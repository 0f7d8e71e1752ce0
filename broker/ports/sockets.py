"""Binding: from a configured address to listening sockets, with errors that say what is wrong.

A socket that another process has bound for this one (systemd, or the process that this one succeeds) is
taken instead of a new one: see `Inherited`.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Iterable

from broker.config.model import Listen, authority
from broker.errors import ListenError

BACKLOG = 4096  # the kernel lowers it to net.core.somaxconn


class Inherited:
    """Listening sockets that came with the process, each to be taken once.

    Each has a name: systemd's FileDescriptorName=, which is the name of a port or `admin` where it is to mean
    something, or the `label` that another process of this node had for it. Where no name fits,
    the address does.
    """

    def __init__(self, sockets: Iterable[tuple[str, socket.socket]] = ()) -> None:
        self._left = list(sockets)

    def named(self, listen: Listen, what: str) -> list[socket.socket]:
        """What was meant for this very port, wherever it listens."""
        names = (getattr(listen, "name", "admin"), label(listen, what))
        return self._take(lambda given, _: given in names)

    def at(self, address: str, port: int) -> list[socket.socket]:
        return self._take(lambda _, sock: sock.getsockname()[:2] == (address, port))

    def _take(self, fits: Callable[[str, socket.socket], bool]) -> list[socket.socket]:
        taken = [sock for name, sock in self._left if fits(name, sock)]
        self._left = [each for each in self._left if each[1] not in taken]
        return taken

    def close_rest(self) -> list[str]:
        """Nobody wants them; returns what they were."""
        rest, self._left = self._left, []
        shown = [f"{name or 'unnamed'} at {address_of(sock)}" for name, sock in rest]
        close_all(sock for _, sock in rest)
        return shown


def label(listen: Listen, what: str) -> str:
    """What a port is and where it is to listen: the same in every process of a node."""
    return f"{what} on {listen.url}"


def address_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return authority(host, port)


def bind(
    listen: Listen, what: str, inherited: Inherited | None = None, copies: int = 1
) -> list[socket.socket]:
    """Listening, non-blocking sockets for every address that the host stands for. ListenError.

    `::` takes IPv4 as well. With port 0 the kernel chooses one port, the same for all addresses. With
    `copies` there are so many sockets for each address (SO_REUSEPORT): the kernel spreads connections over
    them. What was inherited is used as it is.
    """
    inherited = inherited or Inherited()
    sockets = inherited.named(listen, what)
    if sockets:
        return sockets
    try:
        port = listen.port
        for family, address in _addresses(listen.host, port):
            sockets += inherited.at(address, port) or _bind_copies(family, (address, port), copies)
            port = sockets[-1].getsockname()[1]
    except OSError as error:
        close_all(sockets)
        raise ListenError(f"{what} cannot listen on {listen.url}: {_explain(error, listen)}") from error
    return sockets


def share(sockets: list[socket.socket], index: int, count: int) -> list[socket.socket]:
    """Those that worker `index` of `count` accepts from: its own ones, or all where there are too few."""
    places: dict[str, list[socket.socket]] = {}
    for sock in sockets:
        places.setdefault(address_of(sock), []).append(sock)
    found: list[socket.socket] = []
    for same in places.values():
        found += same[index::count] if len(same) >= count else same
    return found


def close_all(sockets: Iterable[socket.socket]) -> None:
    for sock in sockets:
        sock.close()


def bound_url(listen: Listen, sock: socket.socket) -> str:
    """The URL with the port that the kernel gave."""
    return f"{listen.scheme}://{authority(listen.host, sock.getsockname()[1])}"


def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _bind_copies(family: socket.AddressFamily, address: tuple[str, int], copies: int) -> list[socket.socket]:
    sockets = [_bound(family, address, reuse_port=False)]
    try:
        if copies > 1:
            # The first one has shown that nobody else listens there: with SO_REUSEPORT, a second node on
            # the same port would be no error and take half of the connections.
            address = (address[0], sockets[0].getsockname()[1])
            close_all(sockets)
            sockets = []
            for _ in range(copies):
                sockets.append(_bound(family, address, reuse_port=True))
        for sock in sockets:
            sock.listen(BACKLOG)
    except BaseException:
        close_all(sockets)
        raise
    return sockets


def _bound(family: socket.AddressFamily, address: tuple[str, int], *, reuse_port: bool) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(address[0] != "::"))
        sock.bind(address)
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
