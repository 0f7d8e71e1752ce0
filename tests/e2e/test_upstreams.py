"""Upstream connections: pooled, reused, never confused; a second try where a pooled one had just closed."""

import json
import threading
from collections import Counter

import pytest

from tests.harness.message import Head
from tests.harness.nodes import Pair, World
from tests.harness.origin import Connection, Origin
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_equal, wait_until

pytestmark = pytest.mark.quick


@pytest.fixture
def pair(shared_pair: Pair):  # type: ignore[no-untyped-def]
    """The module's pair, without pooled upstream connections of earlier tests."""
    for connection in shared_pair.origin.connections:
        connection.close()
    wait_equal(lambda: shared_pair.origin.open_connections, 0)
    shared_pair.origin.connections.clear()
    yield shared_pair
    shared_pair.origin.raise_errors()


def warm(pair: Pair) -> None:
    """One pooled connection."""
    assert pair.fetch("/warm").status == 200
    assert len(pair.origin.connections) == 1


def test_one_after_another_use_one_connection(pair: Pair) -> None:
    for number in range(30):
        response = pair.fetch(
            f"/{number}", "POST" if number % 3 else "GET", body=b"x" if number % 3 else None
        )
        assert response.status == 200
    assert len(pair.origin.connections) == 1


def test_as_many_connections_as_requests_at_once(pair: Pair) -> None:
    gate = threading.Event()
    pair.origin.on("/held", lambda connection, _: (connection.wait(gate), connection.answer())[-1])
    clients = [pair.client() for _ in range(8)]
    for client in clients:
        client.send_request(target="/held")
    wait_equal(lambda: len(pair.origin.requests_for("/held")), 8)
    assert len(pair.origin.connections) == 8
    gate.set()
    for client in clients:
        assert client.read_response().status == 200
    for client in clients:
        client.send_request(target="/again")
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    assert len(pair.origin.connections) == 8


def close_on_second(count: Counter[str]):  # type: ignore[no-untyped-def]
    """A script that answers the first request of a connection and hangs up on the second, unanswered."""

    def script(connection: Connection, head: Head) -> bool:
        connection.read_body(head)
        count[head.target] += 1
        if len(connection.requests) > 1:
            return True
        connection.answer(body=b"fresh")
        return False

    return script


def test_a_get_that_met_a_closing_connection_is_sent_again(pair: Pair) -> None:
    count: Counter[str] = Counter()
    pair.origin.on("/get", close_on_second(count))
    warm(pair)
    response = pair.fetch("/get")
    assert (response.status, response.body) == (200, b"fresh")
    assert count["/get"] == 2 and len(pair.origin.connections) == 2


def test_a_post_that_met_a_closing_connection_is_not(pair: Pair) -> None:
    """It was delivered, perhaps carried out: once is all."""
    count: Counter[str] = Counter()
    pair.origin.on("/post", close_on_second(count))
    warm(pair)
    response = pair.fetch("/post", "POST", body=b"pay 5")
    assert_problem(response, 502, "upstream-protocol", "maybe-sent")
    assert count["/post"] == 1


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_other_idempotent_methods_may_be_sent_again(pair: Pair, method: str) -> None:
    count: Counter[str] = Counter()
    pair.origin.on("/idempotent", close_on_second(count))
    warm(pair)
    response = pair.fetch("/idempotent", method, body=b"state")
    assert response.status == 200 or response.headers["Broker-Delivery"] == "maybe-sent"
    assert count["/idempotent"] <= 2


def test_only_one_second_try(pair: Pair) -> None:
    count: list[int] = []

    def script(connection: Connection, _head: Head) -> bool:
        count.append(connection.number)
        return True

    pair.origin.on("/never", script)
    warm(pair)
    response = pair.fetch("/never")
    assert_problem(response, 502, "upstream-protocol", "maybe-sent")
    assert len(count) == 2


def test_no_second_try_on_a_fresh_connection(pair: Pair) -> None:
    """A service that hangs up on a new connection doesn't want this request."""
    count: list[int] = []

    def script(connection: Connection, _head: Head) -> bool:
        count.append(connection.number)
        return True

    pair.origin.on("/fresh", script)
    assert_problem(pair.fetch("/fresh"), 502, "upstream-protocol")
    assert len(count) == 1


