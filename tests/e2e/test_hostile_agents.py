"""Agents that break the protocol, flood, or answer with what should be read in two ways.

Each is a raw socket that registers at a real DMZ node. It costs itself its tunnel, or its own clients an answer
of 502; the node's memory stays bounded, and a neighbour behind an honest agent is served all the time.
"""

# ruff: noqa: E501

import base64
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import msgpack
import pytest

from tests.e2e.hostile import assert_unharmed, neighbour, resident, run_all
from tests.harness.client import RawClient, connect
from tests.harness.message import Closed, Response
from tests.harness.nodes import Pair, World
from tests.harness.peer import (
    CONTROL,
    DATA,
    END,
    GOAWAY,
    INTERIM,
    OPEN,
    PING,
    REPLY,
    RESET,
    TRAILERS,
    WINDOW,
    HandAgent,
    frame,
    open_payload,
    registration_head,
    reply_payload,
    reset_payload,
    stream_id,
)
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until

GROWTH = 48 << 20  # bytes that a node may grow by under any of this
PROTOCOL, FLOW_CONTROL, OVERLOADED = 1, 2, 5
OK = b"HTTP/1.1 200 OK\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nX-Forged: 1\r\nContent-Length: 6\r\n\r\nforged"


@pytest.fixture(scope="module")
def shared(module_world: World) -> Pair:
    """An honest agent for everything but *.evil."""
    return module_world.pair(services=lambda origin: [{"match": "a", "upstream": origin.url}])


@pytest.fixture
def dmz(shared: Pair, module_world: World) -> Iterator[Pair]:
    """The node under attack: the neighbour is served, and memory is bounded."""
    before = resident(shared.dmz)
    with neighbour(shared.address) as answered:
        yield shared
        seen = answered()
        wait_until(lambda: answered() > seen, "the neighbour is still served")
    grown = resident(shared.dmz) - before
    assert grown < GROWTH, f"grown by {grown:,} bytes"
    assert_unharmed(module_world)


names = iter(range(100_000))


@contextmanager
def hostile(pair: Pair, **parameters: object) -> Iterator[tuple[HandAgent, str]]:
    """A tunnel in the attacker's hands, and the host that leads to it."""
    host = f"h{next(names)}.evil"
    with HandAgent(pair.dmz.registration_at(), [{"match": host}], **parameters) as agent:
        yield agent, host


# --- answers -------------------------------------------------------------------------------------------------

Answering = Callable[[HandAgent, int], None]


def replies(*parts: tuple[bytes, bytes, int]) -> Answering:
    """REPLY frames: head, first bytes, flags."""

    def play(agent: HandAgent, stream: int) -> None:
        for head, body, flags in parts:
            agent.send_frame(REPLY, stream, reply_payload(head, body), flags)

    return play


def then(head: bytes, *frames: tuple[int, bytes, int]) -> Answering:
    """A REPLY that goes on, then frames: type, payload, flags."""

    def play(agent: HandAgent, stream: int) -> None:
        agent.send_frame(REPLY, stream, reply_payload(head))
        for kind, payload, flags in frames:
            agent.send_frame(kind, stream, payload, flags)

    return play


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH = OK + b"Content-Length: 4\r\n\r\n"
INTERIM_HEAD = b"HTTP/1.1 103 Early Hints\r\nLink: <%b>\r\n\r\n"

