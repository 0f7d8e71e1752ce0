"""Keys of session tickets, which all workers of a node have in common.

OpenSSL makes them together with a context, and pyOpenSSL can't set them. Each worker has contexts of its
own, and a client comes to any of them. So contexts are made before the workers are forked (`stock`), and
each worker completes its copy of the same one, which then has the same keys in all of them. Who knows all
workers says which (`assign`). Without that, or where none is left, a context is fresh, and its keys are
this process's own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from OpenSSL import SSL

from broker.tls.settings import ServerTls

STOCK = 128  # contexts, of 15 KiB: for so many changes of files or keys, of all ports together

_stock: list[SSL.Context | None] = []
_assigned: dict[str, int] = {}


def stock() -> None:
    """To be called once, in the process that all workers are forked from."""
    _stock.extend(SSL.Context(SSL.TLS_SERVER_METHOD) for _ in range(STOCK))


def assign(numbers: Mapping[str, int]) -> None:
    """Which of the stock each port (by what it is called in the log) takes; what it has taken it keeps."""
    left = {port: number for port, number in numbers.items() if 0 <= number < len(_stock)}
    _assigned.update({port: number for port, number in left.items() if _stock[number] is not None})


def is_assigned(port: str) -> bool:
    """Whether a context waits for it."""
    return port in _assigned


def take(port: str) -> SSL.Context:
    """A context that nothing was set in yet."""
    number = _assigned.pop(port, None)
    context = _stock[number] if number is not None else None
    if number is not None:
        _stock[number] = None
    return context or SSL.Context(SSL.TLS_SERVER_METHOD)


def digest_of(settings: ServerTls) -> bytes:
    """Of all files that the settings name, as they are now; what can't be read counts as empty."""
    paths = [path for each in settings.certificates for path in (each.cert, each.key, each.ocsp)]
    whole = hashlib.sha256()
    for path in [*paths, settings.client_ca, *settings.client_crl]:
        try:
            data = path.read_bytes() if path is not None else b""
        except OSError:
            data = b""
        whole.update(hashlib.sha256(data).digest())
    return whole.digest()


class Numbers:
    """Which context of the stock each port has: another one whenever its settings or files change."""

    def __init__(self) -> None:
        self.current: dict[str, int] = {}
        self._seen: dict[str, tuple[ServerTls, bytes]] = {}
        self._next = 0

    def look(self, ports: Mapping[str, ServerTls]) -> None:
        """These are the ports, as they are about to be."""
        for port, settings in ports.items():
            seen = settings, digest_of(settings)
            if self._seen.get(port) != seen:
                self._seen[port] = seen
                self._renew(port)

    def renew(self) -> None:
        """Other keys for all of them."""
        for port in self._seen:
            self._renew(port)

    @property
    def used_up(self) -> bool:
        return self._next > STOCK

    def _renew(self, port: str) -> None:
        self.current[port] = self._next
        self._next += 1
