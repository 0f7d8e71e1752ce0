"""Dialling: one `Dialler` keeps one tunnel to one DMZ node up.

    resolve, connect (all addresses, none waited for long), handshake -> the core has the socket
    lost or refused -> wait (backoff.py) -> again

Failures are told once per reason, not once per try.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import aiohappyeyeballs
from OpenSSL import SSL

from _fastpath.tunnel import Tunnel
from broker.config.model import Proxy
from broker.identity.proof import NONCE, Binding, exporter_of
from broker.tls.client import ClientContext
from broker.tls.stream import TlsFailed, TlsStream
from broker.tunnel.addresses import AddressInfo, Target, resolve, target_of
from broker.tunnel.backoff import Backoff
from broker.tunnel.handshake import (
    Acceptance,
    Refusal,
    Registration,
    question_bytes,
    read_answer,
    registration_bytes,
)
from broker.tunnel.links import tell
from broker.tunnel.messages import announce_bytes, printable
from broker.tunnel.proxy import ProxyRefused, connect_bytes
from broker.tunnel.proxy import read_answer as proxy_answer

log = logging.getLogger("broker.tunnel")

NEXT_ADDRESS_S = 0.25  # a connect that takes longer runs on beside the next address's
HANDSHAKE_S = 10.0
READ_SIZE = 65536


class DialError(Exception):
    """A try to register failed; the text is one clause for people."""

    def __init__(self, reason: str, *, refused: bool = False, retry_after_s: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.refused = refused  # by the peer's answer, rather than by the network
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Link:
    """A registered connection: frames follow, `leftover` are the first of them."""

    sock: socket.socket
    acceptance: Acceptance
    leftover: bytes
    announced: bool  # the services fitted into the registration
    peer: str
    target: Target
    tls: SSL.Connection | None


class Owner(Protocol):
    """What a Dialler needs of the Uplink that it belongs to."""

    @property
    def url(self) -> str: ...
    @property
    def address(self) -> tuple[str, int]: ...
    async def resolve(self, target: Target | None) -> list[AddressInfo]: ...
    @property
    def authority(self) -> str: ...
    @property
    def proxy(self) -> Proxy | None: ...
    @property
    def connect_timeout_s(self) -> float: ...
    @property
    def tls(self) -> ClientContext | None: ...
    @property
    def bearer(self) -> bool: ...
    def registration(self, index: int) -> Registration: ...
    def make_tunnel(self, dialler: Dialler, link: Link) -> Tunnel: ...
    def is_news(self, reason: str) -> bool: ...
    def on_up(self, dialler: Dialler, link: Link) -> None: ...


class Dialler:
    """`target`: the one address that it is for, where the name has several."""

    def __init__(
        self, owner: Owner, index: int, target: Target | None = None, backoff: Backoff | None = None
    ) -> None:
        self.index = index
        self.target = target
        self.tunnel: Tunnel | None = None
        self.acceptance: Acceptance | None = None
        self.peer = ""  # the address that answered
        self.since = time.time()  # of the present state, wall clock
        self.reason = ""  # why the last try failed, or the tunnel was lost
        self._owner = owner
        self._backoff = backoff or Backoff()
        self._up_at = 0.0
        self._at_once = False
        self._over: asyncio.Future[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def up(self) -> bool:
        return self.tunnel is not None

    @property
    def state(self) -> str:
        if self.tunnel is not None:
            return "up"
        return "waiting" if self.reason else "connecting"

    @property
    def failures(self) -> int:
        return self._backoff.failures

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run(), name=f"dial {self._owner.url}")

    async def stop(self) -> None:
        """Dial no more. A tunnel that is up stays: drain it, or close it."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def on_goaway(self, tunnel: Tunnel) -> None:
        """The DMZ node opens no new streams in it: dial another, and let this one end by itself."""
        if tunnel is self.tunnel:
            self._fall("the DMZ node is going away")

    def on_redial(self, tunnel: Tunnel) -> None:
        """Another process takes over there: dial it at once. This tunnel is somebody else's to end."""
        if tunnel is self.tunnel:
            self._at_once = True
            self._fall("the DMZ node hands over to another process")

    def on_close(self, tunnel: Tunnel, code: int, reason: str) -> None:
        if tunnel is self.tunnel:
            self._fall(printable(reason) or f"closed with code {code}")

    def _fall(self, reason: str) -> None:
        self.tunnel = None
        self.since = time.time()
        self.reason = reason
        if self._over is not None and not self._over.done():
            self._over.set_result(None)

    async def _run(self) -> None:
        while True:
            try:
                self._rise(await open_link(self._owner, self.index, self.target))
            except DialError as error:
                delay = self._backoff.after_failure(refused=error.refused, suggested_s=error.retry_after_s)
                self._report_failure(error, delay)
            else:
                delay = await self._until_fallen()
            await asyncio.sleep(delay)

    async def _until_fallen(self) -> float:
        """Seconds to wait before the next try."""
        assert self._over is not None and self.acceptance is not None
        await self._over
        if self._at_once:
            self._at_once = False
            log.info("tunnel %d to %s is dialled anew: %s", self.index, self._owner.url, self.reason)
            return 0.0
        lived = asyncio.get_running_loop().time() - self._up_at
        log.warning(
            "tunnel %d to %s is over after %.0f s: %s", self.index, self._owner.url, lived, self.reason
        )
        retry_ms = self.acceptance.retry_ms
        return self._backoff.after_loss(lived, spread_s=None if retry_ms is None else retry_ms / 1000)

    def _rise(self, link: Link) -> None:
        loop = asyncio.get_running_loop()
        self._over = loop.create_future()
        registration = self._owner.registration(self.index)
        try:
            tunnel = self._owner.make_tunnel(self, link)
        except OSError as error:
            link.sock.close()
            raise DialError(explain(error)) from error
        self.tunnel = tunnel
        self.acceptance = link.acceptance
        self.peer = link.peer
        self.since = time.time()
        self._up_at = loop.time()
        self._backoff.succeeded()
        self.reason = ""
        if not link.announced:
            tell(tunnel, announce_bytes(registration.services))
        log.info(
            "tunnel %d to %s is up (%s at %s)", self.index, self._owner.url, link.acceptance.node, link.peer
        )
        self._owner.on_up(self, link)

    def _report_failure(self, error: DialError, delay: float) -> None:
        self.since = time.time()
        self.reason = f"{self.target.host}: {error.reason}" if self.target is not None else error.reason
        level = logging.WARNING if self._owner.is_news(self.reason) else logging.DEBUG
        log.log(level, "no tunnel to %s: %s; trying on, next in %.1f s", self._owner.url, self.reason, delay)