REFUSED: list[tuple[str, Answering]] = [
    ("two heads in one", replies((LENGTH + FORGED, b"", END))),
    ("a head and a body in the head", replies((LENGTH + b"real", b"", END))),
    ("a head without its empty line", replies((OK + b"Content-Length: 0\r\n", b"", END))),
    ("an empty head", replies((b"", b"", END))),
    ("a bare CR in a value", replies((OK + b"X: a\rb\r\nContent-Length: 0\r\n\r\n", b"", END))),
    ("a bare LF in a value", replies((OK + b"X: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n", b"", END))),
    ("a folded field", replies((OK + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n", b"", END))),
    ("a NUL", replies((OK + b"X: \0\r\nContent-Length: 0\r\n\r\n", b"", END))),
    ("both framings", replies((OK + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", b"real", END))),
    ("two lengths", replies((OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\n", b"real", END))),
    ("another coding", replies((OK + b"Transfer-Encoding: gzip\r\n\r\n", b"real", END))),
    ("HTTP/2.0", replies((b"HTTP/2.0 200 OK\r\n\r\n", b"", END))),
    ("a request", replies((b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"", END))),
    ("a status below 100", replies((b"HTTP/1.1 099 x\r\n\r\n", b"", END))),
    ("a 101 nobody asked for",
     replies((b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"", 0))),
    ("a 101 as an interim answer",
     replies((b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", b"", INTERIM))),
    ("a final head as an interim one", replies((LENGTH, b"", INTERIM), (LENGTH, b"real", END))),
    ("an interim head as the final one", replies((b"HTTP/1.1 100 Continue\r\n\r\n", b"", END))),
    ("a hop-by-hop field in an interim answer",
     replies((b"HTTP/1.1 103 x\r\nConnection: close\r\n\r\n", b"", INTERIM), (LENGTH, b"real", END))),
    ("a hop-by-hop field that Connection names in an interim answer",
     replies((b"HTTP/1.1 103 x\r\nConnection: X\r\nX: a\r\n\r\n", b"", INTERIM), (LENGTH, b"real", END))),
    ("a Broker-Error in an interim answer",
     replies((b"HTTP/1.1 103 x\r\nBroker-Error: no-agent\r\n\r\n", b"", INTERIM), (LENGTH, b"real", END))),
    ("two interim heads in one", replies(((INTERIM_HEAD % b"a") * 2, b"", INTERIM), (LENGTH, b"real", END))),
    ("a flood of interim answers",
     lambda agent, stream: agent.send(frame(REPLY, stream, reply_payload(INTERIM_HEAD % (b"a" * 500)), INTERIM) * 2000)),
]  # fmt: skip
CUT: list[tuple[str, Answering]] = [
    ("more than the length", then(LENGTH, (DATA, b"realx", END))),
    ("less than the length", then(LENGTH, (DATA, b"rea", END))),
    ("a second answer in the body", then(LENGTH, (DATA, b"real" + FORGED, END))),
    ("trailers with an answer in them", then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"\r\n" + FORGED, 0))),
    ("trailers with an answer behind them",
     then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"X: a\r\n\r\n" + FORGED + b"\r\n", 0))),
    ("trailers that frame", then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"Content-Length: 9\r\n", 0))),
    ("trailers that speak for the node", then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"Broker-Error: x\r\n", 0))),
    ("trailers with bare LF", then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"X: a\nY: b\r\n", 0))),
    ("trailers without a line end", then(CHUNKED, (DATA, b"real", 0), (TRAILERS, b"X: a", 0))),
    ("a body of 204", then(b"HTTP/1.1 204 No Content\r\n\r\n", (DATA, FORGED, END))),
    ("a reset in the middle", then(LENGTH, (DATA, b"re", 0), (RESET, reset_payload(0), 0))),
]  # fmt: skip


def ask(pair: Pair, play: Answering) -> tuple[Response | None, bytes]:
    """What a client gets of one request to a hostile agent; None: not a whole answer. And what came behind it."""
    with hostile(pair) as (agent, host), RawClient(pair.address, host) as client:
        client.send_request()
        stream, _, _ = agent.accept()
        with suppress(BrokenPipeError, ConnectionResetError):
            play(agent, stream)
        try:
            response = client.read_response()
        except (Closed, ConnectionResetError):
            return None, client.reader.buffered
        with suppress(OSError):
            client.end_sending()
        return response, client.read_to_end()


def test_answers_that_are_refused(dmz: Pair) -> None:
    def check(play: Answering) -> None:
        response, rest = ask(dmz, play)
        assert response is not None
        assert_problem(response, 502, "upstream-protocol")
        assert not rest

    run_all([(why, lambda play=play: check(play)) for why, play in REFUSED])


def test_answers_that_are_cut_off(dmz: Pair) -> None:
    def check(play: Answering) -> None:
        response, rest = ask(dmz, play)
        if response is not None and response.status == 204:
            assert not rest, "a body of 204 got through"
            return
        assert response is None, response
        assert b"X-Forged" not in rest

    run_all([(why, lambda play=play: check(play)) for why, play in CUT])


def test_fields_that_do_not_cross(dmz: Pair) -> None:
    """Hop-by-hop ones, by their names or because Connection names them."""
    lines = b"Connection: X-Own\r\nX-Own: a\r\nKeep-Alive: x\r\n"
    response, rest = ask(dmz, replies((OK + lines + b"Content-Length: 4\r\n\r\n", b"real", END)))
    assert response is not None and response.body == b"real" and not rest
    assert [name for name, _ in response.headers.fields] == ["Content-Length", "Via"]


def test_what_a_client_is_told_of_delivery_is_the_node_s_word(dmz: Pair) -> None:
    """An agent that says `never-sent` makes clients send again what was done: nothing that it says crosses."""
    forged = b"Broker-Error: no-agent\r\nbroker-delivery: never-sent\r\nBroker_Delivery: never-sent\r\n"
    response, _ = ask(dmz, replies((OK + forged + b"Content-Length: 4\r\n\r\n", b"real", END)))
    assert response is not None and response.body == b"real"
    assert [name for name, _ in response.headers.fields] == ["Content-Length", "Via"]


# --- broken rules: the tunnel ends, with a reason, and nobody else's --------------------------------------------

Breaking = Callable[[HandAgent, int], None]
BROKEN: list[tuple[str, int, Breaking]] = [
    ("REPLY twice", PROTOCOL, replies((LENGTH, b"", 0), (LENGTH, b"", 0))),
    ("DATA before REPLY", PROTOCOL, lambda agent, stream: agent.send_frame(DATA, stream, b"x")),
    ("TRAILERS before REPLY", PROTOCOL, lambda agent, stream: agent.send_frame(TRAILERS, stream, b"X: a\r\n")),
    ("a head longer than its frame", PROTOCOL,
     lambda agent, stream: agent.send_frame(REPLY, stream, struct.pack(">I", 2**32 - 1) + b"x")),
    ("DATA beyond the window", FLOW_CONTROL,
     lambda agent, stream: agent.send(frame(REPLY, stream, reply_payload(CHUNKED)) + frame(DATA, stream, b"x" * 65536) * 40)),
    ("a WINDOW that overflows", FLOW_CONTROL,
     lambda agent, stream: agent.send(frame(WINDOW, stream, struct.pack(">I", 2**31 - 1)) * 2)),
    ("a WINDOW of nothing", PROTOCOL, lambda agent, stream: agent.send_frame(WINDOW, stream, bytes(4))),
    ("a stream that was never opened", PROTOCOL,
     lambda agent, stream: agent.send_frame(DATA, stream_id(900, 1, True), b"x")),
    ("OPEN in the node's name", PROTOCOL,
     lambda agent, stream: agent.send_frame(OPEN, stream_id(5, 1, True), open_payload(b"x"))),
    ("OPEN of a slot out of order", PROTOCOL,
     lambda agent, stream: agent.send_frame(OPEN, stream_id(5, 9), open_payload(b"x"))),
    ("a frame of an unknown type", PROTOCOL, lambda agent, stream: agent.send_frame(99)),
    ("a frame that is too long", PROTOCOL, lambda agent, stream: agent.send(frame(DATA, stream, b"", length=2**32 - 1))),
    ("a PING of 9 bytes", PROTOCOL, lambda agent, stream: agent.send_frame(PING, 0, bytes(9))),
    ("CONTROL that is no msgpack", PROTOCOL, lambda agent, stream: agent.send_frame(CONTROL, 0, b"\xc1")),
    ("CONTROL nested without end", PROTOCOL, lambda agent, stream: agent.send_frame(CONTROL, 0, b"\x91" * 200_000)),
    ("maps nested without end", PROTOCOL, lambda agent, stream: agent.send_frame(CONTROL, 0, b"\x81\xa1a" * 80_000)),
    ("an array of 2^32 - 1 elements", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, b"\x81\xa1a\xdd\xff\xff\xff\xff")),
    ("a map of 2^32 - 1 elements", PROTOCOL, lambda agent, stream: agent.send_frame(CONTROL, 0, b"\xdf\xff\xff\xff\xff")),
    ("a text of 2^32 - 1 bytes", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, b"\x81\xa1a\xdb\xff\xff\xff\xff")),
    ("an extension type", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, msgpack.packb({"type": msgpack.ExtType(5, b"x")}))),
    ("a time stamp", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, b"\x81\xa4type\xd6\xff\x00\x00\x00\x00")),
    ("too many services", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, announce([{"match": f"s{i}.evil"} for i in range(2001)]))),
    ("a service that is no text", PROTOCOL,
     lambda agent, stream: agent.send_frame(CONTROL, 0, announce([{"match": 5}]))),
    ("a flood of announcements", OVERLOADED,
     lambda agent, stream: agent.send(frame(CONTROL, 0, announce([{"match": f"s{i}.evil"} for i in range(200)])) * 200)),
]  # fmt: skip


