"""What the tests of the Python rooms share: loops, tunnels on socket pairs, frames by hand."""

import asyncio
import hashlib
import socket
import struct
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import msgpack
import uvloop

from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.tunnel import Tunnel
from broker.config.model import Match, Rights, User
from broker.identity.login import Evidence
from broker.identity.users import Principal, Users
from broker.tunnel.directory import Directory
from broker.tunnel.handshake import Registration
from broker.tunnel.registry import Member, Registry

T = TypeVar("T")

DEADLINE = 10.0
FRAME = struct.Struct(">IBBHI")
FRAME_DATA, FRAME_RESET, FRAME_PING, FRAME_GOAWAY, FRAME_CONTROL = 3, 6, 7, 8, 9
LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


def run(main: Coroutine[Any, Any, T], loop: str = "uvloop") -> T:
    async def bounded() -> T:
        async with asyncio.timeout(DEADLINE * 3):
            return await main

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        return runner.run(bounded())


async def until(predicate: Callable[[], object]) -> None:
    """Let the loop run until something is true."""
    async with asyncio.timeout(DEADLINE):
        while not predicate():
            await asyncio.sleep(0.001)


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def user(name: str, *services: str, **rights: Any) -> User:
    """A user whose token is his name."""
    granted = tuple(Match(host=host) for host in services)
    return User(name=name, tokens=(digest(name),), rights=Rights(services=granted, **rights))


def registration(
    agent: str = "a", instance: int = 1, index: int = 0, *hosts: str, **more: Any
) -> Registration:
    values: dict[str, Any] = {"window": 65536, "streams": 100, "token": None}
    services = tuple(Match(host=host) for host in hosts)
    return Registration(agent, f"{instance:032x}", index, services=services, **(values | more))


class Peer:
    """The other end of a tunnel, by hand."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""

    def frames(self) -> list[tuple[int, int, bytes]]:
        """What has arrived: (type, stream, payload)."""
        try:
            while chunk := self.sock.recv(65536):
                self.data += chunk
        except BlockingIOError:
            pass
        found = []
        while len(self.data) >= FRAME.size:
            length, kind, _, _, stream = FRAME.unpack_from(self.data)
            if len(self.data) < FRAME.size + length:
                break
            found.append((kind, stream, self.data[FRAME.size : FRAME.size + length]))
            self.data = self.data[FRAME.size + length :]
        return found

    def controls(self) -> list[dict[str, Any]]:
        return [msgpack.unpackb(payload) for kind, _, payload in self.frames() if kind == FRAME_CONTROL]

    def send(self, kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> None:
        self.sock.sendall(FRAME.pack(len(payload), kind, flags, 0, stream) + payload)

    def goaway(self, code: int = 0) -> None:
        self.send(FRAME_GOAWAY, struct.pack(">HH", code, 0))

    def close(self) -> None:
        self.sock.close()


class RegistryRig:
    """A registry on a real reactor, with agents on socket pairs."""

    def __init__(self, users: list[User] | None = None, **limits: int) -> None:
        self.reactor = Reactor(asyncio.get_running_loop())
        self.reactor.start()
        self.tables: list[RouteTable] = []
        self.peers: list[Peer] = []
        directory = Directory(
            self.reactor, self.tables.append, lambda: None, asyncio.get_running_loop().call_later
        )
        values = {"max_tunnels": 100, "max_streams": 1000} | limits
        self.registry = Registry("green", directory, Users(users or []), **values)

    def admit(self, wanted: Registration, principal: Principal | None = None) -> Member:
        who = principal or self.registry.authenticate(Evidence(wanted.token))
        return self.registry.admit(who, wanted, "192.0.2.1:5")

    def login(self, wanted: Registration) -> tuple[Member, Peer]:
        member = self.admit(wanted)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        tunnel = Tunnel(
            self.reactor,
            ours.detach(),
            dialled=False,
            name=member.label,
            routes=RouteTable([]),
            local_window=65536,
            peer_window=wanted.window,
            local_streams=0,
            peer_streams=self.registry.streams_for(member),
            quota=self.registry.quota_of(member.principal),
            silence=5000,
            tunnel_memory=1 << 20,
            on_control=lambda _, payload: self.registry.on_control(member, payload),
            on_close=lambda _, code, reason: self.registry.on_close(member, code, reason),
            on_goaway=lambda _: self.registry.on_goaway(member),
        )
        self.registry.join(member, tunnel)
        peer = Peer(theirs)
        self.peers.append(peer)
        return member, peer

    @property
    def table(self) -> RouteTable:
        return self.registry.directory.table

    def hosts(self) -> set[str]:
        """The hosts that the table knows."""
        return {host for host, _, _ in self.table.patterns()}

    def tunnels_of(self, host: str) -> int:
        target = self.table.lookup(host.encode(), b"/")
        assert target is not None, f"{host} is not known"
        return int(target.counters()["tunnels"])  # type: ignore[attr-defined]

    async def close(self) -> None:
        try:
            self.registry.close(0, "the test is over")
            await until(lambda: self.registry.tunnels == 0)
        finally:
            for peer in self.peers:
                peer.close()
            self.reactor.close()


def with_registry(
    test: Callable[[RegistryRig], Awaitable[None]],
    users: list[User] | None = None,
    loop: str = "uvloop",
    **limits: int,
) -> None:
    async def main() -> None:
        rig = RegistryRig(users, **limits)
        try:
            await test(rig)
        finally:
            await rig.close()

    run(main(), loop)
