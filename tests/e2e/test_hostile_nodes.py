"""A DMZ node in the attacker's hands, against a real agent.

The green node trusts it with nothing: what the agent does not offer is not reached, whatever the frames say, and
what is smuggled in heads, bodies and trailers reaches no service. The agent's memory stays bounded, and requests
that come through an honest node are served all the time.
"""

# ruff: noqa: E501

import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import msgpack
import pytest

from tests.e2e.hostile import assert_unharmed, neighbour, resident
from tests.harness.message import Closed
from tests.harness.nodes import Agent, DmzNode, World
from tests.harness.origin import Origin
from tests.harness.peer import (
    ACCEPTOR,
    CONTROL,
    DATA,
    END,
    GOAWAY,
    OPEN,
    PING,
    REPLY,
    RESET,
    TRAILERS,
    WINDOW,
    HandNode,
    Link,
    frame,
    open_payload,
    parse_goaway,
    parse_reset,
    reply_payload,
    reset_payload,
    stream_id,
)
from tests.harness.waiting import wait_until

TUNNELS = 40  # of the agent to the hostile node; nearly every test ruins one
GROWTH = 48 << 20  # bytes that the agent may grow by under any of this
PROTOCOL, FLOW_CONTROL, NO_SERVICE, BAD_REQUEST = 1, 2, 6, 10


class Attacked:
    """A tunnel of the agent, and the streams that were opened in it."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.slots = 0

    def open(self, head: bytes, body: bytes = b"", flags: int = END, kind: int = 1) -> int:
        """In a slot of its own."""
        stream = stream_id(self.slots, 1, True)
        self.slots += 1
        self.link.send_frame(OPEN, stream, open_payload(head, body, kind), flags)
        return stream

    def expect_reset(self, stream: int) -> int:
        """The code of this stream's RESET."""
        got = self.link.expect(RESET)
        assert got.stream == stream, got
        return parse_reset(got.payload)[0]


@dataclass
class Scene:
    dmz: DmzNode
    agent: Agent
    origin: Origin
    node: HandNode
    links: list[Link]

    def tunnel(self) -> Attacked:
        """One that nobody has used yet."""
        return Attacked(self.links.pop())


@pytest.fixture(scope="module")
def shared(module_world: World) -> Iterator[Scene]:
    """An agent with one service, a public path of it and a name, at an honest and at a hostile node."""
    origin = module_world.origin()
    dmz = module_world.dmz()
    with HandNode() as node:
        agent = module_world.agent(
            [dmz.registration_url(), node.url],
            [
                {"match": "a", "upstream": origin.url},
                {"match": "b/public", "upstream": origin.url},
                {"name": "redis", "upstream": origin.tcp_url},
            ],
            extra={
                "connect": [
                    {"url": dmz.registration_url(), "tunnels": 1},
                    {"url": node.url, "tunnels": TUNNELS},
                ]
            },
            start=False,
        )
        agent.start(ready=False)
        dmz.wait_agents(1)
        # All at once: an agent whose tunnels live only shortly waits longer and longer between them.
        yield Scene(dmz, agent, origin, node, [node.accept() for _ in range(TUNNELS)])
        for link in node.links:
            link.close()  # or the agent would wait for the streams in them
        agent.stop()


@pytest.fixture
def scene(shared: Scene, module_world: World) -> Iterator[Scene]:
    before = resident(shared.agent)
    with neighbour(shared.dmz.external) as answered:
        yield shared
        seen = answered()
        wait_until(lambda: answered() > seen, "the neighbour is still served")
    grown = resident(shared.agent) - before
    assert grown < GROWTH, f"grown by {grown:,} bytes"
    shared.origin.raise_errors()
    assert not shared.origin.received(b"/smuggled")
    assert not shared.origin.received(b"/admin")
    assert_unharmed(module_world)


# --- what may be reached ---------------------------------------------------------------------------------------