def announce(services: list[dict[str, object]]) -> bytes:
    packed = msgpack.packb({"type": "announce", "services": services})
    assert isinstance(packed, bytes)
    return packed


def test_a_broken_rule_ends_the_tunnel_and_nothing_else(dmz: Pair) -> None:
    def check(code: int, play: Breaking) -> None:
        with hostile(dmz) as (agent, host), RawClient(dmz.address, host) as client:
            client.send_request()
            stream, _, _ = agent.accept()
            with suppress(BrokenPipeError, ConnectionResetError):
                play(agent, stream)
            assert agent.expect_death()[0] == code
            # Its client is told, one way or the other, and is not left waiting.
            with suppress(Closed, ConnectionResetError):
                response = client.read_response()
                assert response.status in (200, 502, 503), response

    run_all([(why, lambda code=code, play=play: check(code, play)) for why, code, play in BROKEN])


# --- floods --------------------------------------------------------------------------------------------------------


def flood(agent: HandAgent, data: bytes, total: int) -> None:
    """Send without reading, until the node ends the tunnel, stops reading, or `total` bytes have gone."""
    agent.sock.settimeout(1)
    sent = 0
    with suppress(OSError):
        while sent < total:
            agent.sock.sendall(data)
            sent += len(data)


def opens(start: int) -> bytes:
    head = b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n"
    return b"".join(frame(OPEN, stream_id(slot, start), open_payload(head), END) for slot in range(100))


