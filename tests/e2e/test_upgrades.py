"""Changes of protocol: what may pass, how, and how it ends. The bytes after the 101 are anybody's."""

import contextlib
import json
import threading
from collections.abc import Iterator

import pytest

from tests.harness.client import Fields, RawClient, request_head
from tests.harness.message import Head
from tests.harness.nodes import DmzNode, Pair, World, everything, loopback, merge
from tests.harness.origin import Connection, Origin, pattern
from tests.harness.peer import (
    DATA,
    END,
    OPEN,
    REPLY,
    RESET,
    HandAgent,
    HandNode,
    open_payload,
    parse_open,
    parse_reply,
    parse_reset,
    reply_payload,
    stream_id,
)
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until

ASK = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
]
SWITCH = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-Seen: yes\r\n\r\n"
)
MIB = 1 << 20


def echo_upper(connection: Connection, _head: Head) -> bool:
    """Switches, and sends back in capitals what comes, to the end."""
    connection.send(SWITCH)
    while piece := connection.reader.some():
        connection.send(piece.upper())
    return True


class Place:
    """Where requests go: through the tunnel, or to a local service of the DMZ node."""

    def __init__(self, dmz: DmzNode, origin: Origin, prefix: str) -> None:
        self.dmz, self.origin, self.prefix = dmz, origin, prefix

    def on(self, name: str, script: object) -> str:
        return self.origin.on(f"{self.prefix}/{name}", script)  # type: ignore[arg-type]

    def upgrade(self, target: str, fields: Fields = ASK, early: bytes = b"") -> RawClient:
        """A client that has sent its request, and `early` behind it."""
        client = self.dmz.client()
        client.send(request_head("GET", target, [("Host", "test.example"), *fields]) + early)
        return client


@pytest.fixture(scope="module")
def places(module_world: World) -> dict[str, Place]:
    local, remote = module_world.origin("local"), module_world.origin("remote")
    dmz = module_world.dmz({"services": [{"match": "/local", "upstream": local.url}]})
    module_world.agent(dmz.registration_url(), [everything(remote)])
    return {"local": Place(dmz, local, "/local"), "tunnel": Place(dmz, remote, "/remote")}


@pytest.fixture(params=["tunnel", "local"])
def place(request: pytest.FixtureRequest, places: dict[str, Place]) -> Iterator[Place]:
    chosen = places[request.param]
    yield chosen
    chosen.origin.raise_errors()


@pytest.mark.quick
def test_an_upgrade_passes_with_what_belongs_to_it(place: Place) -> None:
    target = place.on("plain", echo_upper)
    with place.upgrade(target) as client:
        answer = client.read_head()
        assert (answer.status, answer.headers["X-Seen"]) == (101, "yes")
        assert answer.headers.tokens("Connection") == ["upgrade"]
        assert answer.headers["Upgrade"] == "websocket"
        client.send(b"hello")
        assert client.reader.exactly(5) == b"HELLO"
        client.end_sending()
        client.expect_closed()
    seen = place.origin.requests_for(target)[-1]
    assert seen.headers["Upgrade"] == "websocket" and seen.headers.tokens("Connection") == ["upgrade"]
    assert seen.headers["Sec-WebSocket-Key"] == dict(ASK)["Sec-WebSocket-Key"]
    assert "Content-Length" not in seen.headers and "Transfer-Encoding" not in seen.headers


def test_bytes_before_the_101_are_held_and_not_lost(place: Place) -> None:
    """The service sees nothing of them before it has agreed; then it sees all."""
    early = pattern(300_000)
    agreed = threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.sock.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            raise AssertionError(f"bytes before the 101: {connection.reader.some()[:100]!r}")
        connection.sock.settimeout(20)
        connection.send(SWITCH)
        connection.wait(agreed)
        assert connection.reader.exactly(len(early)) == early
        connection.send(b"all")
        return True

    with place.upgrade(place.on("early", script)) as client:
        sender = threading.Thread(target=client.send, args=(early,))
        sender.start()
        assert client.read_head().status == 101
        agreed.set()
        assert client.reader.exactly(3) == b"all"
        sender.join()


