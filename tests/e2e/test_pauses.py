"""Pauses in the middle of a message: what follows them is never read as another message, by nobody.

An attacker who stops inside of a body lets time-outs do the rest: where a hop then answers, and uses one of
its connections again, the rest of the body becomes somebody's request (pause-based desync).
"""

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.harness.client import RawClient, fetch
from tests.harness.message import Closed, Head
from tests.harness.nodes import DmzNode, World, everything
from tests.harness.origin import Connection, Origin
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: victim.example\r\n\r\n"
# `total`: in the middle of an answer a service may be silent for long, else; there are event streams.
SHORT = {"timeouts": {"idle": "500ms", "first_byte": "1s", "total": "3s"}}


@pytest.fixture(params=["tunnel", "local"])
def node(world: World, request: pytest.FixtureRequest) -> Iterator[tuple[DmzNode, Origin]]:
    """A node whose patience is short, and the service behind it."""
    origin = world.origin()
    if request.param == "local":
        yield world.dmz({"services": [everything(origin)], **SHORT}), origin
    else:
        dmz = world.dmz(SHORT)
        world.agent(dmz.registration_url(), [everything(origin)], extra=SHORT)
        yield dmz, origin


def smuggled(origin: Origin) -> list[str]:
    """Requests that nobody has sent."""
    starts = [head.start for each in origin.connections for head in each.requests]
    return [start for start in starts if "/smuggled" in start]


def stops_after(start: bytes) -> Callable[[Connection, Head], bool]:
    """A service that sends the start of an answer, and then nothing."""

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(start)
        connection.sock.settimeout(20)
        with contextlib.suppress(OSError):
            connection.reader.drain()
        return True

    return script


def nobody_is_confused(dmz: DmzNode, origin: Origin, before: Connection) -> None:
    """The next clients get their own answers, on other connections to the service."""
    for number in range(3):
        seen = json.loads(fetch(dmz.external, f"/next-{number}").body)
        assert seen["start"] == f"GET /next-{number} HTTP/1.1"
        assert seen["connection"] != before.number
    assert not smuggled(origin)
    wait_until(before.ended.is_set, "the service's connection has ended")


def send_rest(client: RawClient) -> None:
    """What a client that was answered sends all the same is not answered."""
    with contextlib.suppress(OSError):
        client.send(SMUGGLED)
    with contextlib.suppress(ConnectionError):
        assert b"200 OK" not in client.read_to_end()


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_client_pauses_in_its_body(node: tuple[DmzNode, Origin], framing: str) -> None:
    """408, and the service's connection, in the middle of a request, is given up."""
    dmz, origin = node
    with dmz.client() as client:
        if framing == "length":
            client.send_request("POST", "/paused", [("Content-Length", str(10 + len(SMUGGLED)))])
            client.send(b"0123456789")
        else:
            client.send_request("POST", "/paused", [("Transfer-Encoding", "chunked")])
            client.send(b"%x\r\n0123456789" % (10 + len(SMUGGLED)))
        response = client.read_response()
        assert_problem(response, 408, "request-timeout", "maybe-sent")
        assert not response.keeps_open
        send_rest(client)
    [before] = origin.connections
    nobody_is_confused(dmz, origin, before)


def test_a_service_answers_while_the_client_pauses(node: tuple[DmzNode, Origin]) -> None:
    """It keeps its connection open, and waits for the rest."""
    dmz, origin = node

    def early(connection: Connection, head: Head) -> None:
        connection.answer(200, b"early")
        connection.read_body(head)

    origin.on("/early", early)
    with dmz.client() as client:
        client.send_request("POST", "/early", [("Content-Length", str(10 + len(SMUGGLED)))])
        client.send(b"0123456789")
        response = client.read_response()
        assert (response.status, response.body) == (200, b"early")
        if response.keeps_open:
            client.send(SMUGGLED)  # the rest of the body, and no request
            assert json.loads(client.request(target="/after").body)["start"] == "GET /after HTTP/1.1"
        else:
            send_rest(client)
    assert not smuggled(origin)
    for number in range(3):
        seen = json.loads(fetch(dmz.external, f"/next-{number}").body)
        assert seen["start"] == f"GET /next-{number} HTTP/1.1"


def test_a_service_pauses_in_its_answer(node: tuple[DmzNode, Origin]) -> None:
    """The client's connection is cut: a shortened answer is never taken for a whole one."""
    dmz, origin = node

    origin.on("/paused", stops_after(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789"))
    with dmz.client() as client, pytest.raises((Closed, ConnectionError)):
        client.request(target="/paused")
    [before] = origin.connections
    nobody_is_confused(dmz, origin, before)


def test_a_service_pauses_in_its_head(node: tuple[DmzNode, Origin]) -> None:
    dmz, origin = node

    origin.on("/paused", stops_after(b"HTTP/1.1 200 OK\r\nX-Half: "))
    with dmz.client() as client:
        assert_problem(client.request(target="/paused"), 504, "upstream-timeout", "sent")
        assert client.request(target="/kept").status == 200
    before = origin.connections[0]
    nobody_is_confused(dmz, origin, before)
