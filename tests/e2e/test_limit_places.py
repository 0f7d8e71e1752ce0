"""Each limit and each deadline in the file, at a port and at a service: the nearest one counts."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.harness.client import RawClient
from tests.harness.message import Head, Headers, Response
from tests.harness.nodes import DmzNode, World, loopback
from tests.harness.origin import Connection
from tests.harness.problems import assert_problem
from tests.harness.waiting import DEADLINE

# So close that a probe meets each by itself, and so far that none does.
NEAR: dict[str, Any] = {
    "limits": {"head": 1024, "headers": 20, "uri": 100, "body": 1000, "requests": 2, "min_rate": "1MiB"},
    "timeouts": {"head": "400ms", "idle": "900ms", "slow": "400ms", "first_byte": "400ms", "total": "3s"},
}
FAR: dict[str, Any] = {
    "limits": {
        "head": "64KiB",
        "headers": 100,
        "uri": "8KiB",
        "body": "1MiB",
        "requests": 100,
        "min_rate": 1,
    },
    "timeouts": {"head": "1m", "idle": "1m", "slow": "1m", "first_byte": "1m", "total": "5m"},
}
LONGER_THAN_NEAR_S = 1.2
SERVICE_HAS_NONE = {"limits": ("requests",), "timeouts": ("head",)}


def at_service(values: dict[str, Any]) -> dict[str, Any]:
    return {
        kind: {key: value for key, value in entries.items() if key not in SERVICE_HAS_NONE[kind]}
        for kind, entries in values.items()
    }


@dataclass
class Place:
    """A node whose file says NEAR, with a port and a service that say nothing, NEAR or FAR."""

    dmz: DmzNode

    def client(self, port: str, service: str) -> RawClient:
        index = [each["name"] for each in self.dmz.config["external"]].index(port)
        return RawClient(self.dmz.external_at(index), f"{service}.example")


@pytest.fixture(scope="module")
def place(module_world: World) -> Iterator[Place]:
    stop = threading.Event()
    origin = module_world.origin()

    def waits(connection: Connection, _head: Head) -> bool:
        """Until all tests have ended."""
        connection.wait(stop)
        return True

    origin.on("/waits", waits)
    settings = {"silent": {}, "near": NEAR, "far": FAR}
    ports = [{"name": name, "listen": loopback(), **more} for name, more in settings.items()]
    services = [
        {"match": f"{name}.example/", "upstream": origin.url, **at_service(more)}
        for name, more in (("silent", {"limits": {}, "timeouts": {}}), ("near", NEAR), ("far", FAR))
    ]
    yield Place(module_world.dmz({"external": ports, "services": services, **NEAR}))
    stop.set()


Probe = Callable[[RawClient, float], Response]


def answer(client: RawClient, patience: float, rest: bytes = b"") -> Response:
    """What comes in this time; else what comes after the rest of the request."""
    client.sock.settimeout(patience)
    try:
        return client.read_response()
    except TimeoutError:
        if not rest:
            return Response(200, "still waiting", 1, Headers([]))
        client.sock.settimeout(DEADLINE)
        client.send(rest)
        return client.read_response()


def head(client: RawClient, _patience: float) -> Response:
    return client.request(fields=[("X-Large", "x" * 12_000)])


def headers(client: RawClient, _patience: float) -> Response:
    return client.request(fields=[(f"X-{number}", "1") for number in range(50)])


def uri(client: RawClient, _patience: float) -> Response:
    return client.request(target="/" + "u" * 200)


def body(client: RawClient, _patience: float) -> Response:
    return client.request("POST", body=b"x" * 2000)


def head_time(client: RawClient, patience: float) -> Response:
    client.send(f"GET / HTTP/1.1\r\nHost: {client.host}\r\n".encode())
    return answer(client, patience, b"\r\n")


def body_time(client: RawClient, patience: float) -> Response:
    """Half of a body, and nothing for a while: too slow."""
    client.send_request("POST", "/", [("Content-Length", "10")])
    client.send(b"12345")
    return answer(client, patience, b"67890")


def first_byte(client: RawClient, patience: float) -> Response:
    client.send_request(target="/waits")
    return answer(client, patience)


PROBES: dict[str, tuple[Probe, int, str]] = {
    "head": (head, 431, "head-too-large"),
    "headers": (headers, 431, "head-too-large"),
    "uri": (uri, 414, "head-too-large"),
    "body": (body, 413, "body-too-large"),
    "timeouts.head": (head_time, 408, "request-timeout"),
    "min_rate": (body_time, 408, "request-timeout"),
    "first_byte": (first_byte, 504, "upstream-timeout"),
}
OF_PORTS_ONLY = ("timeouts.head",)
# A port reads a head before it knows whose it is: the smaller one counts, the port's or the service's.
OF_HEADS = ("head", "headers", "uri")


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize(
    ("port", "service", "counts"),
    [
        ("silent", "silent", "near"),
        ("near", "silent", "near"),
        ("far", "silent", "far"),
        ("silent", "far", "far"),
        ("near", "far", "far"),
        ("silent", "near", "near"),
        ("far", "near", "near"),
    ],
)
def test_the_nearest_counts(place: Place, name: str, port: str, service: str, counts: str) -> None:
    probe, status, code = PROBES[name]
    if name in OF_PORTS_ONLY and service != "silent":
        service, counts = "silent", "far" if port == "far" else "near"
    if name in OF_HEADS and port != "far":
        counts = "near"
    with place.client(port, service) as client:
        response = probe(client, DEADLINE if counts == "near" else LONGER_THAN_NEAR_S)
    if counts == "near":
        assert_problem(response, status, code)
    else:
        assert response.status == 200
