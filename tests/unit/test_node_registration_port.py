"""The registration port on real sockets: logins, refusals, and strangers that mean no good."""

import asyncio
import gc
import json
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from _fastpath.http1 import parse_response
from broker.config.model import Addresses, Limits, Match, Penalties, Strangers, Timeouts
from broker.config.model import RegistrationPort as PortConfig
from broker.ports import registration as port_module
from broker.ports.login import Login
from broker.ports.registration import LoginSettings, RegistrationPort, spread_ms
from broker.ports.sockets import bind, close_all
from broker.tunnel.handshake import Registration, read_answer, registration_bytes
from broker.tunnel.messages import announce_bytes
from broker.tunnel.uplink import TunnelSettings
from tests.unit.node_support import (
    FRAME,
    FRAME_CONTROL,
    LOOPS,
    RegistryRig,
    registration,
    run,
    until,
    user,
)

CONFIG = PortConfig(
    scheme="http", host="127.0.0.1", port=0, name="green", limits=Limits(), timeouts=Timeouts()
)


class Rig:
    """A registration port, and clients that speak to it."""

    def __init__(self, deadline_s: float, users: list | None, config: PortConfig) -> None:
        self.changes = 0
        self.registry = RegistryRig(users)
        self.sockets = bind(config, "registration port green")
        self.port = RegistrationPort(
            config,
            self.sockets,
            self.registry.reactor,
            self.registry.registry,
            LoginSettings("dmz-1", deadline_s, TunnelSettings(65536, 0, 5000, 1 << 20)),
            self.count_change,
        )
        self.writers: list[asyncio.StreamWriter] = []

    def count_change(self) -> None:
        self.changes += 1

    async def connect(self, data: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, _, port = self.port.url.removeprefix("http://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        self.writers.append(writer)
        writer.write(data)
        return reader, writer

    async def login(self, wanted: Registration, more: bytes = b"") -> asyncio.StreamReader:
        data, _ = registration_bytes(wanted, "dmz")
        reader, _ = await self.connect(data + more)
        return reader

    async def close(self) -> None:
        self.port.stop()
        close_all(self.sockets)
        await self.registry.close()
        for writer in self.writers:
            writer.close()


def with_port(
    test: Callable[[Rig], Awaitable[None]],
    loop: str = "uvloop",
    deadline_s: float = 10.0,
    users: list | None = None,
    base: PortConfig = CONFIG,
    **strangers: Any,
) -> None:
    config = replace(base, strangers=Strangers(**strangers))

    async def main() -> None:
        rig = Rig(deadline_s, users, config)
        try:
            await test(rig)
        finally:
            await rig.close()
        assert rig.port.logins == 0

    run(main(), loop)


async def answer_of(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, fields and body; the connection must end after it."""
    data = await reader.read(-1)
    head = parse_response(data, 65536, 64)
    assert head is not None, data
    return head.status, {name.lower(): value for name, value in head.headers}, data[head.size :]


@pytest.mark.parametrize("loop", LOOPS)
def test_an_agent_logs_in(loop):
    async def test(rig: Rig) -> None:
        reader = await rig.login(registration("a", 1, 0, "x.example"))
        head = await reader.readuntil(b"\r\n\r\n")
        read = read_answer(head)
        assert read is not None
        acceptance, _ = read
        assert (acceptance.node, acceptance.window, acceptance.streams) == ("dmz-1", 65536, 0)
        assert acceptance.silence_ms == 5000
        await until(lambda: rig.registry.hosts() == {"x.example"})
        assert rig.changes == 1
        length, kind, *_ = FRAME.unpack(await reader.readexactly(FRAME.size))
        assert (length, kind) == (8, 7), "the first frame is a PING"

    with_port(test, loop)


def test_a_login_may_come_in_single_bytes_and_bring_frames_along():
    async def test(rig: Rig) -> None:
        data, _ = registration_bytes(registration("a", 1, 0, "x.example"), "dmz")
        payload = announce_bytes([Match(host="y.example")])
        data += FRAME.pack(len(payload), FRAME_CONTROL, 0, 0, 0) + payload
        reader, writer = await rig.connect()
        for i in range(0, len(data), 1):
            writer.write(data[i : i + 1])
            await writer.drain()
        await reader.readuntil(b"\r\n\r\n")
        await until(lambda: rig.registry.hosts() == {"y.example"})

    with_port(test)


def test_denied_logins_are_not_kept():
    """Whom a trusted proxy speaks for: nothing is left of those that may not log in."""
    here, nobody = (IPv4Network(each) for each in ("127.0.0.1/32", "0.0.0.0/0"))
    denied = Addresses(allow=(IPv4Network("192.0.2.1/32"),), deny=(nobody,))
    config = replace(CONFIG, trusted_proxies=(here,), proxy_protocol=True, addresses=denied)

    async def test(rig: Rig) -> None:
        data, _ = registration_bytes(registration("a", 1, 0, "x.example"), "dmz")
        for _ in range(20):
            reader, writer = await rig.connect(b"PROXY TCP4 203.0.113.1 127.0.0.1 5 6\r\n" + data)
            assert (await answer_of(reader))[0] == 403
            writer.close()
        await until(lambda: rig.port.logins == 0)
        gc.collect()
        assert not [each for each in gc.get_objects() if isinstance(each, Login)]

    with_port(test, base=config)


@pytest.mark.parametrize("loop", LOOPS)
def test_a_refusal_says_why(loop):
    async def test(rig: Rig) -> None:
        reader = await rig.login(registration("a", 1, 0, "x.example", token="nobody"))
        status, fields, body = await answer_of(reader)
        assert status == 401
        assert fields[b"broker-error"] == b"unauthenticated"
        assert fields[b"content-type"] == b"application/problem+json"
        assert fields[b"www-authenticate"].startswith(b"Bearer")
        assert json.loads(body)["code"] == "unauthenticated"
        assert rig.port.refusals == {"unauthenticated": 1}
        await until(lambda: rig.port.logins == 0)

    with_port(test, loop, users=[user("orders", "o.example")])


def test_a_refusal_arrives_although_the_peer_had_more_to_say():
    async def test(rig: Rig) -> None:
        reader, writer = await rig.connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + b"x" * 200_000)
        status, _, body = await answer_of(reader)
        assert status == 426
        assert b"broker connect" in body
        writer.close()
        await until(lambda: rig.port.logins == 0)

    with_port(test)


def test_a_tls_hello_is_closed_without_an_answer():
    async def test(rig: Rig) -> None:
        reader, _ = await rig.connect(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
        assert await reader.read(-1) == b""

    with_port(test)


def test_silent_connections_meet_the_deadline():
    async def test(rig: Rig) -> None:
        silent, _ = await rig.connect()
        slow, _ = await rig.connect(b"GET /tunnel HTTP/1.1\r\nHost: ")
        assert await silent.read(-1) == b""
        status, fields, _ = await answer_of(slow)
        assert (status, fields[b"broker-error"]) == (408, b"request-timeout")

    with_port(test, deadline_s=0.05)


def test_a_head_over_the_limit_is_refused():
    async def test(rig: Rig) -> None:
        reader, _ = await rig.connect(b"GET /tunnel HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 70_000)
        status, fields, _ = await answer_of(reader)
        assert (status, fields[b"broker-error"]) == (431, b"head-too-large")

    with_port(test)


def test_whoever_has_waited_longest_gives_way():
    async def test(rig: Rig) -> None:
        silent = [await rig.connect() for _ in range(20)]
        await until(lambda: rig.port.crowded_out == 12)
        assert rig.port.logins == 8
        for reader, _ in silent[:12]:
            assert await reader.read(-1) == b""
        reader = await rig.login(registration("a", 1, 0, "x.example"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")

    with_port(test, per_address=8)


def test_the_whole_port_is_bounded_too():
    async def test(rig: Rig) -> None:
        for _ in range(20):
            await rig.connect()
        await until(lambda: rig.port.crowded_out == 12)
        assert rig.port.logins == 8

    with_port(test, early=8, most=8)


def test_failures_are_punished_where_no_agent_is():
    everybody = Penalties(exempt=(), threshold=12.0)

    async def test(rig: Rig) -> None:
        wrong = registration("a", 1, 0, "o.example", token="nobody")
        for _ in range(3):
            assert (await answer_of(await rig.login(wrong)))[0] == 401
        status, fields, _ = await answer_of(await rig.login(wrong))
        assert (status, fields[b"broker-error"]) == (429, b"rate-limited")
        assert 0 < int(fields[b"retry-after"]) <= 16
        assert (rig.port.turned_away, rig.port.penalties.punished) == (1, 1)

    with_port(test, users=[user("orders", "o.example")], penalties=everybody)


def test_behind_one_address_a_wrong_agent_harms_no_right_one():
    everybody = Penalties(exempt=(), threshold=12.0)

    async def test(rig: Rig) -> None:
        right = registration("a", 1, 0, "o.example", token="orders")
        reader = await rig.login(right)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        for _ in range(5):
            wrong = registration("a", 1, 0, "o.example", token="nobody")
            assert (await answer_of(await rig.login(wrong)))[0] == 401
        assert rig.port.turned_away == 0

    with_port(test, users=[user("orders", "o.example")], penalties=everybody)


def test_a_client_that_is_gone_leaves_nothing():
    async def test(rig: Rig) -> None:
        for data in (b"", b"GET /tunnel", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
            _, writer = await rig.connect(data)
            await until(lambda: rig.port.logins == 1)
            writer.transport.abort()
            await until(lambda: rig.port.logins == 0)

    with_port(test)


def test_out_of_descriptors_it_pauses_and_comes_back(monkeypatch):
    monkeypatch.setattr(port_module, "PAUSE_S", 0.01)

    class Exhausted:
        """A listener that has no descriptor to give, twice."""

        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock
            self.failures = 2

        def accept(self):
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return self.sock.accept()

        def fileno(self) -> int:
            return self.sock.fileno()

    async def test(rig: Rig) -> None:
        rig.port.stop()
        rig.port._sockets = [Exhausted(sock) for sock in rig.sockets]
        rig.port._resume()
        reader = await rig.login(registration("a", 1, 0, "x.example"))
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert rig.port._sockets[0].failures == 0

    with_port(test, "asyncio")


def test_stop_ends_the_logins_but_not_the_tunnels():
    async def test(rig: Rig) -> None:
        reader = await rig.login(registration("a", 1, 0, "x.example"))
        await reader.readuntil(b"\r\n\r\n")
        silent, _ = await rig.connect()
        await until(lambda: rig.port.logins == 1)
        rig.port.stop()
        assert await silent.read(-1) == b""
        assert rig.registry.registry.tunnels == 1

    with_port(test)


def test_how_far_comebacks_are_spread():
    assert spread_ms(0) == 250
    assert spread_ms(1000) == 2000
    assert spread_ms(100_000) == 5000