NOT_OFFERED = [
    (b"c", b"/"),
    (b"b", b"/admin"),
    (b"b", b"/"),
    (b"b", b"/publicity"),
    (b"b", b"/PUBLIC/admin"),
    (b"127.0.0.1", b"/admin"),
    (b"169.254.169.254", b"/admin"),
    (b"[::1]", b"/admin"),
    (b"x.a", b"/admin"),
    (b"a.x", b"/admin"),
]
# Some reading of these paths leads out of /public.
WAYS_OUT = [
    b"/public/../admin",
    b"/public/./../admin",
    b"/public/..",
    b"/public/x/../../admin",
    b"/public/%2e%2e/admin",
    b"/public/%2E./admin",
    b"/public/.%2e/admin",
    b"/public/%252e%252e/admin",
    b"/public/..%2fadmin",
    b"/public/..%5cadmin",
    b"/public%2f..%2fadmin",
    b"/public/..;/admin",
    b"/public/..;x=y/admin",
    b"/public;/../admin",
    b"/public//../../admin",
    b"//public/../admin",
    b"/public/%c0%ae%c0%ae/../../admin",
    b"/x/../public/../admin",
    b"/admin/../public",
    b"/admin/..%2fpublic",
    b"/admin/%2e%2e/public",
    b"/admin/..;/public",
]


@pytest.mark.parametrize("via", ["hostile node", "honest node"])
def test_a_path_does_not_lead_out_of_its_service(scene: Scene, via: str) -> None:
    """The same paths, from the attacker's own node and from a client of an honest one."""
    attacked = scene.tunnel() if via == "hostile node" else None
    for path in WAYS_OUT:
        if attacked is not None:
            stream = attacked.open(b"GET " + path + b" HTTP/1.1\r\nHost: b\r\n\r\n")
            assert attacked.expect_reset(stream) in (BAD_REQUEST, NO_SERVICE), path
        else:
            assert scene.dmz.fetch(path.decode(), host="b").status in (400, 404), path


