"""Services that answer with what two parsers could read in two ways, that answer twice, or unasked.

The client gets 502, or exactly the one answer that it asked for, or is cut off; the upstream connection is
dropped and never used again; a neighbour on another connection gets its own answers.
"""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests import malformed, smuggling
from tests.e2e.hostile import Route, assert_unharmed, make_routes, neighbour, run_all
from tests.harness.client import RawClient
from tests.harness.message import Closed, Head
from tests.harness.nodes import World
from tests.harness.origin import Connection, echo
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until
from tests.smuggling import FORGED, OK, Answer

# What is more than the scanner's default limits is not yet more than what a service may send.
RESPONSES = [Answer(row.data, row.why, "502") for row in malformed.RESPONSES if row.status != 431]
BODIES = [
    Answer(OK + b"Transfer-Encoding: chunked\r\n\r\n" + row.data + FORGED, row.why, "cut")
    for row in malformed.BODIES
]


class Hostile:
    """Plays a line of a table and then waits for the node to drop the connection."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.rows: dict[str, Answer] = {}
        self.dropped: set[str] = set()
        route.origin.default = self.play

    def play(self, connection: Connection, head: Head) -> bool:
        row = self.rows.get(head.target)
        if row is None:
            echo(connection, head)
            return False
        connection.read_body(head)
        try:
            connection.send(row.data)
            if row.ends:
                return True
            assert not connection.reader.some(), "the connection was used again"
        except OSError:
            pass  # dropped in the middle of what we sent
        self.dropped.add(head.target)
        return True

    def check(self, row: Answer, target: str) -> None:
        self.rows[target] = row
        with RawClient(self.route.address, "a") as client:
            client.send_request(row.method, target, body=b"x" if row.method == "POST" else None)
            if row.outcome == "cut":
                with suppress(Closed, ConnectionResetError):
                    # Or refused, where nothing of it has left the agent yet.
                    assert_problem(client.read_response(row.method), 502, "upstream-protocol")
            else:
                response = client.read_response(row.method)
                if row.outcome == "502" and row.method == "HEAD":
                    assert response.status == 502 and response.headers["Broker-Error"] == "upstream-protocol"
                elif row.outcome == "502":
                    assert_problem(response, 502, "upstream-protocol")
                else:
                    assert response.headers.get("X-Forged") is None and response.body in (b"real", b"")
                if response.keeps_open:
                    # This client's connection is still in step.
                    assert client.request(target=target + "-next").status == 200
            if row.outcome != "cut":
                client.end_sending()
                client.expect_closed()
        if not row.ends:
            wait_until(lambda: target in self.dropped, f"the upstream connection of '{row.why}' is dropped")

    def check_all(self, rows: list[Answer], name: str) -> None:
        with neighbour(self.route.address):
            run_all(
                [
                    (row.why, lambda row=row, at=at: self.check(row, f"/{name}/{at}"))
                    for at, row in enumerate(rows)
                ]
            )


@pytest.fixture(scope="module")
def routes(module_world: World) -> dict[str, Hostile]:
    return {name: Hostile(route) for name, route in make_routes(module_world).items()}


@pytest.fixture(params=["tunnel", "local"])
def hostile(
    request: pytest.FixtureRequest, routes: dict[str, Hostile], module_world: World
) -> Iterator[Hostile]:
    hostile = routes[request.param]
    yield hostile
    hostile.route.origin.raise_errors()
    assert_unharmed(module_world)


def test_malformed_responses(hostile: Hostile) -> None:
    assert len(RESPONSES) >= 60
    hostile.check_all(RESPONSES, "malformed")


def test_malformed_response_bodies(hostile: Hostile) -> None:
    hostile.check_all(BODIES, "body")


def test_second_answers_upgrades_floods_and_splitting(hostile: Hostile) -> None:
    hostile.check_all(smuggling.ANSWERS, "answer")


def test_an_answer_that_was_there_before_the_question_is_never_its_answer(hostile: Hostile) -> None:
    """Bytes on an idle connection are seen at the latest when it is taken for the next request."""
    connections: list[Connection] = []

    def real(connection: Connection, _: Head) -> None:
        connections.append(connection)
        connection.answer(200, b"real")

    hostile.route.origin.on("/warm", real)
    with RawClient(hostile.route.address, "a") as client:
        for at in range(200):
            assert client.request(target="/warm").body == b"real"
            # It has arrived at the other end of the loopback when this returns.
            connections[-1].send(FORGED)
            response = client.request(target=f"/victim/{at}")
            assert response.status == 200
            assert response.headers.get("X-Forged") is None, f"round {at}"
            assert f"/victim/{at} ".encode() in response.body