async def open_link(owner: Owner, index: int, target: Target | None = None) -> Link:
    """Connect and register. DialError for everything that can go wrong on the way."""
    log.debug("dialling %s for tunnel %d", owner.url, index)
    sock = await connect(owner, target)
    proxy = owner.proxy
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            if proxy is not None:
                await pass_proxy(sock, proxy, owner.authority)
                proxy = None
            return await _register(sock, owner, index)
    except Refusal as error:
        sock.close()
        raise refused_by(error) from None
    except TlsFailed as error:
        sock.close()
        raise DialError(f"TLS failed: {error}") from None
    except ProxyRefused as error:
        sock.close()
        raise DialError(str(error), refused=error.refused) from None
    except TimeoutError:
        sock.close()
        who = proxy.name if proxy is not None else "it"
        raise DialError(
            f"{who} accepted the connection, but did not answer within {HANDSHAKE_S:.0f} s"
        ) from None
    except OSError as error:
        sock.close()
        raise DialError(explain(error)) from None
    except BaseException:
        sock.close()
        raise


async def connect(owner: Owner, target: Target | None) -> socket.socket:
    loop = asyncio.get_running_loop()
    proxy = owner.proxy
    host, port = (proxy.host, proxy.port) if proxy is not None else owner.address
    to = f"{proxy.name}: " if proxy is not None else ""
    try:
        async with asyncio.timeout(owner.connect_timeout_s):
            addresses = await (owner.resolve(target) if proxy is None else resolve(host, port))
            return await aiohappyeyeballs.start_connection(
                addresses, happy_eyeballs_delay=NEXT_ADDRESS_S, loop=loop
            )
    except TimeoutError:
        raise DialError(f"{to}no connection within {owner.connect_timeout_s:g} s") from None
    except socket.gaierror as error:
        raise DialError(f"{to}the name {host} cannot be resolved ({error.strerror})") from None
    except OSError as error:
        raise DialError(f"{to}{explain(error)}") from None


