"""Limits and timeouts of the file, a port and a service, as clients feel them."""

import threading

from tests.harness.message import Head, Response
from tests.harness.nodes import DmzNode, Snippet, World, loopback
from tests.harness.origin import Connection, Origin


def node_with(world: World, port: Snippet, services: list[Snippet]) -> DmzNode:
    return world.dmz({"external": [{"listen": loopback(), **port}], "services": services})


def outcome(response: Response) -> tuple[int, str | None]:
    return response.status, response.headers.get("Broker-Error")


def waiting(origin: Origin, target: str) -> threading.Event:
    """The target answers when the event is set."""
    go = threading.Event()

    def script(connection: Connection, head: Head) -> None:
        connection.read_body(head)
        connection.wait(go)
        connection.answer(200, b"late")

    origin.on(target, script)
    return go


def test_a_service_s_own_limits_over_its_port_s(world: World) -> None:
    url = world.origin().url
    node = node_with(
        world,
        {"limits": {"body": 100}},
        [
            {"match": "/small", "upstream": url, "limits": {"body": 10}},
            {"match": "/large", "upstream": url, "limits": {"body": "none"}},
            {"match": "/", "upstream": url},
        ],
    )
    # Fresh connections, and one for all that is taken: no request leaves its limits behind.
    expected = [("/small", 10, True), ("/large", 5000, True), ("/", 100, True)]
    expected += [("/small", 11, False), ("/large", 101, True), ("/", 101, False)]
    with node.client() as client:
        for target, size, taken in expected:
            fresh = node.fetch(target, "PUT", body=b"x" * size)
            assert outcome(fresh) == ((200, None) if taken else (413, "body-too-large")), (target, size)
            if taken:
                assert client.request("PUT", target, body=b"x" * size).status == 200
        assert outcome(client.request("PUT", "/", body=b"x" * 101)) == (413, "body-too-large")


def test_a_service_s_own_timeouts_over_its_port_s(world: World) -> None:
    origin = world.origin()
    node = node_with(
        world,
        {"timeouts": {"first_byte": 0.3}},
        [
            {"match": "/patient", "upstream": origin.url, "timeouts": {"first_byte": 60}},
            {"match": "/brief", "upstream": origin.url, "timeouts": {"first_byte": 60, "total": "300ms"}},
            {"match": "/", "upstream": origin.url},
        ],
    )
    events = {target: waiting(origin, target) for target in ("/patient", "/brief", "/other")}
    with node.client() as client:
        client.send_request(target="/patient")
        assert outcome(node.fetch("/other")) == (504, "upstream-timeout")
        assert outcome(node.fetch("/brief")) == (504, "upstream-timeout")
        events["/patient"].set()
        assert client.read_response().status == 200
        client.send_request(target="/other")
        assert outcome(client.read_response()) == (504, "upstream-timeout")
    for event in events.values():
        event.set()


def test_a_reload_counts_for_the_next_request_of_a_connection(world: World) -> None:
    node = node_with(world, {}, [{"match": "/", "upstream": world.origin().url}])
    with node.client() as client:
        assert client.request("PUT", "/", body=b"x" * 11).status == 200
        node.write({**node.config, "limits": {"body": 10}})
        assert node.admin_post("/reload").status == 200
        assert outcome(client.request("PUT", "/", body=b"x" * 11)) == (413, "body-too-large")