def test_bytes_of_the_service_right_behind_its_101(place: Place) -> None:
    def script(connection: Connection, _head: Head) -> bool:
        connection.send(SWITCH + b"first words")
        return True

    with place.upgrade(place.on("behind", script)) as client:
        assert client.read_head().status == 101
        assert client.read_to_end() == b"first words"


@pytest.mark.quick
def test_many_megabytes_both_ways_at_once(place: Place) -> None:
    """Backpressure is that of every stream: neither side needs to be faster than the other."""
    up, down = pattern(24 * MIB, seed=1), pattern(24 * MIB, seed=2)

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(SWITCH)
        sender = threading.Thread(target=connection.send, args=(down,))
        sender.start()
        assert connection.reader.exactly(len(up)) == up
        sender.join()
        return True

    with place.upgrade(place.on("bulk", script)) as client:
        assert client.read_head().status == 101
        sender = threading.Thread(target=client.send, args=(up,))
        sender.start()
        assert client.reader.exactly(len(down)) == down
        sender.join()
        client.end_sending()
        client.expect_closed()


@pytest.mark.quick
@pytest.mark.parametrize("first", ["client", "service"])
def test_each_direction_ends_for_itself(place: Place, first: str) -> None:
    """Half-close: who has ended may still be told something, for as long as it takes."""
    ended = threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(SWITCH)
        if first == "client":
            assert connection.reader.drain() == b"from the client"
            connection.send(b"from the service")
        else:
            connection.send(b"from the service")
            connection.sock.shutdown(1)
            ended.set()
            assert connection.reader.drain() == b"from the client"
        return True

    with place.upgrade(place.on(f"half-{first}", script)) as client:
        assert client.read_head().status == 101
        if first == "client":
            client.send(b"from the client")
            client.end_sending()
            assert client.read_to_end() == b"from the service"
        else:
            assert client.read_to_end() == b"from the service"
            assert ended.wait(20)
            client.send(b"from the client")
    wait_until(lambda: not place.origin.open_connections, "the service's connection is over")


@pytest.mark.parametrize("first", ["client", "service"])
def test_a_reset_passes(place: Place, first: str) -> None:
    """What was cut does not look ended, on the other side neither."""
    seen: list[str] = []

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(SWITCH)
        assert connection.reader.exactly(2) == b"go"
        if first == "service":
            connection.reset()
            return True
        try:
            connection.reader.drain()
            seen.append("ended")
        except ConnectionResetError:
            seen.append("reset")
        return True

    with place.upgrade(place.on(f"reset-{first}", script)) as client:
        assert client.read_head().status == 101
        client.send(b"go")
        if first == "client":
            wait_until(lambda: place.origin.received(b"go"), "it arrived")
            client.reset()
        else:
            with pytest.raises(ConnectionResetError):
                client.reader.drain()
    if first == "client":
        wait_until(lambda: seen, "the service was told")
        assert seen == ["reset"]