def test_no_second_try_once_an_answer_has_begun(pair: Pair) -> None:
    count: list[int] = []

    def script(connection: Connection, _head: Head) -> bool:
        count.append(connection.number)
        connection.send(b"HTTP/1.1 200")
        return True

    pair.origin.on("/begun", script)
    warm(pair)
    assert_problem(pair.fetch("/begun"), 502, "upstream-protocol", "sent")
    assert len(count) == 1


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_connection_that_closed_before_is_not_used(pair: Pair, method: str) -> None:
    """The end of a pooled connection is noticed while it idles: the next request meets a new one."""
    for _ in range(5):
        warm(pair)
        pair.origin.connections[0].close()
        wait_equal(lambda: pair.origin.open_connections, 0)
        assert pair.fetch("/next", method, body=b"x" if method == "POST" else None).status == 200
        assert len(pair.origin.requests_for("/next")) == 1
        for connection in pair.origin.connections:
            connection.close()
        wait_equal(lambda: pair.origin.open_connections, 0)
        pair.origin.connections.clear()


def test_an_answer_nobody_asked_for(pair: Pair) -> None:
    """Bytes on an idle connection: it is dropped, and they reach nobody."""
    warm(pair)
    pair.origin.connections[0].send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
    wait_equal(lambda: pair.origin.open_connections, 0, "the connection is dropped")
    response = pair.fetch("/victim")
    assert json.loads(response.body)["start"] == "GET /victim HTTP/1.1"


def test_two_answers_to_one_request(pair: Pair) -> None:
    """What comes behind an answer is dropped with its connection, never given to the next request."""
    forged = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    pair.origin.on("/two", lambda c, _: c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal" + forged))
    with pair.client() as client:
        for _ in range(5):
            assert client.request(target="/two").body == b"real"
            assert json.loads(client.request(target="/victim").body)["start"] == "GET /victim HTTP/1.1"
    for connection in pair.origin.connections:
        targets = [head.target for head in connection.requests]
        assert "/two" not in targets[:-1], f"a connection was used after two answers: {targets}"


def test_a_body_where_none_may_be(pair: Pair) -> None:
    """Bytes behind a 204, a 304 or the answer to a HEAD are not the next answer."""
    evil = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"
    pair.origin.on("/204", lambda c, _: c.send(b"HTTP/1.1 204 No Content\r\n\r\n" + evil))
    pair.origin.on("/304", lambda c, _: c.send(b'HTTP/1.1 304 Not Modified\r\nETag: "a"\r\n\r\n' + evil))
    pair.origin.on("/head", lambda c, _: c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n" + evil))
    with pair.client() as client:
        for method, target in [("GET", "/204"), ("GET", "/304"), ("HEAD", "/head")] * 3:
            client.send_request(method, target)
            assert client.read_response(method).body == b""
            assert json.loads(client.request(target="/victim").body)["start"] == "GET /victim HTTP/1.1"


def test_a_connection_with_an_unfinished_request_is_not_reused(pair: Pair) -> None:
    """An early answer leaves the rest of a body behind: it must not become the next request."""

    def early(connection: Connection, _head: Head) -> bool:
        connection.answer(403, b"no", reason="Forbidden")
        connection.reader.drain()
        return True

    pair.origin.on("/early", early)
    with pair.client() as client:
        client.send_request("POST", "/early", [("Content-Length", "100")])
        client.send(b"GET /smuggled HTTP/1.1\r\n")
        assert client.read_response().status == 403
    for _ in range(5):
        assert pair.fetch("/next").status == 200
    assert not pair.origin.requests_for("/smuggled")


def test_a_client_that_leaves_takes_its_upstream_connection_along(pair: Pair) -> None:
    """The answer that nobody reads must not be read by the next one."""
    gate = threading.Event()

    def script(connection: Connection, _head: Head) -> None:
        connection.wait(gate)
        connection.answer(body=b"for who left")

    pair.origin.on("/left", script)
    client = pair.client()
    client.send_request(target="/left")
    wait_until(lambda: pair.origin.requests_for("/left"), "the request arrived")
    client.reset()
    gate.set()
    for _ in range(5):
        assert json.loads(pair.fetch("/next").body)["start"] == "GET /next HTTP/1.1"


def test_a_service_that_restarts(world: World) -> None:
    """Down: unreachable. Up again: the first request works, POST or not."""
    first = world.origin()
    port = first.port
    dmz = world.dmz()
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": first.url}])
    assert dmz.fetch("/").status == 200
    first.close()
    wait_equal(lambda: first.open_connections, 0)
    assert_problem(dmz.fetch("/", "POST", body=b"x"), 502, "upstream-unreachable", "never-sent")
    second: Origin = world.origin("second", port=port)
    response = dmz.fetch("/", "POST", body=b"x")
    assert json.loads(response.body)["origin"] == second.name