FLOODS: list[tuple[str, Callable[[HandAgent], None]]] = [
    ("PINGs whose answers nobody reads", lambda agent: flood(agent, frame(PING, 0, b"12345678") * 5000, 8 << 20)),
    ("answers to PINGs that nobody sent",
     lambda agent: flood(agent, frame(PING, 0, b"12345678", 4) * 5000, 4 << 20)),
    ("streams that lead nowhere, and whose resets nobody reads",
     lambda agent: flood(agent, b"".join(map(opens, range(1, 200))), 1)),
    ("GOAWAY again and again", lambda agent: flood(agent, frame(GOAWAY, 0, bytes(4)) * 2000, 2 << 20)),
    ("CONTROL messages of an unknown type",
     lambda agent: flood(agent, frame(CONTROL, 0, msgpack.packb({"type": "x", "y": "z" * 2000})) * 100, 8 << 20)),
    ("headers of frames whose bytes never come", lambda agent: agent.send(frame(OPEN, stream_id(0, 1), b"", length=1179648))),
    ("a frame of a megabyte, but for one byte",
     lambda agent: agent.send(frame(OPEN, stream_id(0, 1), b"x" * 1179647, length=1179648))),
]  # fmt: skip


@pytest.mark.parametrize(("why", "play"), FLOODS, ids=[why for why, _ in FLOODS])
def test_floods_cost_bounded_memory(dmz: Pair, why: str, play: Callable[[HandAgent], None]) -> None:
    """Eight agents at once; the neighbour does not wait for any of them."""

    def check() -> None:
        with hostile(dmz, streams=100) as (agent, _):
            with suppress(OSError):
                play(agent)
            assert dmz.fetch("/canary/0", host="a").status == 200

    run_all([(why, check) for _ in range(8)])


