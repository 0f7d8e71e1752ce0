"""The contract's table of answers, row by row: status, code, delivery, body, fate of the connection."""

import socket
import threading
from collections.abc import Iterator

import pytest

from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import Pair, World
from tests.harness.origin import Connection, Origin, refused_port
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.quick

LIMITS = {"head": "2KiB", "headers": 20, "uri": "1KiB", "body": 1000}


@pytest.fixture(scope="module")
def closed_url() -> Iterator[str]:
    with refused_port() as closed:
        yield f"http://127.0.0.1:{closed.getsockname()[1]}"


@pytest.fixture(scope="module")
def shared_pair(module_world: World, closed_url: str) -> Pair:
    """A pair with small limits, quick timeouts and some services that don't work."""
    origin = module_world.origin()
    dmz = module_world.dmz({"limits": LIMITS, "timeouts": {"head": "500ms"}})
    services = [
        {"match": "test.example", "upstream": origin.url},
        {"match": "refused.example", "upstream": closed_url},
        {"match": "unknown.example", "upstream": "http://no-such-name.invalid:80"},
        {"match": "nosocket.example", "upstream": f"unix:{module_world.directory}/missing.sock"},
        {"match": "slow.example", "upstream": origin.url, "timeouts": {"first_byte": "300ms"}},
    ]
    agent = module_world.agent(dmz.registration_url(), services)
    return Pair(dmz, agent, origin)


def assert_kept(client: RawClient) -> None:
    """The connection goes on: another request is answered."""
    assert client.request(target="/next").status == 200


def assert_closed(client: RawClient) -> None:
    client.expect_closed()