def test_a_service_that_declines_answers_as_always(place: Place) -> None:
    """An ordinary answer to a request for an upgrade; the connection goes on with ordinary requests."""

    def declines(connection: Connection, _head: Head) -> None:
        connection.answer(426, b"no websocket here", reason="Upgrade Required")

    def streams(connection: Connection, _head: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")

    places = {
        place.on("declines", declines): (426, b"no websocket here"),
        place.on("streams", streams): (200, b"abc"),
    }
    with place.dmz.client() as client:
        for _ in range(3):
            for target, expected in places.items():
                response = client.request(target=target, fields=ASK)
                assert (response.status, response.body) == expected
            assert json.loads(client.request(target=f"{place.prefix}/next").body)["size"] == 0


def test_pipelined_behind_an_upgrade_that_is_declined(place: Place) -> None:
    with place.dmz.client() as client:
        head = [("Host", "a"), *ASK]
        target = f"{place.prefix}/pipelined"
        client.send(request_head("GET", target, head) + request_head("GET", target + "2", [("Host", "a")]))
        assert json.loads(client.read_response().body)["start"] == f"GET {target} HTTP/1.1"
        assert json.loads(client.read_response().body)["start"] == f"GET {target}2 HTTP/1.1"


# --- what does not pass -----------------------------------------------------------------------

NOT_ALLOWED = {
    "h2c": [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", "h2c"), ("HTTP2-Settings", "AAMAAABk")],
    "another": [("Connection", "Upgrade"), ("Upgrade", "foo/2")],
    "not named by Connection": [("Upgrade", "websocket")],
    "Connection without Upgrade": [("Connection", "upgrade")],
    "twice": [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Upgrade", "foo")],
    "with a body": [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Content-Length", "3")],
}


@pytest.mark.quick
@pytest.mark.parametrize("name", NOT_ALLOWED)
def test_what_is_not_allowed_goes_on_as_an_ordinary_request(place: Place, name: str) -> None:
    """RFC 9110 7.8: an Upgrade may be ignored. Nothing of it reaches the service."""
    with place.dmz.client() as client:
        fields = NOT_ALLOWED[name]
        client.send(request_head("GET", f"{place.prefix}/ignored", [("Host", "a"), *fields]))
        if name == "with a body":
            client.send(b"abc")
        seen = json.loads(client.read_response().body)
        names = {key.lower() for key, _ in seen["fields"]}
        assert not names & {"upgrade", "connection", "http2-settings"}, seen["fields"]
        assert client.request(target=f"{place.prefix}/next").status == 200


def test_of_a_list_the_allowed_protocol_is_asked_for(place: Place) -> None:
    target = place.on("list", echo_upper)
    fields = [("Connection", "keep-alive, upgrade"), ("Upgrade", "h2c, WebSocket , foo/1")]
    with place.upgrade(target, fields) as client:
        assert client.read_head().status == 101
    assert place.origin.requests_for(target)[-1].headers["Upgrade"] == "WebSocket"


BAD_SWITCHES = {
    "unasked": ([], SWITCH),
    "to another protocol": (ASK, SWITCH.replace(b"websocket", b"h2c")),
    "to several": (ASK, SWITCH.replace(b"websocket", b"websocket, foo")),
    "without saying to what": (ASK, SWITCH.replace(b"Upgrade: websocket\r\n", b"")),
    "without Connection": (ASK, SWITCH.replace(b"Connection: Upgrade\r\n", b"")),
    "with a length": (ASK, SWITCH.replace(b"X-Seen: yes", b"Content-Length: 5")),
}


@pytest.mark.quick
@pytest.mark.parametrize("name", BAD_SWITCHES)
def test_a_101_that_nobody_asked_for(place: Place, name: str) -> None:
    """502, nothing of what follows it reaches the client, and the service's connection is used no more."""
    fields, raw = BAD_SWITCHES[name]
    ended = threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(raw + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        with contextlib.suppress(ConnectionError):
            assert connection.reader.drain() == b""
        ended.set()
        return True

    target = place.on(f"bad-{list(BAD_SWITCHES).index(name)}", script)
    with place.dmz.client() as client:
        assert_problem(client.request(target=target, fields=fields), 502, "upstream-protocol", "sent")
        assert json.loads(client.request(target=f"{place.prefix}/next").body)["size"] == 0
    assert ended.wait(20)


def test_each_place_has_its_own_list(world: World) -> None:
    """A port, a local service over its port, and the agent whatever the DMZ node allows."""
    origin = world.origin()
    for name in ("/port", "/service", "/agent", "/agent-more"):
        origin.on(name, echo_upper)
    dmz = world.dmz(
        {
            "external": [merge({"upgrades": ["foo", "websocket"]}, world_listen())],
            "services": [
                {"match": "/port", "upstream": origin.url},
                {"match": "/service", "upstream": origin.url, "upgrades": ["bar"]},
            ],
        }
    )
    services = [
        {"match": "/agent", "upstream": origin.url},
        {"match": "/agent-more", "upstream": origin.url, "upgrades": ["foo"]},
    ]
    world.agent(dmz.registration_url(), services)
    expected = {
        ("/port", "foo"): 101,
        ("/port", "bar"): 200,
        ("/service", "bar"): 101,
        ("/service", "websocket"): 200,
        ("/agent", "websocket"): 101,
        ("/agent", "foo"): 200,
        ("/agent-more", "foo"): 101,
        ("/agent-more", "websocket"): 200,
        ("/agent-more", "bar"): 200,
    }

    def script(connection: Connection, head: Head) -> bool | None:
        if "Upgrade" not in head.headers:
            return connection.answer()
        connection.send(SWITCH.replace(b"websocket", head.headers["Upgrade"].encode()))
        return True

    origin.default = script
    for (target, protocol), status in expected.items():
        origin.on(target, script)
        with dmz.client() as client:
            client.send_request(target=target, fields=[("Connection", "upgrade"), ("Upgrade", protocol)])
            assert client.read_head().status == status, (target, protocol)


def world_listen() -> dict[str, str]:
    return {"name": "web", "listen": loopback()}


# --- the wire (docs/protocol.md) ----------------------------------------------------------------


@pytest.mark.quick
def test_how_an_upgrade_travels(world: World) -> None:
    """OPEN without END, REPLY with the 101, DATA both ways, END of each direction for itself."""
    dmz = world.dmz()
    with HandAgent(dmz.registration_at(), [{"match": "/"}]) as agent, dmz.client() as client:
        client.send_request(target="/wire", fields=ASK)
        got = agent.expect(OPEN)
        _, head, body = parse_open(got.payload)
        assert not got.flags & END and not body
        assert b"\r\nUpgrade: websocket\r\n" in head and b"\r\nConnection: Upgrade\r\n" in head
        agent.send_frame(REPLY, got.stream, reply_payload(SWITCH, b"hi"))
        assert client.read_head().status == 101
        assert client.reader.exactly(2) == b"hi"
        client.send(b"up")
        data = agent.expect(DATA)
        assert (data.payload, data.flags) == (b"up", 0)
        agent.send_frame(DATA, got.stream, b"down", END)
        assert client.read_to_end() == b"down"
        client.end_sending()
        assert agent.expect(DATA).flags == END


def test_an_agent_that_declines_gets_the_end_of_the_request(world: World) -> None:
    dmz = world.dmz()
    with HandAgent(dmz.registration_at(), [{"match": "/"}]) as agent, dmz.client() as client:
        client.send_request(target="/declined", fields=ASK)
        got = agent.expect(OPEN)
        agent.reply(got.stream, b"ok")
        assert client.read_response().body == b"ok"
        assert agent.expect(DATA).flags == END
        client.send_request(target="/next")
        assert agent.expect(OPEN).flags == END


@pytest.mark.parametrize("head", [SWITCH, SWITCH.replace(b"websocket", b"foo")])
def test_an_agent_that_switches_unasked(world: World, head: bytes) -> None:
    dmz = world.dmz()
    with HandAgent(dmz.registration_at(), [{"match": "/"}]) as agent, dmz.client() as client:
        client.send_request(target="/unasked", fields=[] if b"websocket" in head else ASK)
        got = agent.expect(OPEN)
        agent.send_frame(REPLY, got.stream, reply_payload(head, b"HTTP/1.1 200 OK\r\n\r\n"))
        assert_problem(client.read_response(), 502, "upstream-protocol", "sent")
        assert agent.expect(RESET).stream == got.stream


FORGED = {
    "Connection names more": "Connection: Upgrade, X-A\r\nUpgrade: websocket\r\nX-A: 1\r\n",
    "two Upgrades": "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: foo\r\n",
    "a list": "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
    "Connection alone": "Connection: Upgrade\r\n",
    "Upgrade alone": "Upgrade: websocket\r\n",
    "keep-alive": "Connection: keep-alive\r\n",
    "TE": "TE: trailers\r\n",
}


@pytest.mark.parametrize("name", FORGED)
def test_an_agent_refuses_heads_that_are_not_canonical(world: World, name: str) -> None:
    """A DMZ node that was taken over can't make an agent say what the protocol does not have."""
    origin = world.origin()
    with HandNode() as node:
        agent = world.agent(node.url, [everything(origin)], start=False).start(ready=False)
        link = node.accept()
        head = f"GET /forged HTTP/1.1\r\nHost: a\r\n{FORGED[name]}\r\n".encode()
        link.send_frame(OPEN, stream_id(0, acceptor=True), open_payload(head))
        code, delivery, _ = parse_reset(link.expect(RESET).payload)
        assert (code, delivery) == (10, 0)
        h2c = b"GET /h2c HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
        link.send_frame(OPEN, stream_id(1, acceptor=True), open_payload(h2c))
        reply, _ = parse_reply(link.expect(REPLY).payload)
        assert reply.startswith(b"HTTP/1.1 200 ")
        assert b"Upgrade" not in origin.requests_for("/h2c")[0].raw
        agent.process.terminate()
    assert not origin.received(b"/forged")


# --- time, and the end of a node ------------------------------------------------------------------


@pytest.mark.parametrize("side", ["dmz", "agent"])
def test_an_idle_upgraded_connection_ends(world: World, side: str) -> None:
    """By a timeout of its own, on either side; bytes in one direction keep both alive."""
    limit = {"timeouts": {"upgraded": "1s"}}
    pair = world.pair(dmz=limit if side == "dmz" else None, agent=limit if side == "agent" else None)
    stop = threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(SWITCH)
        for _ in range(8):
            connection.send(b"tick")
            stop.wait(0.3)
        with contextlib.suppress(ConnectionError):
            connection.reader.drain()
        return True

    pair.origin.on("/ticks", script)
    with pair.client() as client:
        client.send_request(target="/ticks", fields=ASK)
        assert client.read_head().status == 101
        assert client.reader.exactly(32) == b"tick" * 8
        assert client.read_to_end() == b""
    wait_until(lambda: not pair.origin.open_connections, "the service was told")


def test_times_for_requests_do_not_count_after_an_upgrade(world: World) -> None:
    times = {"timeouts": {"idle": "300ms", "first_byte": "300ms", "total": "500ms"}}
    pair = world.pair(dmz=times, agent=times)
    pair.origin.on("/long", echo_upper)
    with pair.client() as client:
        client.send_request(target="/long", fields=ASK)
        assert client.read_head().status == 101
        client.expect_silence(1.2)
        client.send(b"still there")
        assert client.reader.exactly(11) == b"STILL THERE"


def test_the_access_log_and_counters_know_upgraded_connections(world: World) -> None:
    pair = world.pair()
    pair.origin.on("/logged", echo_upper)
    with pair.client() as client:
        client.send_request(target="/logged", fields=ASK)
        assert client.read_head().status == 101
        client.send(b"12345")
        assert client.reader.exactly(5) == b"12345"
        client.end_sending()
        client.expect_closed()
    counted = wait_until(
        lambda: [port for port in pair.dmz.status()["external"] if port["statuses"][1]], "it was counted"
    )
    assert (counted[0]["bytes_in"], counted[0]["bytes_out"], counted[0]["active"]) == (5, 5, 0)


def test_an_upgrade_is_not_tried_on_a_connection_that_may_be_closing(pair: Pair) -> None:
    """The service closes idle connections at once; an upgrade has one of its own."""

    def closes(connection: Connection, _head: Head) -> bool:
        connection.answer(body=b"x")
        return True

    pair.origin.on("/closes", closes)
    pair.origin.on("/switch", echo_upper)
    for _ in range(20):
        with pair.client() as client:
            assert client.request(target="/closes").status == 200
            client.send_request(target="/switch", fields=ASK)
            assert client.read_head().status == 101
