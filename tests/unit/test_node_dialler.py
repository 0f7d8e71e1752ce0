"""Dialling: registering, coming back, and how long to wait before that."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from broker.config.model import Connect, Limits, Match, Secret, Service, Timeouts, Upstream
from broker.tunnel import backoff as backoff_module
from broker.tunnel import dialler as dialler_module
from broker.tunnel.backoff import (
    BASE_S,
    MAX_SUGGESTED_S,
    REFUSED_CEILING_S,
    STABLE_S,
    UNREACHABLE_CEILING_S,
    UNSTABLE_CEILING_S,
    Backoff,
)
from broker.tunnel.handshake import Acceptance, Refusal, acceptance_bytes, read_registration, refusal_bytes
from broker.tunnel.messages import refused_bytes
from broker.tunnel.uplink import Agent, TunnelSettings, Uplink
from tests.unit.node_support import FRAME, FRAME_CONTROL, FRAME_GOAWAY, LOOPS, run, until

ACCEPTANCE = Acceptance("dmz-1", 65536, 0, 5000, 0)

# --- backoff ------------------------------------------------------------------------------------


def longest(low: float, high: float) -> float:
    assert low == 0, "full jitter: from nothing"
    return high


def test_waits_double_up_to_a_ceiling():
    backoff = Backoff(longest)
    waits = [backoff.after_failure(refused=True) for _ in range(20)]
    assert waits[:4] == [BASE_S, 2 * BASE_S, 4 * BASE_S, 8 * BASE_S]
    assert max(waits) == waits[-1] == REFUSED_CEILING_S


def test_a_node_that_is_down_is_tried_more_often():
    backoff = Backoff(longest)
    assert max(backoff.after_failure(refused=False) for _ in range(20)) == UNREACHABLE_CEILING_S


def test_a_wait_that_the_peer_asks_for_is_a_lower_bound_with_an_upper_one():
    backoff = Backoff(lambda *_: 0.0)
    assert backoff.after_failure(refused=True, suggested_s=7) == 7
    assert backoff.after_failure(refused=True, suggested_s=1e9) == MAX_SUGGESTED_S


def test_a_tunnel_that_was_up_makes_the_next_wait_short():
    backoff = Backoff(longest)
    for _ in range(6):
        backoff.after_failure(refused=True)
    backoff.succeeded()
    assert backoff.after_loss(1.0) == BASE_S, "a DMZ node that restarts soon after is not made to wait for"
    assert backoff.after_failure(refused=False) == BASE_S
    assert backoff.after_loss(STABLE_S, spread_s=4) == 4
    assert backoff.after_loss(STABLE_S, spread_s=0) == 0


def test_tunnels_that_do_not_last_are_dialled_less_and_less():
    backoff = Backoff(longest)
    waits = []
    for _ in range(8):
        backoff.succeeded()
        waits.append(backoff.after_loss(STABLE_S / 2))
    assert waits[:4] == [BASE_S, 2 * BASE_S, 4 * BASE_S, 8 * BASE_S]
    assert max(waits) == UNSTABLE_CEILING_S
    assert backoff.after_loss(STABLE_S) == BASE_S


@given(st.lists(st.tuples(st.booleans(), st.floats(-10, 1e12)), max_size=40))
def test_no_wait_is_endless(steps):
    backoff = Backoff()
    for refused, suggested in steps:
        wait = backoff.after_failure(refused=refused, suggested_s=suggested)
        assert 0 <= wait <= REFUSED_CEILING_S + MAX_SUGGESTED_S


# --- dialling -----------------------------------------------------------------------------------


class FakeDmz:
    """A registration port whose answers the test chooses."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.links: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.logins: list = []
        self.tokens: list[str | None] = []

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return self.server.sockets[0].getsockname()[1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.links.append((reader, writer))
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return
        read = read_registration(head)
        assert read is not None
        self.logins.append(read[0])
        answer = self.answers.pop(0) if self.answers else acceptance_bytes(ACCEPTANCE)
        writer.write(answer)
        if not answer.startswith(b"HTTP/1.1 101 "):
            writer.close()

    def send(self, index: int, kind: int, payload: bytes) -> None:
        self.links[index][1].write(FRAME.pack(len(payload), kind, 0, 0, 0) + payload)

    async def close(self) -> None:
        self.server.close()
        for _ in range(4):  # of what has been accepted just now, its transport is made in a later turn
            for _, writer in self.links:
                writer.transport.abort()
            await asyncio.sleep(0)


def connect_to(
    port: int,
    tunnels: int = 1,
    *hosts: str,
    token: str | None = None,
    host: str = "127.0.0.1",
    bearer: bool = True,
) -> Connect:
    services = tuple(
        Service(
            match=Match(host=each),
            upstreams=(Upstream(scheme="http", host="127.0.0.1", port=9),),
            limits=Limits(),
            timeouts=Timeouts(),
        )
        for each in hosts
    )
    secret = Secret(token) if token else None
    return Connect(
        scheme="http",
        host=host,
        port=port,
        token=secret,
        token_file=None,
        bearer=bearer,
        tunnels=tunnels,
        services=services,
    )


def uplink_to(reactor: Reactor, connect: Connect) -> Uplink:
    return Uplink(
        reactor,
        Agent("agent-1", "ab" * 16),
        connect,
        RouteTable([]),
        TunnelSettings(65536, 100, 5000, 1 << 20),
        2.0,
        lambda: None,
    )


def with_uplink(
    test: Callable[[FakeDmz, Uplink], Awaitable[None]], loop: str = "uvloop", tunnels: int = 1, **more: Any
) -> None:
    async def main() -> None:
        dmz = FakeDmz()
        reactor = Reactor(asyncio.get_running_loop())
        reactor.start()
        uplink = uplink_to(reactor, connect_to(await dmz.start(), tunnels, "x.example", **more))
        try:
            await test(dmz, uplink)
            await uplink.stop()
            await until(lambda: not uplink.parting)
        finally:
            await uplink.stop()
            await dmz.close()
            reactor.close()

    run(main(), loop)


@pytest.fixture
def at_once(monkeypatch):
    """Waits of no length, so that a test of what comes after does not take their time."""
    monkeypatch.setattr(backoff_module, "BASE_S", 0.001)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_agent_registers_with_all_its_tunnels(loop):
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        assert not uplink.ready
        uplink.start()
        await until(lambda: len(uplink.tunnels()) == 3)
        assert uplink.ready
        assert sorted(login.index for login in dmz.logins) == [0, 1, 2]
        assert {login.instance for login in dmz.logins} == {"ab" * 16}
        assert {login.agent for login in dmz.logins} == {"agent-1"}
        assert {login.token for login in dmz.logins} == {"token-of-the-agent"}
        assert dmz.logins[0].services == (Match(host="x.example"),)

    with_uplink(test, loop, 3, token="token-of-the-agent")


@pytest.mark.usefixtures("at_once")
def test_a_token_that_is_proven_is_never_sent():
    """A node that asks for nothing, or for the token itself, gets neither."""

    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        bare = Refusal(401, "unauthenticated", "Send the token.")
        dmz.answers = [refusal_bytes(bare), acceptance_bytes(ACCEPTANCE)]
        uplink.start()
        (dialler,) = uplink.diallers
        await until(lambda: "without a registration" in dialler.reason)
        assert dmz.logins[:2] == [None, None]
        assert not uplink.tunnels()

    with_uplink(test, token="token-of-the-agent", bearer=False)


@pytest.mark.usefixtures("at_once")
def test_a_lost_tunnel_is_dialled_again():
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: uplink.ready)
        dmz.links[0][1].transport.abort()
        await until(lambda: len(dmz.logins) == 2 and uplink.ready)
        assert uplink.lost == 1
        assert dmz.logins[0] == dmz.logins[1], "the same instance and index: the new login evicts the old"

    with_uplink(test)


