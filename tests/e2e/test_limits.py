"""Limits of requests, responses and connections: at the port, at a service, and in an agent for itself."""

import json
import threading
import time
from typing import Any

import pytest

from tests.harness.client import chunked, fetch, request_head
from tests.harness.message import Closed, Head
from tests.harness.nodes import DmzNode, World, everything
from tests.harness.origin import Connection, Origin
from tests.harness.peer import DATA, END, OPEN, RESET, HandNode, open_payload, parse_reset, stream_id
from tests.harness.problems import assert_problem

# --- requests on one connection ---------------------------------------------------------------


def test_a_connection_takes_so_many_requests(world: World) -> None:
    pair = world.pair({"limits": {"requests": 3}})
    with pair.client() as client:
        for number in range(3):
            response = client.request(target=f"/r{number}")
            assert response.status == 200 and response.keeps_open == (number < 2)
        client.expect_closed()


def test_pipelined_requests_beyond_the_limit_are_not_served(world: World) -> None:
    pair = world.pair({"limits": {"requests": 3}})
    with pair.client() as client:
        client.send(b"".join(request_head("GET", f"/p{n}", [("Host", "a")]) for n in range(10)))
        for number in range(3):
            assert json.loads(client.read_response().body)["start"] == f"GET /p{number} HTTP/1.1"
        client.expect_closed()
    assert not pair.origin.received(b"/p3")


def test_answers_of_the_node_count_as_well(world: World) -> None:
    dmz = world.dmz({"limits": {"requests": 2}})
    with dmz.client() as client:
        assert client.request().keeps_open
        assert not client.request().keeps_open
        client.expect_closed()


def test_one_connection_is_one_stream_at_a_time(world: World) -> None:
    """However much is pipelined: a client can't have more under way than it has connections."""
    pair = world.pair()
    running, most = 0, 0
    lock = threading.Lock()

    def script(connection: Connection, _head: Head) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.002)
        with lock:
            running -= 1
        connection.answer(body=b"x")

    pair.origin.default = script
    with pair.client() as client:
        sender = threading.Thread(
            target=client.send, args=(request_head("GET", "/many", [("Host", "a")]) * 300,)
        )
        sender.start()
        for _ in range(300):
            assert client.read_response().body == b"x"
        sender.join()
    assert most == 1


# --- responses --------------------------------------------------------------------------------

RESPONSES = {
    "a head without end": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 300_000,
    "a long head": b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 5000 + b"\r\nContent-Length: 0\r\n\r\n",
    "many fields": b"HTTP/1.1 200 OK\r\n" + b"X-A: 1\r\n" * 60 + b"Content-Length: 0\r\n\r\n",
    "interim responses without end": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 50_000,
    "a large interim response": b"HTTP/1.1 103 Early Hints\r\nLink: " + b"x" * 5000 + b"\r\n\r\n",
}


@pytest.mark.quick
@pytest.mark.parametrize("place", ["local", "agent"])
def test_responses_over_the_limit(world: World, place: str) -> None:
    """502, and the service's connection is used no more."""
    limits = {"limits": {"response_head": "4KiB", "response_headers": 50}}
    origin = world.origin()
    dmz = limited(world, origin, place, limits)
    for number, raw in enumerate(RESPONSES.values()):

        def script(connection: Connection, _head: Head, raw: bytes = raw) -> None:
            connection.send(raw)
            connection.reader.drain()

        target = origin.on(f"/over-{number}", script)
        with dmz.client() as client:
            client.send_request(target=target)
            while (response := client.read_head()).status == 103:
                pass
            assert (response.status, response.headers["Broker-Error"]) == (502, "upstream-protocol")
    assert fetch(dmz.external, "/next").status == 200


def limited(world: World, origin: Origin, place: str, more: dict[str, Any]) -> DmzNode:
    """A service with settings of its own, in the DMZ node or behind an agent."""
    service = everything(origin) | more
    dmz = world.dmz({"services": [service]} if place == "local" else None)
    if place == "agent":
        world.agent(dmz.registration_url(), [service])
    return dmz


# --- requests: a service's own limits, wherever it is -----------------------------------------------


@pytest.mark.parametrize("place", ["local", "agent"])
def test_a_service_has_its_own_limits(world: World, place: str) -> None:
    """In an agent they hold against the DMZ node, which may allow more or have been taken over."""
    origin = world.origin()
    limits = {"limits": {"body": 1000, "uri": 100, "head": 1024, "headers": 20}}
    dmz = limited(world, origin, place, limits)
    with dmz.client() as client:
        response = client.request("POST", "/length", body=b"x" * 1001)
        assert_problem(response, 413, "body-too-large", "never-sent")
    with dmz.client() as client:
        client.send_request("POST", "/chunked", [("Transfer-Encoding", "chunked")])
        client.send(chunked([b"x" * 600, b"x" * 600]))
        assert_problem(client.read_response(), 413, "body-too-large", "maybe-sent")
    assert_problem(fetch(dmz.external, "/" + "u" * 100), 414, "head-too-large", "never-sent")
    many = [(f"X-{n}", "1") for n in range(40)]
    assert_problem(fetch(dmz.external, "/many", fields=many), 431, "head-too-large", "never-sent")
    large = [("X-Large", "x" * 12_000)]
    assert_problem(fetch(dmz.external, "/large", fields=large), 431, "head-too-large", "never-sent")
    assert fetch(dmz.external, "/fits", "POST", body=b"x" * 1000).status == 200
    assert not any(origin.received(mark) for mark in (b"/length", b"/uuu", b"/many", b"/large"))


@pytest.mark.parametrize("place", ["local", "agent"])
def test_a_service_has_its_own_total_time(world: World, place: str) -> None:
    origin = world.origin()
    stop = threading.Event()

    def drips(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not stop.wait(0.1):
            connection.send(b"1\r\nx\r\n")
        return True

    def never(connection: Connection, _head: Head) -> bool:
        connection.wait(stop)
        return True

    dmz = limited(world, origin, place, {"timeouts": {"total": "1s"}})
    assert_problem(fetch(dmz.external, origin.on("/never", never)), 504, "upstream-timeout", "sent")
    with dmz.client() as client:
        client.send_request(target=origin.on("/drips", drips))
        assert client.read_head().status == 200
        with pytest.raises((Closed, ConnectionError)):
            client.reader.chunks(lambda _: None)
    stop.set()


def test_an_agent_waits_for_a_body_no_longer_than_it_wants_to(world: World) -> None:
    """A DMZ node that opens streams and says nothing more costs the service nothing for long."""
    origin = world.origin()
    services = [everything(origin) | {"timeouts": {"idle": "1s"}, "limits": {"body": 100}}]
    with HandNode() as node:
        agent = world.agent(node.url, services, start=False).start(ready=False)
        link = node.accept()
        head = b"POST /stalls HTTP/1.1\r\nHost: a\r\nContent-Length: 50\r\n\r\n"
        link.send_frame(OPEN, stream_id(0, acceptor=True), open_payload(head, b"x"))
        got = link.expect(RESET)
        assert parse_reset(got.payload)[:2] == (19, 1)
        endless = b"POST /endless HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        link.send_frame(OPEN, stream_id(1, acceptor=True), open_payload(endless, b"x" * 60))
        link.send_frame(DATA, stream_id(1, acceptor=True), b"x" * 60, END)
        assert parse_reset(link.expect(RESET).payload)[0] == 12
        agent.process.terminate()
    assert origin.requests[0].target == "/stalls"
