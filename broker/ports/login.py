"""A connection at a registration port that has not logged in yet: what it has shown, and whose it is."""

from __future__ import annotations

import asyncio
import ipaddress
import socket

from _fastpath.proxy import read_proxy
from broker.identity.certificates import chain_of
from broker.identity.login import Evidence
from broker.identity.proof import Binding
from broker.ports.penalties import network_of
from broker.tls.stream import TlsStream
from broker.tunnel.dialler import address_text
from broker.tunnel.handshake import Registration


class Login:
    """One connection that has not logged in yet, or is being told why it may not."""

    __slots__ = (
        *("address", "binding", "by_proxy", "claiming", "data", "gone", "greeting", "host", "network"),
        *("refused", "sock", "spoke", "timer", "tls"),
    )

    def __init__(self, sock: socket.socket, address: tuple[str, int]) -> None:
        self.sock = sock
        self.place(*address[:2])
        self.data = b""
        self.spoke = False  # has sent something
        self.refused = False
        self.claiming = False  # other workers are asked
        self.gone = False  # dropped, or handed over
        self.greeting = False  # a PROXY header is to come
        self.by_proxy = False  # `host` is a trusted proxy's: for whom it speaks is not known (yet)
        self.timer: asyncio.TimerHandle | None = None
        self.tls: TlsStream | None = None
        self.binding: Binding | None = None  # what the proof of a token is bound to

    def place(self, host: str, port: int) -> None:
        """It is this peer's. Port 0: nobody knows which."""
        self.host = host
        self.network = network_of(host)
        self.address = address_text((host, port))

    def read_greeting(self, chunk: bytes) -> tuple[bytes, tuple[str, int] | None] | None:
        """What follows the PROXY header, and whom it names; None: it is not whole. ValueError: it is none."""
        self.data += chunk
        header = read_proxy(self.data)
        if header is None:
            return None
        size, source, port, _, _ = header
        rest, self.data = self.data[size:], b""
        self.greeting = False
        return rest, (address_of(source), port) if source is not None else None

    def evidence(self, registration: Registration) -> Evidence:
        """All that this connection and its registration prove, or claim to."""
        chain = chain_of(self.tls.connection) if self.tls is not None else ()
        return Evidence(registration.token, registration.proof, self.binding, chain)

    def send(self, data: bytes) -> bool:
        """Whether the kernel took all of it: a fresh connection takes these few bytes, or it is broken."""
        if self.tls is not None:
            data = self.tls.write(data)
        try:
            return self.sock.send(data) == len(data)
        except OSError:
            return False


def address_of(packed: bytes) -> str:
    """Of 16 bytes; one that is mapped is an IPv4 address."""
    address = ipaddress.IPv6Address(packed)
    return str(address.ipv4_mapped or address)
