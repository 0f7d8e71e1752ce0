"""Hosts and paths that can be read in several ways: whoever is reached is the right one in every reading.

Each service judges what it received, with readings of its own: as it came, decoded once or twice, with dots
resolved, slashes merged, parameters dropped. What it got must be its own in all of them; the rest was refused.
"""

# ruff: noqa: E501

import itertools
import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

import pytest

from tests.e2e.hostile import assert_unharmed, run_all
from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import World
from tests.harness.origin import Connection

SERVICES = {
    "a": "a.example",
    "a-api": "a.example/api",
    "a-v2": "a.example/api/v2",
    "b": "b.example/open",
    "wild": "*.w.example",
}

# The authority as the client writes it.
HOSTS = [
    "a.example", "A.EXAMPLE", "a.example:80", "a.example:8443", "a.example.", "a.example.:80", "b.example", "b.example.",
    "x.w.example", "w.example", "a.example.w.example", "a.example%2eb.example", "a.example%00.b.example", "a_example",
    "b.example:80", "b.example@a.example", "[::1]", "127.0.0.1", "xn--a.example", "-a.example", "a..example", ".a.example",
]  # fmt: skip
PATHS = [
    "/", "/api", "/api/", "/api/x", "/API", "/apix", "/api/v2", "/api/v2/x", "/api%2fv2", "/api/%762", "/%61pi", "/%61%70%69/v2",
    "/api/../x", "/api/./v2", "/api/v2/..", "/api/v2/../v1", "//api", "/api//v2", "/x/../api/v2", "/api/%2e%2e/x", "/api/%2E/v2",
    "/api/v2/%2e%2e%2fv1", "/api/..;/x", "/api;x=y/v2", "/api/v2;x", "/%2e/api", "/%252e%252e/api", "/api%252fv2", "/open", "/open/x",
    "/open/../secret", "/open/%2e%2e/secret", "/secret/../open", "/open%2f..%2fsecret", "/open/..%5csecret", "/open?x=/../api",
    "/?/api/v2", "/api?/../", "/open/%00", "/open%00/x", "/api/v2%3fx", "/api%23", "/open/...", "/open/.../x", "/..", "/../api",
    "/%2e%2e/%2e%2e/open", "/open/%c0%ae%c0%ae/secret", "/open/x%2f..%2f..%2fsecret", "///open", "/open/",
]  # fmt: skip


def owner(host: str, path: str) -> str | None:
    """The service of one reading, by the contract: exact host before wildcard, the longest path on segments."""
    best: tuple[int, str] | None = None
    for name, match in SERVICES.items():
        wanted, _, prefix = match.partition("/")
        if wanted.startswith("*."):
            if not host.endswith(wanted[1:]) or host == wanted[2:]:
                continue
        elif host != wanted:
            continue
        prefix = "/" + prefix if prefix else ""
        if (path == prefix or path.startswith(prefix + "/") or not prefix) and (
            best is None or len(prefix) > best[0]
        ):
            best = (len(prefix), name)
    return best[1] if best else None


def unreserved(code: str) -> str:
    return unquote(code) if re.fullmatch(r"[A-Za-z0-9._~-]", unquote(code)) else code


def readings(path: str) -> set[str]:
    """What upstreams make of a path."""
    # That %61 is "a" is no matter of opinion (RFC 3986 6.2.2.2).
    path = re.sub(r"%[0-9A-Fa-f]{2}", lambda code: unreserved(code[0]), path)
    decoded = {path, unquote(path), unquote(unquote(path))}
    slashes = {reading.replace("\\", "/") for reading in decoded} | decoded
    plain = slashes | {re.sub(r";[^/]*", "", reading) for reading in slashes}
    merged = plain | {re.sub("/+", "/", reading) for reading in plain}
    resolved = {
        posixpath.normpath(re.sub("^/+", "/", reading)) for reading in merged if reading.startswith("/")
    }
    return merged | resolved


def host_of(value: str) -> str:
    return re.sub(r":\d+$", "", value).lower().removesuffix(".")


@dataclass
class Judge:
    """A service that knows what is its own."""

    name: str
    received: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def __call__(self, connection: Connection, head: Head) -> None:
        host = host_of(head.headers["Host"])
        path = head.target.partition("?")[0]
        owners = {owner(host, reading) for reading in readings(path)}
        if owners != {self.name} or host_of(head.headers["X-Forwarded-Host"]) != host:
            self.wrong.append(f"{head.start}, Host: {head.headers['Host']} is {owners}")
        self.received.append(head.start)
        connection.answer(200, self.name.encode())


@dataclass
class Scene:
    address: tuple[str, int]
    judges: list[Judge]


def scene(world: World, delegated: bool) -> Scene:
    judges = [Judge(name) for name in SERVICES]
    services = []
    for judge in judges:
        origin = world.origin(judge.name)
        origin.default = judge
        services.append({"match": SERVICES[judge.name], "upstream": origin.url})
    if not delegated:
        return Scene(world.dmz({"services": services}).external, judges)
    dmz = world.dmz()
    world.agent(dmz.registration_url(), services)
    return Scene(dmz.external, judges)


@pytest.fixture(params=["tunnel", "local"])
def judged(request: pytest.FixtureRequest, world: World) -> Iterator[Scene]:
    judged = scene(world, request.param == "tunnel")
    yield judged
    for judge in judged.judges:
        assert not judge.wrong, judge.wrong
        assert judge.received, f"nothing has reached {judge.name}"
    assert_unharmed(world)


def forms(host: str, path: str) -> list[tuple[str, str]]:
    """Target and Host: in origin form, and in absolute form with the same and with another Host."""
    return [
        (path, host),
        (f"http://{host}{path}", host),
        (f"http://{host}{path}", host.upper()),
        (f"http://{host}{path}", "b.example"),
        (f"http://user@{host}{path}", host),
    ]


def test_whoever_is_reached_is_the_right_one_in_every_reading(judged: Scene) -> None:
    def ask(host: str) -> None:
        for path in PATHS:
            for target, given in forms(host, path):
                with RawClient(judged.address) as client:
                    client.send(f"GET {target} HTTP/1.1\r\nHost: {given}\r\n\r\n".encode())
                    response = client.read_response()
                assert response.status in (200, 400, 404), (target, given)
                authority = target.startswith("http") and target.split("/")[2]
                if authority and "@" in authority:
                    assert response.status == 400, (target, given)
                if authority and host_of(authority) != host_of(given):
                    assert response.status == 400, (target, given)

    run_all([(host, lambda host=host: ask(host)) for host in HOSTS])  # type: ignore[misc]


def test_plain_paths_and_hosts_are_found(judged: Scene) -> None:
    """So that the test above is not passed by refusing everything."""
    for (host, path), form in itertools.product(
        [
            ("a.example", "/x"),
            ("a.example", "/api/x"),
            ("a.example", "/api/v2/x"),
            ("b.example", "/open/x"),
            ("q.w.example", "/"),
        ],
        range(3),
    ):
        target, given = forms(host, path)[form]
        with RawClient(judged.address) as client:
            client.send(f"GET {target} HTTP/1.1\r\nHost: {given}\r\n\r\n".encode())
            assert client.read_response().body.decode() == owner(host, path)