def test_400_bad_request(pair: Pair) -> None:
    with pair.client() as client:
        client.send(
            b"GET / HTTP/1.1\r\nHost: a\r\nbad header: x\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        response = client.read_response()
        assert_problem(response, 400, "bad-request", "never-sent")
        assert not response.keeps_open
        assert_closed(client)
    assert not pair.origin.received(b"bad header")


def test_404_no_service(pair: Pair) -> None:
    with pair.client() as client:
        for method in ("GET", "POST"):
            body = b"x" * 500 if method == "POST" else None
            response = client.request(method, "/", [("Host", "nobody.example")], body)
            assert_problem(response, 404, "no-service", "never-sent")
        assert_kept(client)


def test_404_to_head_has_no_body(pair: Pair) -> None:
    with pair.client() as client:
        response = client.request("HEAD", "/", [("Host", "nobody.example")])
        assert (response.status, response.body) == (404, b"")
        assert response.headers["Broker-Error"] == "no-service"
        assert_kept(client)


def test_404_while_the_body_is_still_coming(pair: Pair) -> None:
    """What comes after the answer is skipped, or the connection ends: it is never read as a request."""
    with pair.client() as client:
        client.send_request("POST", "/", [("Host", "nobody.example"), ("Content-Length", "500")])
        response = client.read_response()
        assert_problem(response, 404, "no-service", "never-sent")
        smuggled = b"GET /smuggled HTTP/1.1\r\nHost: test.example\r\n\r\n"
        client.send(smuggled + b"x" * (500 - len(smuggled)))
        if response.keeps_open:
            assert_kept(client)
        else:
            assert_closed(client)
    assert not pair.origin.received(b"/smuggled")


@pytest.mark.parametrize("sent", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nX-Half: "])
def test_408_request_timeout(pair: Pair, sent: bytes) -> None:
    with pair.client() as client:
        client.send(sent)
        response = client.read_response()
        assert_problem(response, 408, "request-timeout", "never-sent")
        assert_closed(client)


def test_408_not_for_a_connection_without_a_request(pair: Pair) -> None:
    """Idle is not late: nothing is answered where nothing was asked."""
    with pair.client() as client:
        assert_kept(client)
        client.expect_silence(0.8)
        assert_kept(client)


def test_413_by_content_length(pair: Pair) -> None:
    with pair.client() as client:
        response = client.request("POST", "/413-length", body=b"x" * 1001)
        assert_problem(response, 413, "body-too-large", "never-sent")
    assert not pair.origin.requests_for("/413-length")
    with pair.client() as client:
        assert client.request("POST", "/413-fits", body=b"x" * 1000).status == 200


def test_413_while_a_chunked_body_grows(pair: Pair) -> None:
    """Only the chunks tell: the service must not take what it got for the whole."""
    whole: list[bool] = []

    def script(connection: Connection, head: Head) -> None:
        connection.read_body(head)
        whole.append(True)
        connection.answer()

    pair.origin.on("/413-chunked", script)
    with pair.client() as client:
        client.send_request("POST", "/413-chunked", [("Transfer-Encoding", "chunked")])
        for _ in range(3):
            client.send(b"190\r\n" + b"x" * 400 + b"\r\n")
        response = client.read_response()
        assert_problem(response, 413, "body-too-large")
        assert response.headers["Broker-Delivery"] != "never-sent" or not pair.origin.requests_for(
            "/413-chunked"
        )
        assert_closed(client)
    assert not whole


def test_414_uri(pair: Pair) -> None:
    with pair.client() as client:
        response = client.request(target="/" + "u" * 1024)
        assert_problem(response, 414, "head-too-large", "never-sent")
        assert_closed(client)
    assert pair.fetch("/" + "u" * 1000).status == 200


def test_414_before_the_line_is_complete(pair: Pair) -> None:
    """The limit holds for what has come, not only for what is finished."""
    with pair.client() as client:
        client.send(b"GET /" + b"u" * 1500)
        response = client.read_response()
        assert response.status in (414, 431)
        assert_problem(response, response.status, "head-too-large", "never-sent")
        assert_closed(client)


@pytest.mark.parametrize(
    "fields",
    [
        [("X-Big", "v" * 2048)],
        [(f"X-{number}", "1") for number in range(30)],
        [(f"X-{number}", "v" * 300) for number in range(10)],
    ],
    ids=["one-field", "many-fields", "sum"],
)
def test_431_head(pair: Pair, fields: list[tuple[str, str]]) -> None:
    with pair.client() as client:
        response = client.request(target="/431", fields=fields)
        assert_problem(response, 431, "head-too-large", "never-sent")
        assert_closed(client)
    assert not pair.origin.requests_for("/431")


@pytest.mark.parametrize("host", ["refused.example", "unknown.example", "nosocket.example"])
def test_502_upstream_unreachable(pair: Pair, host: str) -> None:
    with pair.client() as client:
        for method, body in [("GET", None), ("POST", b"x" * 900)]:
            response = client.request(method, "/", [("Host", host)], body)
            assert_problem(response, 502, "upstream-unreachable", "never-sent")
        assert_kept(client)


HANGUPS = {
    "at-once": b"",
    "in-the-status": b"HTTP/1.1 20",
    "in-the-head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "after-interim": b"HTTP/1.1 100 Continue\r\n\r\n",
    "garbage": b"what is this?\r\n\r\n",
}


@pytest.mark.parametrize("name", HANGUPS)
def test_502_upstream_protocol(pair: Pair, name: str) -> None:
    """The service hangs up before a response, or doesn't speak HTTP; a POST is delivered once at most."""

    def script(connection: Connection, head: Head) -> bool:
        connection.read_body(head)
        connection.send(HANGUPS[name])
        return True

    pair.origin.on(f"/502-{name}", script)
    with pair.client() as client:
        response = client.request("POST", f"/502-{name}", body=b"body")
        assert_problem(response, 502, "upstream-protocol", "sent" if name == "garbage" else None)
        assert response.headers["Broker-Delivery"] != "never-sent"
        assert_kept(client)
    assert len(pair.origin.requests_for(f"/502-{name}")) == 1


def test_502_after_a_reset_of_the_service(pair: Pair) -> None:
    pair.origin.on("/502-reset", lambda connection, _: connection.reset() or True)
    with pair.client() as client:
        response = client.request("POST", "/502-reset", body=b"body")
        assert_problem(response, 502, "upstream-protocol")
        assert_kept(client)


def test_504_upstream_timeout(pair: Pair) -> None:
    gate = threading.Event()
    pair.origin.on("/504", lambda connection, _: connection.wait(gate) or True)
    with pair.client() as client:
        response = client.request("POST", "/504", [("Host", "slow.example")], b"body")
        assert_problem(response, 504, "upstream-timeout")
        assert response.headers["Broker-Delivery"] != "never-sent"
        gate.set()
        assert_kept(client)
    assert len(pair.origin.requests_for("/504")) == 1


@pytest.mark.parametrize(
    ("line", "status", "code"),
    [
        (b"GET / HTTP/2.0", 505, "unsupported"),
        (b"GET / HTTP/3.7", 505, "unsupported"),
        (b"PRI * HTTP/2.0", 505, "unsupported"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked", 501, "unsupported"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: identity", 501, "unsupported"),
    ],
)
def test_505_and_501_unsupported(pair: Pair, line: bytes, status: int, code: str) -> None:
    with pair.client() as client:
        client.send(line + b"\r\nHost: test.example\r\n\r\n")
        assert_problem(client.read_response(), status, code, "never-sent")
        assert_closed(client)


def test_503_overloaded_by_connections(world: World) -> None:
    """Above the limit a client is told so, and its connection closed; those within it go on."""
    pair = world.pair({"limits": {"connections": 3}})
    clients = [pair.client() for _ in range(3)]
    for client in clients:
        assert client.request().status == 200
    with pair.client() as extra:
        assert_problem(extra.request(), 503, "overloaded", "never-sent")
        assert_closed(extra)
    for client in clients:
        assert client.request().status == 200
    clients.pop().close()

    wait_until(lambda: pair.fetch("/").status == 200, "a place is free again")
    for client in clients:
        client.close()


def test_503_overloaded_by_streams(world: World) -> None:
    """One stream per tunnel: the second request at once is refused quickly, and later ones pass."""
    pair = world.pair(agent={"limits": {"streams": 1}})
    gate = threading.Event()
    pair.origin.on("/held", lambda connection, _: (connection.wait(gate), connection.answer())[-1])
    with pair.client() as first, pair.client() as second:
        first.send_request(target="/held")
        wait_until(lambda: pair.origin.requests_for("/held"), "the first request is under way")
        response = second.request(target="/second")
        assert_problem(response, 503, "overloaded", "never-sent")
        gate.set()
        assert first.read_response().status == 200
        assert_kept(second)


def test_504_connecting_takes_too_long(world: World) -> None:
    """A service that never accepts: its queue is full."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        queued = [socket.socket() for _ in range(4)]
        for sock in queued:
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        upstream = f"http://127.0.0.1:{full.getsockname()[1]}"
        dmz = world.dmz(
            {"services": [{"match": "/", "upstream": upstream, "timeouts": {"connect": "300ms"}}]}
        )
        response = dmz.fetch("/")
        assert response.status in (502, 504)
        assert_problem(response, response.status, response.headers["Broker-Error"], "never-sent")
        for sock in queued:
            sock.close()


def test_total_timeout(world: World) -> None:
    """A response that never ends is cut at the total time."""
    gate = threading.Event()
    origin = world.origin()

    def endless(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        connection.wait(gate)
        return True

    origin.on("/endless", endless)
    services = [{"match": "/", "upstream": origin.url, "timeouts": {"total": "500ms"}}]
    dmz = world.dmz({"services": services})
    with dmz.client() as client:
        client.send_request(target="/endless")
        assert client.read_head().status == 200
        rest = client.read_to_end()
        assert not rest.endswith(b"0\r\n\r\n"), "a cut response was completed"
    gate.set()


def test_a_local_service_has_limits_of_its_own(world: World) -> None:
    """Over its port's: smaller, and larger."""
    origin = world.origin()
    services = [
        {"match": "/small", "upstream": origin.url, "limits": {"body": 10}},
        {"match": "/large", "upstream": origin.url, "limits": {"body": "1MiB"}},
        {"match": "/", "upstream": origin.url},
    ]
    dmz = world.dmz({"limits": {"body": 1000}, "services": services})
    for target, size, status in [
        ("/small", 10, 200),
        ("/small", 11, 413),
        ("/large", 100_000, 200),
        ("/", 1000, 200),
        ("/", 1001, 413),
    ]:
        assert dmz.fetch(target, "POST", body=b"x" * size).status == status, (target, size)


def test_idle_connections_are_closed(world: World) -> None:
    origin: Origin = world.origin()
    dmz = world.dmz({"timeouts": {"idle": "300ms"}, "services": [{"match": "/", "upstream": origin.url}]})
    with dmz.client() as fresh, dmz.client() as used:
        assert used.request().status == 200
        used.expect_closed()
        fresh.expect_closed()
