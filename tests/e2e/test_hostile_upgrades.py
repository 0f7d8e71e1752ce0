"""Upgrades nobody asked for, or not what was asked for, and what is sent before there is an answer."""

from collections.abc import Iterator

import pytest

from tests.e2e.hostile import Check, Route, assert_unharmed, make_routes, neighbour, run_all
from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import World
from tests.harness.origin import Connection
from tests.harness.problems import assert_problem
from tests.smuggling import FORGED, SMUGGLED

ASK = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
SWITCH = "HTTP/1.1 101 Switching Protocols\r\n"
TAKEN = SWITCH + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"

# What the service answers to somebody who asked for websocket, and why it is none of it.
WRONG = [
    (SWITCH + "Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n", "another protocol"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n\r\n", "two protocols"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n\r\n", "two Upgrade fields"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket/13\r\n\r\n", "a version nobody asked for"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocketx\r\n\r\n", "almost the name"),
    (SWITCH + "Connection: Upgrade\r\n\r\n", "no protocol"),
    (SWITCH + "Upgrade: websocket\r\n\r\n", "no Connection"),
    (SWITCH + "Connection: close\r\nUpgrade: websocket\r\n\r\n", "Connection without the option"),
    ("HTTP/1.0 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", "HTTP/1.0"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\n", "a length"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n", "a coding"),
    (SWITCH + "Connection: Upgrade\r\nUpgrade: websocket\r\nX : a\r\n\r\n", "a malformed field"),
]
# Requests that do not ask for what is allowed, however they look: nobody has asked for a 101 to them.
NOT_ASKED = [
    ("", "no upgrade"),
    ("Upgrade: websocket\r\n", "no Connection"),
    ("Connection: Upgrade\r\n", "no protocol"),
    ("Connection: Upgrade\r\nUpgrade: h2c\r\n", "a protocol that is not allowed"),
    (
        "Connection: Upgrade\r\nUpgrade: websocketx, xwebsocket, web socket\r\n",
        "names that are almost allowed",
    ),
    ("Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket\r\n", "two Upgrade fields"),
    ("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n", "a body"),
    ("Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n", "a chunked body"),
]


class Service:
    """Answers by the number in the target; holds that it was asked for websocket, or for nothing."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.answers: dict[str, bytes] = {}
        route.origin.default = self.play

    def play(self, connection: Connection, head: Head) -> bool:
        answer = self.answers.get(head.target)
        if answer is None:
            self.route.serve(connection, head)
            return False
        assert head.headers.get("Upgrade") in (None, "websocket"), head
        assert head.headers.get("Connection") in (None, "Upgrade"), head
        connection.send(answer)
        connection.reader.drain()
        return True


@pytest.fixture(scope="module")
def services(module_world: World) -> dict[str, Service]:
    return {name: Service(route) for name, route in make_routes(module_world).items()}


@pytest.fixture(params=["tunnel", "local"])
def service(
    request: pytest.FixtureRequest, services: dict[str, Service], module_world: World
) -> Iterator[Service]:
    service = services[request.param]
    with neighbour(service.route.address):
        yield service
    service.route.origin.raise_errors()
    assert_unharmed(module_world)


def request(target: str, fields: str) -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: a\r\n{fields}\r\n".encode()


def test_answers_that_are_not_what_was_asked_for(service: Service) -> None:
    def check(answer: str, target: str) -> None:
        service.answers[target] = answer.encode() + FORGED
        with RawClient(service.route.address, "a") as client:
            client.send(request(target, ASK))
            response = client.read_response()
            assert_problem(response, 502, "upstream-protocol")
            client.end_sending()
            client.expect_closed()

    checks: list[Check] = [
        (why, lambda answer=answer, at=at: check(answer, f"/wrong/{at}"))  # type: ignore[misc]
        for at, (answer, why) in enumerate(WRONG)
    ]
    run_all(checks)


def test_switching_for_somebody_who_has_not_asked(service: Service) -> None:
    def check(fields: str, target: str) -> None:
        service.answers[target] = TAKEN.encode() + b"\x81\x05hello"
        with RawClient(service.route.address, "a") as client:
            client.send(request(target, fields))
            response = client.read_response()
            assert_problem(response, 502, "upstream-protocol")

    checks: list[Check] = [
        (why, lambda fields=fields, at=at: check(fields, f"/unasked/{at}"))  # type: ignore[misc]
        for at, (fields, why) in enumerate(NOT_ASKED)
    ]
    run_all(checks)


def test_what_comes_before_the_answer_is_a_request_where_the_upgrade_is_declined(service: Service) -> None:
    """It is read by us, as a stranger's next request: never by the service, behind our back."""
    with RawClient(service.route.address, "a") as client:
        service.answers.clear()
        for _ in range(20):
            client.send(
                request("/declined", "Connection: Upgrade\r\nUpgrade: h2c, h3\r\n") + request("/next", "")
            )
            assert client.read_response().body == b"ok"
            assert client.read_response().body == b"ok"
        service.route.origin.on("/no", lambda connection, _: connection.answer(200, b"no"))
        for _ in range(20):
            client.send(request("/no", ASK) + SMUGGLED)
            assert client.read_response().body == b"no"
            assert client.read_response().body == b"ok"
        client.send(request("/no", ASK) + b"\x81\x05hello")
        assert client.read_response().body == b"no"
        assert_problem(client.read_response(), 400, "bad-request")
    assert not service.route.origin.received(SMUGGLED), "it went through without a look"
    assert not service.route.origin.received(b"\x81\x05hello")


def test_what_comes_before_the_answer_is_the_other_protocols_where_it_is_taken(service: Service) -> None:
    """And the connection is never used for another request."""
    service.answers["/taken"] = TAKEN.encode() + b"\x82\x02ok"
    with RawClient(service.route.address, "a") as client:
        client.send(request("/taken", ASK) + SMUGGLED)
        head = client.read_head()
        assert head.status == 101 and head.headers["Upgrade"] == "websocket"
        assert client.reader.exactly(4) == b"\x82\x02ok"
        client.end_sending()
        client.read_to_end()
    connection = next(
        c for c in service.route.origin.connections for head in c.requests if head.target == "/taken"
    )
    assert len(connection.requests) == 1
    assert connection.ended.wait(20)
    assert bytes(connection.received).endswith(b"\r\n\r\n" + SMUGGLED)