@pytest.mark.usefixtures("at_once")
def test_a_refusal_is_told_once_however_often_it_comes(caplog):
    caplog.set_level(logging.INFO)

    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        dmz.answers = [refusal_bytes(Refusal(403, "forbidden", "Not here."))] * 8
        uplink.start()
        await until(lambda: len(uplink.tunnels()) == 2)
        told = [record.getMessage() for record in caplog.records if "no tunnel to" in record.getMessage()]
        assert len(told) == 1
        assert "403 forbidden: Not here" in told[0]
        assert len(dmz.logins) == 10

    with_uplink(test, tunnels=2)


@pytest.mark.usefixtures("at_once")
def test_what_is_no_registration_port_is_said_so(caplog):
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        dmz.answers = [b"SSH-2.0-x\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""]
        uplink.start()
        await until(lambda: uplink.ready)
        told = " ".join(record.getMessage() for record in caplog.records)
        assert "does not answer like a registration port" in told
        assert "status 200" in told
        assert "closed the connection before it answered" in told

    with_uplink(test)


@pytest.mark.usefixtures("at_once")
def test_a_silent_peer_meets_the_deadline(monkeypatch):
    monkeypatch.setattr(dialler_module, "HANDSHAKE_S", 0.02)

    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        dmz.answers = [b"HTTP/1.1 101 Switching"]
        uplink.start()
        await until(lambda: uplink.ready)
        assert len(dmz.logins) == 2, "the first one was given up"

    with_uplink(test)


@pytest.mark.usefixtures("at_once")
def test_nothing_listens(caplog):
    async def main() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        reactor.start()
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            uplink = uplink_to(reactor, connect_to(unused.getsockname()[1]))
            uplink.start()
            await until(lambda: uplink.diallers[0].failures > 3)
        assert uplink.diallers[0].state == "waiting"
        assert uplink.diallers[0].reason == "connection refused"
        await uplink.stop()
        reactor.close()

    run(main())
    assert sum("connection refused" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.usefixtures("at_once")
def test_a_farewell_brings_a_new_tunnel_before_the_old_one_is_closed():
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: uplink.ready)
        old = uplink.tunnels()[0]
        dmz.send(0, FRAME_GOAWAY, b"\x00\x00\x00\x00")
        await until(lambda: len(dmz.logins) == 2 and uplink.ready)
        assert uplink.tunnels()[0] is not old
        await until(lambda: not old.alive)
        assert uplink.lost == 0

    with_uplink(test)


def test_what_the_dmz_node_refuses_is_known_but_not_believed_blindly(caplog):
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: uplink.ready)
        refused = [
            (Match(host="x.example"), "forbidden", "no right"),
            (Match(host="made-up"), "forbidden", "x"),
        ]
        for _ in range(50):
            dmz.send(0, FRAME_CONTROL, refused_bytes(refused))
        await until(lambda: uplink.refused)
        assert set(uplink.refused) == {"x.example/"}
        assert uplink.refused["x.example/"].code == "forbidden"

    with_uplink(test)
    assert sum("refuses the service" in record.getMessage() for record in caplog.records) == 1