def test_an_agent_that_reads_nothing_is_a_burden_to_nobody(dmz: Pair) -> None:
    """Requests with bodies to an agent that reads nothing: they wait, by their windows, in little memory."""
    with hostile(dmz, receive_buffer=4096, window=2**31 - 1) as (_, host):
        clients = [RawClient(dmz.address, host) for _ in range(20)]
        for client in clients:
            client.sock.settimeout(0.2)
            head = b"POST / HTTP/1.1\r\nHost: %b\r\nContent-Length: 100000000\r\n\r\n" % host.encode()
            with suppress(OSError):
                client.send(head + b"x" * (8 << 20))
        assert dmz.fetch("/canary/0", host="a").status == 200
        for client in clients:
            client.close()


# --- logins ---------------------------------------------------------------------------------------------------------


def refused_login(pair: Pair, data: bytes) -> int:
    with connect(pair.dmz.registration_at()) as sock:
        sock.sendall(data)
        answer = sock.recv(65536)
        assert answer.startswith(b"HTTP/1.1 "), answer[:100]
        return int(answer[9:12])


def login(parameters: bytes) -> bytes:
    value = base64.urlsafe_b64encode(parameters).rstrip(b"=")
    head = registration_head("a", [])
    start = head.index(b"Broker-Parameters: ") + 19
    return head[:start] + value + head[head.index(b"\r\n", start) :]


LOGINS = [
    ("nested arrays", login(b"\x91" * 30000)),
    ("nested maps", login(b"\x81\xa1a" * 10000)),
    ("an array of 2^32 - 1 elements", login(b"\x81\xa8services\xdd\xff\xff\xff\xff")),
    ("a binary of 2^32 - 1 bytes", login(b"\x81\xa8services\xc6\xff\xff\xff\xff")),
    ("an extension", login(b"\xc7\xff\x05" + b"x" * 255)),
    ("nothing", login(b"")),
    ("two maps", login(b"\x80\x80")),
    ("a folded field", registration_head("a", []).replace(b"\r\nUpgrade", b"\r\n Upgrade", 1)),
    ("a body", registration_head("a", [])[:-2] + b"Content-Length: 5\r\n\r\nhello"),
    ("two parameters", registration_head("a", [])[:-2] + b"Broker-Parameters: gA\r\n\r\n"),
    ("two hosts", registration_head("a", [])[:-2] + b"Host: b\r\n\r\n"),
]


def test_malformed_logins(dmz: Pair) -> None:
    for why, data in LOGINS:
        assert refused_login(dmz, data) == 400, why
    assert refused_login(dmz, registration_head("a", [], index=1024)) == 400
    assert refused_login(dmz, registration_head("a", [], window=2**31)) == 400
    assert refused_login(dmz, registration_head("a", [{"match": "*"}] * 3000)) == 400


def test_logins_that_never_end_keep_nobody_out(dmz: Pair) -> None:
    """More half logins than there is room for: they cost little, and an honest agent gets in."""
    half = registration_head("a", [])[:-2]
    socks = []
    try:
        for _ in range(300):
            sock = connect(dmz.dmz.registration_at())
            socks.append(sock)
            with suppress(OSError):
                sock.sendall(half)
        with hostile(dmz) as (agent, host), RawClient(dmz.address, host) as client:
            client.send_request()
            stream, _, _ = agent.accept()
            agent.reply(stream, b"in")
            assert client.read_response().body == b"in"
    finally:
        for sock in socks:
            sock.close()