async def pass_proxy(sock: socket.socket, proxy: Proxy, authority: str) -> None:
    """Through the proxy. Raises ProxyRefused."""
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, connect_bytes(proxy, authority))
    data = b""
    while True:
        chunk = await loop.sock_recv(sock, READ_SIZE)
        data += chunk
        if proxy_answer(data, proxy, authority, ended=not chunk):
            return


async def _register(sock: socket.socket, owner: Owner, index: int) -> Link:
    loop = asyncio.get_running_loop()
    stream = await secure(sock, owner.tls) if owner.tls is not None else None
    registration = owner.registration(index)
    proves = registration.token is not None and not owner.bearer
    binding = await bind_token(sock, stream, owner) if proves else None
    request, announced = registration_bytes(registration, owner.authority, binding)
    await loop.sock_sendall(sock, stream.write(request) if stream else request)
    data = b""
    while True:
        chunk = await receive(sock, stream)
        data += chunk
        answer = read_answer(data, ended=not chunk)
        if answer is not None:
            acceptance, size = answer
            connection = stream.connection if stream else None
            peer = address_text(sock.getpeername())
            if owner.proxy is not None:
                peer = f"{owner.authority} through {owner.proxy.name}"
            return Link(sock, acceptance, data[size:], announced, peer, target_of(sock), connection)


async def bind_token(sock: socket.socket, stream: TlsStream | None, owner: Owner) -> Binding:
    """What the proof of the token is bound to. The token itself is not sent, whatever the peer answers."""
    if stream is not None:
        binding = exporter_of(stream.connection)
        if binding is None:
            raise DialError(
                "it speaks TLS 1.2, to which a token can't be bound: TLS 1.3 is needed", refused=True
            )
        return binding
    await asyncio.get_running_loop().sock_sendall(sock, question_bytes(owner.authority))
    data = b""
    while True:
        chunk = await receive(sock, None)
        data += chunk
        try:
            if read_answer(data, ended=not chunk) is not None:
                raise DialError("it accepts agents without a registration", refused=True)
        except Refusal as refusal:
            if refusal.nonce is None:
                raise
            return Binding(NONCE, refusal.nonce)


async def receive(sock: socket.socket, stream: TlsStream | None) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        chunk = await loop.sock_recv(sock, READ_SIZE)
        if stream is None or not chunk:
            return chunk
        stream.feed(chunk)
        plain = stream.read()
        if plain is not None:
            return plain


async def secure(sock: socket.socket, context: ClientContext) -> TlsStream:
    """The handshake. Raises TlsFailed; the peer is told why."""
    loop = asyncio.get_running_loop()
    stream = TlsStream(context())
    while True:
        try:
            done = stream.handshake()
        finally:
            await loop.sock_sendall(sock, stream.pending())
        if done:
            break
        chunk = await loop.sock_recv(sock, READ_SIZE)
        if not chunk:
            raise TlsFailed("the other side ended the connection during the handshake; does it speak TLS?")
        stream.feed(chunk)
    try:
        context.verify(stream.connection)
    except ValueError as error:
        raise TlsFailed(str(error)) from None
    return stream


def address_text(address: tuple[str, int] | tuple[str, int, int, int] | str) -> str:
    if isinstance(address, str):
        return address or "unix"
    host, port = address[0], address[1]
    shown = f"[{host}]" if ":" in host else host
    return f"{shown}:{port}" if port else shown


def host_of(address: str) -> str:
    """The host in what `address_text` has made."""
    if address.startswith("["):
        return address[1:].partition("]")[0]
    return address.partition(":")[0]


def refused_by(error: Refusal) -> DialError:
    if error.status == 0:
        return DialError(error.sentence.rstrip("."), refused=True)
    reason = f"refused with {error.status} {error.code}: {error.sentence.rstrip('.')}"
    return DialError(reason, refused=True, retry_after_s=error.retry_after)


def explain(error: OSError) -> str:
    """Without addresses and numbers that change with every try."""
    if error.errno:
        return os.strerror(error.errno).lower()
    return printable(str(error)) or type(error).__name__
