"""A name with several addresses: tunnels to each of them, and what happens when the name changes."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from _fastpath.reactor import Reactor
from broker.tunnel import addresses as addresses_module
from broker.tunnel import backoff as backoff_module
from broker.tunnel.addresses import Spread, Target
from broker.tunnel.uplink import Uplink
from tests.unit.node_support import run, until
from tests.unit.test_node_dialler import FakeDmz, connect_to, uplink_to

V4, V6 = int(socket.AF_INET), int(socket.AF_INET6)


class Net:
    """A name server, and DMZ nodes on loopback addresses with one port."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.fails = False
        self.nodes: dict[str, FakeDmz] = {}
        self.port = 0

    async def resolve(self, _host: str, port: int, **_: object) -> list[tuple]:
        if self.fails or not self.addresses:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [
            (V6 if ":" in address else V4, socket.SOCK_STREAM, 6, "", (address, port))
            for address in self.addresses
        ]

    async def node(self, host: str) -> FakeDmz:
        dmz = self.nodes[host] = FakeDmz()
        dmz.server = await asyncio.start_server(dmz.serve, host, self.port)
        self.port = dmz.server.sockets[0].getsockname()[1]
        return dmz


def with_net(test: Callable[[Net, Uplink], Awaitable[None]], tunnels: int, *hosts: str) -> None:
    async def main() -> None:
        net = Net()
        for host in hosts:
            await net.node(host)
        net.addresses = list(hosts)
        loop = asyncio.get_running_loop()
        loop.getaddrinfo = net.resolve  # type: ignore[method-assign]
        reactor = Reactor(loop)
        reactor.start()
        uplink = uplink_to(reactor, connect_to(net.port, tunnels, "x.example", host="dmz.example"))
        try:
            await test(net, uplink)
            await uplink.stop()
            await until(lambda: not uplink.parting)
        finally:
            await uplink.stop()
            for dmz in net.nodes.values():
                await dmz.close()
            reactor.close()

    run(main(), "asyncio")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr(addresses_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(backoff_module, "BASE_S", 0.001)


def up(uplink: Uplink) -> dict[str, int]:
    counts: dict[str, int] = {}
    for dialler in uplink.diallers:
        if dialler.up:
            assert dialler.target is not None
            counts[dialler.target.host] = counts.get(dialler.target.host, 0) + 1
    return counts


def test_every_address_gets_its_tunnels():
    async def test(net: Net, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: up(uplink) == {"127.0.0.1": 2, "127.0.0.2": 2, "127.0.0.3": 2})
        for dmz in net.nodes.values():
            assert len(dmz.logins) == 2
        indices = [login.index for dmz in net.nodes.values() for login in dmz.logins]
        assert len(set(indices)) == 6, "no tunnel evicts another where two addresses are one node"

    with_net(test, 2, "127.0.0.1", "127.0.0.2", "127.0.0.3")


def test_a_name_that_changes():
    async def test(net: Net, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: up(uplink) == {"127.0.0.1": 2})
        old = uplink.tunnels()
        await net.node("127.0.0.2")
        net.addresses = ["127.0.0.2", "127.0.0.1"]
        await until(lambda: up(uplink) == {"127.0.0.1": 2, "127.0.0.2": 2})
        assert set(old) < set(uplink.tunnels()), "what was up stays"
        net.addresses = ["127.0.0.2"]
        await until(lambda: up(uplink) == {"127.0.0.2": 2})
        assert set(old) == uplink.parting, "they take no new streams, and end when theirs have"
        assert all(tunnel.draining for tunnel in old)

    with_net(test, 2, "127.0.0.1")


def test_a_name_server_that_fails_or_shuffles_changes_nothing(caplog):
    async def test(net: Net, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: len(uplink.tunnels()) == 2)
        before = uplink.tunnels()
        net.fails = True
        await until(lambda: "does not resolve" in caplog.text)
        net.fails = False
        net.addresses.reverse()
        await asyncio.sleep(0.05)
        assert uplink.tunnels() == before

    with_net(test, 1, "127.0.0.1", "127.0.0.2")
    assert caplog.text.count("does not resolve") == 1


def test_a_name_without_an_address_yet():
    async def test(net: Net, uplink: Uplink) -> None:
        known, net.addresses = net.addresses, []
        uplink.start()
        await until(lambda: uplink.diallers[0].failures > 2)
        assert "cannot be resolved" in uplink.diallers[0].reason
        assert len(uplink.diallers) == 1
        net.addresses = known
        await until(lambda: up(uplink) == {"127.0.0.1": 2, "127.0.0.2": 2})

    with_net(test, 2, "127.0.0.1", "127.0.0.2")


def test_one_address_that_is_down_is_told_and_the_others_serve(caplog):
    async def test(net: Net, uplink: Uplink) -> None:
        net.addresses.append("127.0.0.9")
        uplink.start()
        await until(lambda: up(uplink) == {"127.0.0.1": 1} and "127.0.0.9: connection refused" in caplog.text)
        assert uplink.ready
        await net.node("127.0.0.9")
        await until(lambda: up(uplink) == {"127.0.0.1": 1, "127.0.0.9": 1})

    with_net(test, 1, "127.0.0.1")


def test_two_families_are_two_ways_to_the_same_node():
    """Where only the one answers, that is not a failure of the other."""

    async def test(net: Net, uplink: Uplink) -> None:
        net.addresses = ["::1", "127.0.0.1", "127.0.0.2"]
        uplink.start()
        await until(lambda: up(uplink) == {"127.0.0.1": 2, "127.0.0.2": 2})
        assert len(uplink.diallers) == 4

    with_net(test, 2, "127.0.0.1", "127.0.0.2")


def test_the_other_family_is_tried_when_the_first_is_gone():
    async def test(net: Net, uplink: Uplink) -> None:
        net.addresses = ["::1", "127.0.0.1"]
        uplink.start()
        await until(lambda: up(uplink) == {"127.0.0.1": 1})
        try:
            await net.node("::1")
        except OSError:
            pytest.skip("this machine has no IPv6")
        first = net.nodes["127.0.0.1"]
        await first.close()
        await until(lambda: up(uplink) == {"::1": 1})

    with_net(test, 1, "127.0.0.1")


def test_spread():
    a, b, c = Target(V4, "192.0.2.1"), Target(V4, "192.0.2.2"), Target(V6, "2001:db8::1")
    spread = Spread()
    assert spread.targets({}) == []
    assert spread.targets({a: (), b: ()}) == [a, b]  # type: ignore[dict-item]
    assert spread.targets({c: (), b: (), a: ()}) == [b, a]  # type: ignore[dict-item]
    assert spread.targets({c: ()}) == [c]  # type: ignore[dict-item]
    mixed = Spread()
    assert mixed.targets({c: (), b: (), a: ()}) == []  # type: ignore[dict-item]
