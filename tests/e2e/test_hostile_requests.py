"""Requests that two parsers could read in two ways, through a tunnel and to a local service.

The oracle is what the service received. A neighbour, who shares the node, the tunnel and the pool of upstream
connections, asks all the time and gets its own answers.
"""

from collections.abc import Iterator

import pytest

from tests import malformed, smuggling
from tests.e2e.hostile import Route, assert_unharmed, make_routes, neighbour, run_all, send
from tests.harness.client import RawClient
from tests.harness.message import Closed, Response
from tests.harness.nodes import World
from tests.harness.problems import assert_problem
from tests.malformed import Malformed
from tests.smuggling import SMUGGLED, Attack

TLS = b"\x16\x03"  # is not answered in plain text
CODES = {
    400: "bad-request",
    414: "head-too-large",
    431: "head-too-large",
    501: "unsupported",
    505: "unsupported",
}


@pytest.fixture(scope="module")
def routes(module_world: World) -> dict[str, Route]:
    found = make_routes(module_world)
    for route in found.values():
        route.origin.default = route.serve
    return found


@pytest.fixture(params=["tunnel", "local"])
def route(request: pytest.FixtureRequest, routes: dict[str, Route], module_world: World) -> Iterator[Route]:
    route = routes[request.param]
    yield route
    route.origin.raise_errors()
    assert not route.origin.received(SMUGGLED[:13])
    assert_unharmed(module_world)


def check_refused(route: Route, row: Malformed) -> None:
    """One answer by the contract, and the end."""
    with send(route.address, row.data + SMUGGLED) as client:
        if row.data.startswith(TLS):
            client.expect_closed()
            return
        response = client.read_response()
        assert_problem(response, row.status, CODES[row.status], "never-sent")
        assert not response.keeps_open
        client.expect_closed()


def test_malformed_requests_reach_no_service(route: Route) -> None:
    """Not one byte of 359 malformed requests, or of what was smuggled behind them, arrives."""
    assert len(malformed.REQUESTS) >= 200
    before = [connection.received_size for connection in route.origin.connections]
    seen = len(route.origin.requests)
    with neighbour(route.address) as answered:
        run_all([(row.why, lambda row=row: check_refused(route, row)) for row in malformed.REQUESTS])
    connections = route.origin.connections
    requests = route.origin.requests[seen:]
    assert [head.target for head in requests] == [f"/canary/{i}" for i in range(answered())]
    assert len(connections) == 1, "the neighbour's upstream connection is kept, and there is no other"
    received = sum(connection.received_size for connection in connections) - sum(before)
    assert received == sum(len(head.raw) for head in requests), "nothing but the neighbour's requests"


def read_answers(client: RawClient, row: Attack) -> list[Response]:
    methods = [start.partition(" ")[0] for start, _ in row.served] + ["GET"] * len(row.statuses)
    return [client.read_response(method) for method, _ in zip(methods, row.statuses, strict=False)]


def check_attack(route: Route, row: Attack, target: str) -> None:
    with send(route.address, row.data.replace(b"/first", target.encode())) as client:
        *first, last = read_answers(client, row)
        assert [answer.status for answer in [*first, last]] == row.statuses
        assert_problem(last, row.statuses[-1], CODES[row.statuses[-1]])
        assert not last.keeps_open
        client.expect_closed()
    expected = [(start.replace("/first", target), size) for start, size in row.served]
    assert [each for each in route.served if target in each[0]] == expected


def test_smuggling_is_refused(route: Route) -> None:
    """What is known to have desynchronised other programs: refused, and nothing behind it is read."""
    with neighbour(route.address):
        run_all(
            [
                (row.why, lambda row=row, at=at: check_attack(route, row, f"/attack-{at}-"))
                for at, row in enumerate(smuggling.ATTACKS)
            ]
        )


def check_body(route: Route, row: Malformed, target: str) -> None:
    head = f"POST {target} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    with send(route.address, head + row.data + SMUGGLED) as client:
        response = client.read_response()
        assert_problem(response, 400, "bad-request")
        assert not response.keeps_open
        client.expect_closed()
    assert not [each for each in route.served if target in each[0]], "the service took it for a whole request"


def test_malformed_bodies_never_become_whole_requests(route: Route) -> None:
    with neighbour(route.address):
        run_all(
            [
                (row.why, lambda row=row, at=at: check_body(route, row, f"/body-{at}-"))
                for at, row in enumerate(malformed.BODIES)
            ]
        )


def check_oddity(route: Route, row: Attack, target: str) -> None:
    expected = [(start.replace("/first", target), size) for start, size in row.served]
    with send(route.address, row.data.replace(b"/first", target.encode())) as client:
        answers = read_answers(client, row)
        assert [answer.status for answer in answers] == row.statuses
        if answers[-1].keeps_open:
            # Nothing is left over: the next request is read as one.
            last = client.request(target=target + "last")
            assert last.status == 200
            expected.append((f"GET {target}last", 0))
        client.end_sending()
        client.expect_closed()
    assert [each for each in route.served if target in each[0]] == expected


def test_odd_but_legal_requests_are_made_unambiguous(route: Route) -> None:
    """Exactly the requests that are there arrive: each once, framed in one way, with its own body."""
    with neighbour(route.address):
        run_all(
            [
                (row.why, lambda row=row, at=at: check_oddity(route, row, f"/odd-{at}-"))
                for at, row in enumerate(smuggling.ODDITIES)
            ]
        )


@pytest.mark.parametrize("chosen", ["every seventh request", "bodies"])
def test_byte_by_byte_the_answers_are_the_same(route: Route, chosen: str) -> None:
    """Slow senders get no other parser: segments of one byte, many connections at once."""
    rows = (
        malformed.BODIES if chosen == "bodies" else [r for r in malformed.REQUESTS[1::7] if len(r.data) < 300]
    )

    def check(row: Malformed) -> None:
        head = b"POST /slow- HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        data = head + row.data if chosen == "bodies" else row.data
        with RawClient(route.address, "a") as client:
            try:
                for at in range(min(len(data), 400)):
                    client.send(data[at : at + 1])
                client.send(data[400:] + SMUGGLED)
            except (BrokenPipeError, ConnectionResetError):
                pass
            try:
                response = client.read_response()
            except (Closed, ConnectionResetError):
                return  # its answer was overtaken by the reset that our late bytes provoked
            assert_problem(response, row.status, CODES[row.status])
            client.expect_closed()

    with neighbour(route.address):
        run_all([(row.why, lambda row=row: check(row)) for row in rows])
    assert not [each for each in route.served if "/slow-" in each[0]]
