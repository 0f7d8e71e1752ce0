"""Registration ports: accept agents, log them in, hand their connections to the core.

Before a login is through, its connection belongs to a stranger: a few hundred bytes of memory, a deadline,
a size limit, and a bounded number of them (strangers.py). Where logins fail too often, connections are not
taken for a while (penalties.py).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from _fastpath.forwarded import client_of
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.tunnel import Tunnel
from broker.config import model
from broker.identity.proof import NONCE, NONCE_SIZE, Binding, exporter_of
from broker.observe.limited import Limiter
from broker.ports.certificates import revocations, tls_of
from broker.ports.login import Login
from broker.ports.penalties import Kind, Penalties
from broker.ports.sockets import bound_url
from broker.ports.strangers import Strangers
from broker.services.compiled import admission_of, networks_of
from broker.tls.stream import TlsFailed, TlsStream
from broker.tunnel.dialler import host_of
from broker.tunnel.handshake import (
    HEAD_LIMIT,
    Acceptance,
    Refusal,
    Registration,
    acceptance_bytes,
    read_registration,
    refusal_bytes,
    verdict_bytes,
)
from broker.tunnel.registry import Member, Registry
from broker.tunnel.uplink import TunnelSettings

log = logging.getLogger("broker.ports")

MAX_TOLD = 512  # with more logins under way, addresses that are not allowed are not told why
ACCEPT_BATCH = 64
PAUSE_S = 0.2  # out of descriptors: look again then
LINGER_S = 1.0  # for the peer to read why it was refused
READ_SIZE = 65536
SPEAKS_TLS = "This registration port speaks TLS: use https:// instead."
TLS_HANDSHAKE = 22  # the first byte of a TLS connection (RFC 8446, 5.1)
SPREAD_PER_TUNNEL_MS = 2
SPREAD_MS = (250, 5000)
NO_ROUTES = RouteTable([])  # agents open no streams
CODE_FORBIDDEN = 8  # end.pxd
FORBIDDEN = "forbidden"
TLS_ACCESS_DENIED = (
    b"\x15\x03\x01\x00\x02\x02\x31"  # a fatal alert, in clear before a handshake (RFC 8446, 6)
)
# Refusals that are the peer's fault, beside those of its credentials.
BROKEN = {"bad-request", "unsupported", "head-too-large"}
OUT_OF_RESOURCES = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


@dataclass(frozen=True, slots=True)
class LoginSettings:
    """What changes with a reload."""

    node: str
    deadline_s: float
    tunnel: TunnelSettings


def spread_ms(tunnels: int) -> int:
    """Over how long that many tunnels may come back after a loss: logins are to stay below one per 2 ms."""
    return min(max(SPREAD_PER_TUNNEL_MS * tunnels, SPREAD_MS[0]), SPREAD_MS[1])


def punished(port: str, network: str, wait_s: float) -> str:
    return (
        f"registration port {port} takes no connections from {network} for {wait_s:.0f} s:"
        " too many logins from there have failed"
    )


def turned_away(wait_s: float) -> Refusal:
    return Refusal(429, "rate-limited", "Too many logins from this address have failed.", int(wait_s) + 1)


def not_allowed() -> Refusal:
    # A new one each time: one that is raised again and again keeps the frames of all that it ended.
    return Refusal(403, FORBIDDEN, "This address is not allowed at this registration port.")


class RegistrationPort:
    """One registration port. The sockets stay the node's."""

    def __init__(
        self,
        config: model.RegistrationPort,
        sockets: list[socket.socket],
        reactor: Reactor,
        registry: Registry,
        settings: LoginSettings,
        on_change: Callable[[], None],
        penalties: Penalties | None = None,
    ) -> None:
        self.config = config
        self.url = bound_url(config, sockets[0])
        self.tls = tls_of(config)
        self._admission = admission_of(config.addresses)
        self._proxies = networks_of(config.trusted_proxies)
        self.registry = registry
        self.settings = settings
        self.accepted = 0
        self.crowded_out = 0
        self.turned_away = 0
        self.refusals: Counter[str] = Counter()  # by code
        self._sockets = sockets
        self._reactor = reactor
        self._on_change = on_change
        self._strangers: Strangers[Login] = Strangers(config.strangers)
        self.penalties = penalties or Penalties(config.strangers.penalties)
        self._limiter = Limiter()
        self._loop = asyncio.get_running_loop()
        self._paused: asyncio.TimerHandle | None = None
        self._held = False
        self._resume()

    @property
    def name(self) -> str:
        return self.config.name

    @property
    def logins(self) -> int:
        return len(self._strangers)

    def uses(self, sockets: list[socket.socket]) -> bool:
        return self._sockets is sockets

    def configure(self, config: model.RegistrationPort, settings: LoginSettings) -> None:
        self.config = config
        self.tls = tls_of(config, self.tls)
        self._strangers.limits = config.strangers
        self.penalties.settings = config.strangers.penalties
        self.settings = settings
        self._admission = admission_of(config.addresses)
        self._proxies = networks_of(config.trusted_proxies)
        revoked = revocations(config.tls)
        for member in self.registry.members():
            if not self._admits(host_of(member.address)):
                member.link.close(CODE_FORBIDDEN, "this address is not allowed at the registration port")
            elif revoked is not None and revoked(member.principal.shown):
                member.link.close(CODE_FORBIDDEN, "its certificate was revoked")

    # --- accepting ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Accept no more, and end the logins that are not through. Tunnels go on."""
        if self._paused is not None:
            self._paused.cancel()
            self._paused = None
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        self._sockets = []
        for login in self._strangers:
            self._drop(login)

    def hold(self) -> None:
        """Accept no more until `resume`; logins that have begun go on."""
        self._held = True
        for sock in self._sockets:
            self._loop.remove_reader(sock)

    def resume(self) -> None:
        self._held = False
        self._resume()

    def _resume(self) -> None:
        self._paused = None
        if self._held:
            return
        for sock in self._sockets:
            self._loop.add_reader(sock, self._accept_some, sock)

    def _pause(self) -> None:
        # The connection stays in the backlog, and the socket would be ready for ever.
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        self._paused = self._loop.call_later(PAUSE_S, self._resume)

    def _accept_some(self, listener: socket.socket) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in OUT_OF_RESOURCES:
                    self._warn(
                        "descriptors", f"registration port {self.name} cannot accept: {error.strerror}"
                    )
                    self._pause()
                    return
                continue
            self.take(sock, address)

    def take(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """A connection that was accepted here, or by the process that accepts for all workers."""
        sock.setblocking(False)
        self.accepted += 1
        login = Login(sock, address)
        login.greeting = self.config.proxy_protocol
        login.by_proxy = self._is_proxy(login.host)
        wait = 0.0 if login.by_proxy else self.penalties.wait(login.network)
        if wait:
            self._turn_away(login, wait)
        elif login.by_proxy or (self._admits(login.host) and not login.greeting):
            self._begin(login)
        else:
            login.greeting = False
            self._deny(login)

    def _is_proxy(self, host: str) -> bool:
        return self._proxies is not None and host in self._proxies

    def _admits(self, host: str) -> bool:
        return self._admission is None or host in self._admission

    def _deny(self, login: Login) -> None:
        """Told why where that would be understood, unless it takes a place from those that may log in."""
        if self.tls is None and len(self._strangers) < MAX_TOLD:
            self._begin(login)
            self._refuse(login, not_allowed())
            return
        self.refusals[FORBIDDEN] += 1
        self._warn(
            (login.host, FORBIDDEN),
            f"registration port {self.name} closed a connection from {login.address}: not an allowed address",
        )
        login.sock.close()

    def _begin(self, login: Login) -> None:
        gone = self._strangers.enter(login)
        if gone is not None:
            self._crowd_out(gone)
        login.timer = self._loop.call_later(self.settings.deadline_s, self._on_deadline, login)
        self._loop.add_reader(login.sock, self._on_readable, login)

    def _crowd_out(self, login: Login) -> None:
        self.crowded_out += 1
        self._warn("crowd", f"registration port {self.name}: too many connections that do not log in")
        self._punish(login, "slow")
        self._drop(login)

    def _turn_away(self, login: Login, wait: float) -> None:
        """At once and at the least cost: no TLS, and nothing is looked at."""
        self.turned_away += 1
        with login.sock as sock, suppress(OSError):
            sock.send(refusal_bytes(turned_away(wait)) if self.tls is None else TLS_ACCESS_DENIED)
            sock.recv(READ_SIZE)  # what lies unread at the end would destroy the answer

    def _punish(self, login: Login, kind: Kind) -> None:
        if login.by_proxy:
            return  # whoever it was: the proxy's address is that of all agents behind it
        wait = self.penalties.punish(login.network, kind)
        if wait:
            self._warn((login.network, "penalty"), punished(self.name, login.network, wait))

    # --- logging in -----------------------------------------------------------------------------

    def _on_readable(self, login: Login) -> None:
        try:
            chunk = login.sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            chunk = b""
        if not chunk:
            if login.spoke and not login.refused:
                self._punish(login, "broken")
            self._drop(login)
            return
        if not login.spoke:
            login.spoke = True
            self._strangers.speaks(login)
        if login.refused:
            return  # read and forgotten: closing with unread bytes would destroy our answer
        if login.greeting:
            chunk = self._greet(login, chunk)
            if not chunk:
                return
        if self.tls is not None:
            plain = self._decrypt(login, chunk)
            if not plain:
                return
            chunk = plain
        if login.claiming:  # our answer is still to come; what is here already are frames
            login.data += chunk
            if len(login.data) > 2 * HEAD_LIMIT:
                self._drop(login)
            return
        searched = max(len(login.data) - 3, 0)
        login.data += chunk
        if searched and b"\r\n\r\n" not in login.data[searched:] and len(login.data) <= HEAD_LIMIT:
            return  # scanned once, and not yet complete: no second scan before its end is there
        try:
            self._advance(login)
        except Refusal as refusal:
            self._refuse(login, refusal)

    def _greet(self, login: Login, chunk: bytes) -> bytes:
        """What follows the PROXY header; b"" where nothing does (yet), or the connection was dropped."""
        try:
            found = login.read_greeting(chunk)
        except ValueError:
            self.refusals["bad-request"] += 1
            line = (
                f"registration port {self.name}: {login.address} does not begin with a PROXY header; closed"
            )
            self._warn((login.network, "greeting"), line)
            self._drop(login)
            return b""
        if found is None:
            return b""
        rest, client = found
        try:
            self._judge(login, client)
        except Refusal as refusal:
            self._refuse(login, refusal, b"" if self.tls is None else TLS_ACCESS_DENIED)
        return b"" if login.gone or login.refused else rest

    def _judge(self, login: Login, client: tuple[str, int] | None) -> None:
        """Ask of whom a trusted proxy has named (None: itself) what is asked of a direct peer."""
        if client is not None:
            self._strangers.leave(login)
            login.place(*client)
            login.by_proxy = self._is_proxy(login.host)
            crowded = self._strangers.enter(login)
            self._strangers.speaks(login)
            if crowded is not None:
                self._crowd_out(crowded)
        wait = 0.0 if login.by_proxy else self.penalties.wait(login.network)
        if wait:
            self.turned_away += 1
            raise turned_away(wait)
        if not self._admits(login.host):
            raise not_allowed()

    def _decrypt(self, login: Login, chunk: bytes) -> bytes:
        """The plaintext that has come; b"" where there is none (yet), or the connection was dropped."""
        assert self.tls is not None
        if login.tls is None:
            if chunk[0] != TLS_HANDSHAKE:
                self._refuse(login, Refusal(400, "bad-request", SPEAKS_TLS))
                return b""
            login.tls = TlsStream(self.tls())
        stream = login.tls
        stream.feed(chunk)
        problem = ""
        plain: bytes | None = None
        try:
            if stream.established or stream.handshake():
                plain = stream.read()
        except TlsFailed as error:
            problem = str(error)
        answer = stream.pending()
        try:
            sent = login.sock.send(answer) if answer else 0
        except OSError:
            sent = -1
        if problem or sent != len(answer) or plain == b"":
            if problem:
                self.refusals["tls"] += 1
                line = f"registration port {self.name}: TLS with {login.address} failed: {problem}"
                self._warn((login.network, problem), line)
            self._punish(login, "broken")
            self._drop(login)
            return b""
        return plain or b""

    def _advance(self, login: Login) -> None:
        if login.data[0] < 0x20:
            # No HTTP at all, most likely a TLS hello: there is nothing that it would understand.
            self._warn(
                "tls", f"registration port {self.name}: {login.address} speaks TLS, or no HTTP; closed"
            )
            self.refusals["bad-request"] += 1
            self._punish(login, "broken")
            self._drop(login)
            return
        read = read_registration(login.data, HEAD_LIMIT)
        if read is None:
            return
        registration, size = read
        if login.by_proxy and self._proxies is not None:
            client = client_of(login.data, self._proxies, login.host, HEAD_LIMIT)
            self._judge(login, (client, 0) if client is not None else None)
        if login.tls is not None and login.binding is None:
            login.binding = exporter_of(login.tls.connection)
        if registration is None:
            self._challenge(login, login.data[size:])
            return
        try:
            principal = self.registry.authenticate(login.evidence(registration))
        except Refusal:
            self._punish(login, "failed")
            raise
        member = self.registry.admit(principal, registration, login.address)
        if registration.look:
            node = self.settings.node
            self._end(login, verdict_bytes(node, principal.name, member.refused, time.time()))
            return
        login.claiming = True
        self.registry.claim(member, lambda no: self._on_claim(login, registration, member, size, no))

    def _on_claim(
        self, login: Login, registration: Registration, member: Member, size: int, no: Refusal | None
    ) -> None:
        if login.gone or login.refused:  # it has gone meanwhile, or took too long
            self.registry.unclaim(member)
        elif no is not None:
            login.claiming = False
            self._refuse(login, no)
        else:
            self._hand_over(login, registration, member, login.data[size:])

    def _challenge(self, login: Login, more: bytes) -> None:
        """A nonce for the proof of a token; the registration follows on the same connection."""
        if login.binding is not None or more:
            raise Refusal(
                400,
                "bad-request",
                "A nonce is asked for once, before the registration, and not over TLS 1.3.",
            )
        nonce = secrets.token_bytes(NONCE_SIZE)
        login.binding = Binding(NONCE, nonce)
        login.data = b""
        question = Refusal(401, "unauthenticated", "Prove the token with this nonce.", nonce=nonce)
        if not login.send(refusal_bytes(question)):
            self._drop(login)

    def _hand_over(self, login: Login, registration: Registration, member: Member, leftover: bytes) -> None:
        settings = self.settings.tunnel
        answer = acceptance_bytes(
            Acceptance(
                node=self.settings.node,
                window=settings.window,
                streams=settings.streams,
                silence_ms=settings.silence_ms,
                retry_ms=spread_ms(self.registry.tunnels),
            )
        )
        if not login.send(answer):
            self.registry.unclaim(member)
            self._drop(login)
            return
        self._forget(login)
        fd = login.sock.detach()
        try:
            tunnel = self._make_tunnel(fd, registration, member, leftover, login)
        except OSError as error:
            os.close(fd)
            self.registry.unclaim(member)
            self._warn("tunnel", f"registration port {self.name} cannot take a tunnel over: {error.strerror}")
            return
        self.penalties.arrived(login.network)
        self.registry.join(member, tunnel)
        self._on_change()

    def _make_tunnel(
        self, fd: int, registration: Registration, member: Member, leftover: bytes, login: Login
    ) -> Tunnel:
        settings = self.settings.tunnel
        network, tls = login.network, login.tls
        return Tunnel(
            self._reactor,
            fd,
            dialled=False,
            name=member.label,
            label=f"{member.principal.name}/{registration.agent}/{registration.index}",
            routes=NO_ROUTES,
            local_window=settings.window,
            peer_window=registration.window,
            local_streams=settings.streams,
            peer_streams=self.registry.streams_for(member),
            quota=self.registry.quota_of(member.principal),
            silence=settings.silence_ms,
            tunnel_memory=settings.memory,
            on_control=lambda _tunnel, payload: self.registry.on_control(member, payload),
            on_close=lambda _tunnel, code, reason: self._on_close(member, network, code, reason),
            on_goaway=lambda _tunnel: self.registry.on_goaway(member),
            leftover=leftover,
            tls=tls.connection if tls is not None else None,
        )

    def _on_close(self, member: Member, network: str, code: int, reason: str) -> None:
        self.penalties.left(network)
        self.registry.on_close(member, code, reason)
        self._on_change()

    # --- ending ---------------------------------------------------------------------------------

    def _on_deadline(self, login: Login) -> None:
        if not login.refused:
            self._punish(login, "slow")
        if login.refused or not login.data:
            self._drop(login)
            return
        self._refuse(login, Refusal(408, "request-timeout", "The registration took too long to arrive."))

    def _refuse(self, login: Login, refusal: Refusal, answer: bytes = b"") -> None:
        """`answer`: what is sent in place of an HTTP response."""
        self.refusals[refusal.code] += 1
        if refusal.code in BROKEN:
            self._punish(login, "broken")
        self._warn(
            (login.network, refusal.code),
            f"registration port {self.name} refused {login.address}: {refusal.code}: {refusal.sentence}",
        )
        self._end(login, answer or refusal_bytes(refusal))

    def _end(self, login: Login, answer: bytes) -> None:
        """The last that the connection is told."""
        login.data = b""
        login.refused = True
        try:
            whole = login.send(answer)
            login.sock.shutdown(socket.SHUT_WR)
        except OSError:
            whole = False
        if not whole:
            self._drop(login)
            return
        if login.timer is not None:
            login.timer.cancel()
        login.timer = self._loop.call_later(LINGER_S, self._on_deadline, login)

    def _drop(self, login: Login) -> None:
        self._forget(login)
        login.sock.close()

    def _forget(self, login: Login) -> None:
        login.gone = True
        self._strangers.leave(login)
        if login.timer is not None:
            login.timer.cancel()
        self._loop.remove_reader(login.sock)

    def _warn(self, kind: object, line: str) -> None:
        held = self._limiter.passes(kind)
        if held is not None:
            log.warning("%s%s", line, f" ({held} more like this before)" if held else "")
        else:
            log.debug("%s", line)