def test_only_what_is_offered_is_reached(scene: Scene) -> None:
    attacked = scene.tunnel()
    for host, path in NOT_OFFERED:
        stream = attacked.open(b"GET " + path + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
        assert attacked.expect_reset(stream) == NO_SERVICE, (host, path)
    for name in [
        b"",
        b"postgres",
        b"127.0.0.1:22",
        b"redis\0",
        b"REDIS",
        b"tls/a",
        b"tls/",
        b"a",
        b"../redis",
        b"x" * 70000,
    ]:
        stream = attacked.open(name, kind=2, flags=0)
        assert attacked.expect_reset(stream) == NO_SERVICE, name
    stream = attacked.open(b"GET /public/ok HTTP/1.1\r\nHost: b:8080\r\n\r\n")
    assert attacked.link.expect(REPLY).stream == stream
    assert scene.origin.requests_for("/public/ok")


# --- what is smuggled in a head ------------------------------------------------------------------------------------

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
SECOND = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
HEADS = [
    (GET + b"\r\n" + SECOND, "two heads"),
    (GET + b"\r\nx", "a byte behind the head"),
    (GET, "no empty line"),
    (b"", "nothing"),
    (GET + b"X: a\r\n\r\n\r\n", "two empty lines"),
    (GET + b"X: a\rGET /smuggled HTTP/1.1\r\n\r\n", "a bare CR"),
    (GET + b"X: a\nGET /smuggled HTTP/1.1\r\n\r\n", "a bare LF"),
    (GET + b"X: a\r\n b\r\n\r\n", "a folded field"),
    (GET + b"X: \0\r\n\r\n", "a NUL"),
    (GET + b"X : a\r\n\r\n", "a space before a colon"),
    (GET + b"Connection: close\r\n\r\n", "Connection"),
    (GET + b"Connection: X\r\nX: a\r\n\r\n", "a field that Connection names"),
    (GET + b"Keep-Alive: 5\r\n\r\n", "Keep-Alive"),
    (GET + b"Proxy-Connection: close\r\n\r\n", "Proxy-Connection"),
    (GET + b"TE: trailers\r\n\r\n", "TE"),
    (GET + b"Upgrade: h2c\r\n\r\n", "Upgrade"),
    (GET + b"HTTP2-Settings: AA\r\n\r\n", "HTTP2-Settings"),
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", "both framings"),
    (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n", "two lengths"),
    (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", "another coding"),
    (POST + b"Transfer-Encoding: chunked \r\n\r\n", "a space behind chunked"),
    (GET + b"Host: b\r\n\r\n", "two hosts"),
    (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "two hosts, one of them in the target"),
    (b"GET / HTTP/1.1\r\n\r\n", "no host"),
    (b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT"),
    (b"PRI * HTTP/2.0\r\n\r\n", "the HTTP/2 preface"),
    (b"GET /\r\n", "HTTP/0.9"),
    (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", "a space in the target"),
    (b"\r\n\r\n" + GET + b"\r\n", "empty lines first"),
    (b"HTTP/1.1 200 OK\r\n\r\n", "a response"),
]


def test_heads_are_read_as_strictly_as_a_strangers(scene: Scene) -> None:
    attacked = scene.tunnel()
    for head, why in HEADS:
        stream = attacked.open(head)
        assert attacked.expect_reset(stream) == BAD_REQUEST, why


# --- what is smuggled in a body ---------------------------------------------------------------------------------------

LENGTH = POST.replace(b" / ", b" /body ") + b"Content-Length: 5\r\n\r\n"
CHUNKED = POST.replace(b" / ", b" /body ") + b"Transfer-Encoding: chunked\r\n\r\n"
NONE = POST.replace(b" / ", b" /held ") + b"\r\n"
BODIES: list[tuple[str, bytes, list[tuple[int, bytes, int]]]] = [
    ("more than the length", LENGTH, [(DATA, b"hello" + SECOND, END)]),
    ("more than the length, in another frame", LENGTH, [(DATA, b"hell", 0), (DATA, b"o" + SECOND, END)]),
    ("less than the length", LENGTH, [(DATA, b"hell", END)]),
    ("a body that was not announced", NONE, [(DATA, SECOND, END)]),
    ("trailers with a request in them", CHUNKED, [(DATA, b"x", 0), (TRAILERS, b"\r\n" + SECOND, 0)]),
    ("trailers with a request behind them", CHUNKED, [(TRAILERS, b"X: a\r\n\r\n" + SECOND, 0)]),
    ("trailers with a bare LF", CHUNKED, [(TRAILERS, b"X: a\n\n" + SECOND, 0)]),
    ("trailers that end a chunk", CHUNKED, [(TRAILERS, b"0\r\n\r\n" + SECOND, 0)]),
    ("trailers that frame", CHUNKED, [(TRAILERS, b"Content-Length: 5\r\n", 0)]),
    ("trailers that route", CHUNKED, [(TRAILERS, b"Host: b\r\n", 0)]),
    ("trailers of a body with a length", LENGTH, [(DATA, b"hell", 0), (TRAILERS, b"X: a\r\n", 0)]),
]


def test_bodies_reach_no_service_as_anything_else(scene: Scene) -> None:
    whole: list[str] = []
    scene.origin.on(
        "/body", lambda connection, head: (connection.read_body(head), whole.append(head.start))[-1]
    )
    scene.origin.on("/held", lambda connection, _: connection.reader.drain())
    attacked = scene.tunnel()
    for why, head, frames in BODIES:
        stream = attacked.open(head, flags=0)
        for kind, payload, flags in frames:
            attacked.link.send_frame(kind, stream, payload, flags)
        assert attacked.expect_reset(stream) == PROTOCOL, why
    assert not whole


def test_a_body_of_the_first_frame_is_held_against_its_length_too(scene: Scene) -> None:
    attacked = scene.tunnel()
    stream = attacked.open(LENGTH, b"hello" + SECOND)
    assert attacked.expect_reset(stream) == PROTOCOL
    stream = attacked.open(NONE, SECOND)
    assert attacked.expect_reset(stream) == PROTOCOL


# --- broken rules, floods ------------------------------------------------------------------------------------------------

BROKEN: list[tuple[str, int, Callable[[Attacked], None]]] = [
    ("OPEN twice", PROTOCOL, lambda a: a.link.send(frame(OPEN, stream_id(0, 1, True), open_payload(CHUNKED)) * 2)),
    ("OPEN with the agent's bit", PROTOCOL, lambda a: a.link.send_frame(OPEN, stream_id(0, 1), open_payload(GET))),
    ("OPEN beyond the agent's streams", PROTOCOL,
     lambda a: a.link.send_frame(OPEN, ACCEPTOR | 1 << 16 | 65535, open_payload(GET))),
    ("OPEN of an unknown kind", PROTOCOL, lambda a: a.link.send_frame(OPEN, stream_id(0, 1, True), open_payload(GET, kind=9))),
    ("OPEN with a head of 4 GiB", PROTOCOL,
     lambda a: a.link.send_frame(OPEN, stream_id(0, 1, True), struct.pack(">BBHI", 1, 0, 0, 2**32 - 1) + GET)),
    ("OPEN beyond the window", FLOW_CONTROL,
     lambda a: a.link.send_frame(OPEN, stream_id(0, 1, True), open_payload(CHUNKED, b"x" * 1_000_000))),
    ("REPLY of a stream that the node has opened", PROTOCOL,
     lambda a: a.link.send_frame(REPLY, a.open(CHUNKED, flags=0), reply_payload(b"HTTP/1.1 200 OK\r\n\r\n"))),
    ("DATA behind the end", PROTOCOL, lambda a: a.link.send_frame(DATA, a.open(b"redis", kind=2), b"x")),
    ("DATA beyond the window", FLOW_CONTROL,
     lambda a: a.link.send(frame(DATA, a.open(CHUNKED, flags=0), b"x" * 65536) * 24)),
    ("WINDOW that overflows", FLOW_CONTROL,
     lambda a: a.link.send(frame(WINDOW, a.open(CHUNKED, flags=0), struct.pack(">I", 2**31 - 1)) * 2)),
    ("a frame of 4 GiB", PROTOCOL, lambda a: a.link.send(frame(OPEN, stream_id(0, 1, True), length=2**32 - 1))),
    ("an unknown type", PROTOCOL, lambda a: a.link.send_frame(77)),
]  # fmt: skip


def last_words(link: Link) -> tuple[int, str] | None:
    """The GOAWAY before the end of the tunnel, if it has come through."""
    goaway = None
    with suppress(Closed, ConnectionError):
        while True:
            got = link.receive()
            goaway = parse_goaway(got.payload) if got.type == GOAWAY else goaway
    return goaway


@pytest.mark.parametrize(("why", "code", "play"), BROKEN, ids=[why for why, _, _ in BROKEN])
def test_a_broken_rule_ends_the_tunnel(
    scene: Scene, why: str, code: int, play: Callable[[Attacked], None]
) -> None:
    scene.origin.on("/body", lambda connection, head: (connection.read_body(head), connection.answer())[-1])
    attacked = scene.tunnel()
    with suppress(BrokenPipeError, ConnectionResetError):
        play(attacked)
    goaway = last_words(attacked.link)
    # It may be lost: the agent closes while more of ours is on its way, and the kernel answers that with a reset.
    assert goaway is None or goaway[0] == code


def flood(attacked: Attacked, data: bytes, total: int) -> None:
    """Send without reading, until the agent ends the tunnel, stops reading, or `total` bytes have gone."""
    attacked.link.sock.settimeout(1)
    sent = 0
    with suppress(OSError):
        while sent < total:
            attacked.link.sock.sendall(data)
            sent += len(data)


def lap(generation: int, head: bytes, reset: bool) -> bytes:
    """Streams in 100 slots, each reset at once or left alone."""
    parts = []
    for slot in range(100):
        stream = stream_id(slot, generation, True)
        parts.append(frame(OPEN, stream, open_payload(head), 0 if reset else END))
        if reset:
            parts.append(frame(RESET, stream, reset_payload(0)))
    return b"".join(parts)


FLOODS: list[tuple[str, Callable[[Attacked], None]]] = [
    ("OPEN and RESET, 20,000 times", lambda a: flood(a, b"".join(lap(n, CHUNKED, True) for n in range(1, 201)), 1)),
    ("streams that lead nowhere", lambda a: flood(a, b"".join(lap(n, b"GET / HTTP/1.1\r\nHost: c\r\n\r\n", False) for n in range(1, 201)), 1)),
    ("names that lead nowhere, and resets", lambda a: flood(a, b"".join(lap(n, b"x", True) for n in range(1, 201)), 1)),
    ("PINGs whose answers nobody reads", lambda a: flood(a, frame(PING, 0, b"12345678") * 5000, 8 << 20)),
    ("GOAWAY again and again", lambda a: flood(a, frame(GOAWAY, 0, bytes(4)) * 5000, 2 << 20)),
    ("refusals of services", lambda a: flood(a, frame(CONTROL, 0, refusals()) * 50, 16 << 20)),
    ("CONTROL nested without end", lambda a: flood(a, frame(CONTROL, 0, b"\x91" * 200_000), 16 << 20)),
    ("answers that nobody reads", lambda a: [a.open(GET + b"X: " + b"y" * 4000 + b"\r\n\r\n") for _ in range(500)][:0] and None),
    ("a megabyte that never ends", lambda a: a.link.send(frame(OPEN, stream_id(0, 1, True), b"x" * 1179647, length=1179648))),
]  # fmt: skip


def refusals() -> bytes:
    packed = msgpack.packb(
        {
            "type": "refused",
            "services": [{"match": f"s{i}", "code": "forbidden", "reason": "x" * 100} for i in range(1000)],
        }
    )
    assert isinstance(packed, bytes)
    return packed


@pytest.mark.parametrize(("why", "play"), FLOODS, ids=[why for why, _ in FLOODS])
def test_floods_cost_bounded_memory(scene: Scene, why: str, play: Callable[[Attacked], None]) -> None:
    attacked = scene.tunnel()
    with suppress(OSError, Closed):
        play(attacked)
    assert scene.dmz.fetch("/canary/0", host="a").status == 200


# --- answers to the agent's login -------------------------------------------------------------------------------------------

ANSWERS = [
    (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: broker-tunnel\r\n\r\n", "no parameters"),
    (b"HTTP/1.1 101 x\r\n" + b"X: a\r\n" * 100_000, "a bomb of fields"),
    (b"HTTP/1.1 101 x\r\nX: " + b"a" * 2_000_000, "a field without end"),
    (
        b"HTTP/1.1 401 x\r\nContent-Length: 99999999999999999999\r\nBroker-Error: a\r\n\r\n" + b"x" * 100_000,
        "an endless refusal",
    ),
    (
        b"HTTP/1.1 503 x\r\nRetry-After: 99999\r\nBroker-Error: x\x1b[2J\r\nContent-Length: 0\r\n\r\n",
        "a terminal escape",
    ),
    (b"\x16\x03\x01\x00\x05hello", "TLS"),
    (b"\0" * 100_000, "NULs"),
]


def test_answers_to_a_login_that_make_no_sense(world: World) -> None:
    """The agent gives each of them up at once, says so, and tries again later."""
    with HandNode() as node:
        agent = world.agent(
            node.url, [{"match": "/", "upstream": "http://127.0.0.1:9"}], len(ANSWERS), start=False
        )
        agent.start(ready=False)
        before = None
        for answer, why in ANSWERS:
            link, _ = node.accept_raw()
            before = before or resident(agent)
            with suppress(OSError):
                link.send(answer)
            with suppress(ConnectionResetError):
                assert not link.reader.drain(), why
        assert before is not None and resident(agent) - before < GROWTH
        assert "\x1b" not in agent.process.output
        agent.stop()