def test_a_reload_announces_other_services_and_changes_the_number_of_tunnels():
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: len(uplink.tunnels()) == 2)
        settings = TunnelSettings(65536, 100, 5000, 1 << 20)
        port = uplink.connect.port
        await uplink.apply(connect_to(port, 3, "y.example"), RouteTable([]), settings, 2.0)
        await until(lambda: len(uplink.tunnels()) == 3)
        assert dmz.logins[-1].services == (Match(host="y.example"),)
        reader = dmz.links[0][0]
        kinds = []
        while FRAME_CONTROL not in kinds:
            length, kind, *_ = FRAME.unpack(await reader.readexactly(FRAME.size))
            payload = await reader.readexactly(length)
            kinds.append(kind)
        assert b"y.example" in payload
        await uplink.apply(connect_to(port, 1, "y.example"), RouteTable([]), settings, 2.0)
        assert len(uplink.tunnels()) == 1
        assert len(uplink.parting) == 2

    with_uplink(test, tunnels=2)


@pytest.mark.usefixtures("at_once")
def test_a_drained_uplink_dials_no_more():
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        uplink.start()
        await until(lambda: uplink.ready)
        await uplink.drain("the test says so")
        assert not uplink.ready
        assert len(uplink.parting) == 1
        dmz.links[0][1].close()
        await until(lambda: not uplink.parting)
        assert len(dmz.logins) == 1

    with_uplink(test)


def test_stopping_while_a_try_is_under_way():
    async def test(dmz: FakeDmz, uplink: Uplink) -> None:
        dmz.answers = [b"HTTP/1.1 101 Switching"] * 2
        uplink.start()
        await until(lambda: len(dmz.logins) == 2)

    with_uplink(test, tunnels=2)


def test_a_name_is_dialled_at_all_its_addresses(monkeypatch):
    """The first address does not answer; the next one is tried beside it."""

    async def main() -> None:
        dmz = FakeDmz()
        port = await dmz.start()
        reactor = Reactor(asyncio.get_running_loop())
        reactor.start()

        async def resolve(_, port, **__):
            # 192.0.2.1 is for documentation: nothing answers there, or at once that nothing can.
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
                for address in ("192.0.2.1", "127.0.0.1")
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
        uplink = uplink_to(reactor, connect_to(port, 1, "x.example", host="dmz.example"))
        uplink.start()
        await until(lambda: uplink.ready)
        await uplink.stop()
        await dmz.close()
        reactor.close()

    run(main(), "asyncio")
