"""Clients that try to get more than they may: paths and hosts in disguise, forged fields."""

from __future__ import annotations

import base64
import contextlib
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from tests.e2e.test_client_auth import (
    FORGED,
    basic,
    bearer,
    certified,
    code,
    guarded,
    over_tls,
    requests_at,
    somebody,
    told,
    users,
    values,
)
from tests.harness.certificates import Authority
from tests.harness.client import RawClient, request_head
from tests.harness.message import Head
from tests.harness.nodes import Pair, World, loopback
from tests.harness.origin import Connection
from tests.harness.waiting import wait_until

# bob may call orders.example, and /public of every host.
PATHS = [
    *("/public/../private", "/public/%2e%2e/private", "/public/.%2E/private", "/public/..%2fprivate"),
    *("/public/..%5cprivate", "/public/..\\private", "/public//../../private", "/public/./../private"),
    *("/public;/../private", "/public/..;/private", "/public;x=1/../private", "/public/;/../../private"),
    *(
        "/public%00/../private",
        "/public%2f..%2fprivate",
        "/public/%252e%252e/private",
        "/public%2fprivate/..",
    ),
    *(
        "//private",
        "/private//public",
        "/private/;/public",
        "/PUBLIC",
        "/publicly",
        "/public.",
        "/p%75blic/../x",
    ),
    *("/private?/public", "/private#/public", "/private%3f/public", "/private%23/public", "/%2e/private"),
    *("/./private", "//public/../private", "/private/..%2fpublic", "/x/%2e%2e/private", "/..//private"),
    *("http://other.example/private", "http://other.example//private", "http://other.example"),
    *("http://orders.example@other.example/private", "https://other.example/private", "orders.example:80"),
]
HOSTS = [
    *("orders.example.evil", "evil-orders.example", "x.orders.example", "orders.example,other.example"),
    *(
        "orders.example:80:80",
        "orders.example:x",
        "user@orders.example",
        "orders.example/",
        "[orders.example]",
    ),
    *("orders.example%00", "orders.example%2e", "orders.example..", ".orders.example", "orders..example"),
    *("orders.example\\", "*.example", "*", "orders.example#", "orders.example?"),
]


def most_generous(target: str) -> str:
    """The path that the most generous of readers could find in a target."""
    path = target.partition("?")[0].partition("#")[0]
    for _ in range(3):
        path = unquote(path).replace("\\", "/")
    parts: list[str] = []
    for part in path.split("/"):
        name = part.partition(";")[0].rstrip(". ") if part.partition(";")[0] not in (".", "..") else part
        name = part.partition(";")[0] if part.partition(";")[0] in (".", "..") else name
        if name == "..":
            parts = parts[:-1]
        elif name not in ("", "."):
            parts.append(name)
    return "/" + "/".join(parts)


@pytest.fixture(scope="module")
def pair(module_world: World) -> Pair:
    return guarded(module_world, auth=["token", "basic"])


def seen(pair: Pair) -> list[Head]:
    return [head for connection in pair.origin.connections for head in connection.requests]


@pytest.mark.quick
def test_paths_in_disguise(pair: Pair) -> None:
    """Whatever reaches the service is under /public in every reading of it, or is refused."""
    for target in PATHS:
        before = len(seen(pair))
        with pair.client() as client:
            client.send(
                f"GET {target} HTTP/1.1\r\nHost: other.example\r\n{': '.join(bearer('bob'))}\r\n\r\n".encode()
            )
            status = client.read_response().status
        assert status in (200, 400, 403, 404), (target, status)
        new = seen(pair)[before:]
        assert bool(new) == (status == 200), target
        for head in new:
            assert most_generous(head.target).startswith("/public"), (target, head.target)


def test_hosts_in_disguise(pair: Pair) -> None:
    for host in HOSTS:
        before = len(seen(pair))
        with pair.client() as client:
            client.send(f"GET /x HTTP/1.1\r\nHost: {host}\r\n{': '.join(bearer('bob'))}\r\n\r\n".encode())
            assert client.read_response().status in (400, 403), host
        assert len(seen(pair)) == before, host
    for fields, target, status in (
        ("Host: orders.example\r\nHost: other.example\r\n", "/x", 400),
        ("Host: other.example\r\nHost: orders.example\r\n", "/x", 400),
        ("Host: other.example\r\nX-Forwarded-Host: orders.example\r\n", "/x", 403),
        ("Host: other.example\r\nForwarded: host=orders.example\r\n", "/x", 403),
        # Two readers could choose two of them.
        ("Host: orders.example\r\n", "http://other.example/x", 400),
        ("Host: other.example\r\n", "http://orders.example/x", 400),
        ("Host: orders.example\r\n", "http://orders.example/x", 200),
    ):
        with pair.client() as client:
            client.send(f"GET {target} HTTP/1.1\r\n{fields}{': '.join(bearer('bob'))}\r\n\r\n".encode())
            response = client.read_response()
        assert response.status == status, (fields, target)
        if status == 200:
            assert values(told(response), "Host") == ["orders.example"]


SPELLINGS = [
    *("Broker-User", "broker-user", "BROKER_USER", "Broker_User", "broker-User"),
    *("X-Forwarded-Client-Cert", "x_forwarded_client_cert", "X-Forwarded_Client-Cert"),
    *("Client-Cert", "CLIENT_CERT", "Client-Cert-Chain", "client_cert-chain", "Broker-Anything"),
    *("Broker.User", "X.Forwarded.Client.Cert", "Client~Cert", "broker!anything"),
]


@pytest.mark.parametrize("proof", [bearer("alice"), basic("alice")])
def test_forged_fields(pair: Pair, proof: tuple[str, str]) -> None:
    """In every spelling, repeated, named in Connection, in trailers: the broker alone tells the service."""
    every = ", ".join(SPELLINGS)
    ways: list[list[tuple[str, str]]] = [
        [(name, "root") for name in SPELLINGS],
        [(name, "root") for name in SPELLINGS * 3],
        [("Connection", f"keep-alive, {every}"), *[(name, "root") for name in SPELLINGS]],
        [("Connection", "Broker-User"), ("Connection", "authorization")],
        [("Authorization-", "x"), *FORGED],
    ]
    for fields in ways:
        headers = told(pair.fetch(fields=[proof, somebody(), *fields]))
        assert values(headers, "Broker-User") == ["alice"], fields
        assert values(headers, "Authorization") == []
        forged = [name for name, value in headers.fields if value == "root" or "anything" in name.lower()]
        assert not forged
    with pair.client(host="a") as client:
        client.send(
            request_head(
                "POST",
                "/",
                [("Host", "a"), proof, somebody(), ("Transfer-Encoding", "chunked"), ("Trailer", every)],
            )
            + b"1\r\nx\r\n0\r\n"
            + "".join(f"{name}: root\r\n" for name in SPELLINGS).encode()
            + b"\r\n"
        )
        response = client.read_response()
        body = json.loads(response.body)
        assert values(told(response), "Broker-User") == ["alice"]
        assert not [
            name for name, _ in body.get("trailers", []) if "broker" in name.lower() or "cert" in name.lower()
        ]


def test_without_credentials_nothing_is_told_at_all(module_world: World) -> None:
    open_pair = guarded(module_world, auth="none")
    headers = told(open_pair.fetch(fields=[(name, "root") for name in SPELLINGS]))
    assert not [name for name, value in headers.fields if value == "root"]


def test_credentials_are_those_of_one_request(pair: Pair) -> None:
    """Pipelined on one connection, each request is judged by its own."""
    wanted = [
        (bearer("alice"), 200),
        (bearer("carol"), 403),
        (("X-None", "1"), 401),
        (bearer("bob"), 403),
        (("Authorization", "Bearer wrong"), 401),
        (basic("alice"), 200),
        (("X-None", "1"), 401),
        (bearer("alice"), 200),
    ]
    before = requests_at(pair)
    with pair.client(host="a") as client:
        client.send(
            b"".join(request_head("GET", "/", [("Host", "a"), proof, somebody()]) for proof, _ in wanted)
        )
        for proof, status in wanted:
            response = client.read_response()
            assert response.status == status, proof
            if status == 200:
                assert values(told(response), "Broker-User") == ["alice"]
    assert requests_at(pair) == before + 3


def test_basic_credentials_of_every_shape(pair: Pair) -> None:
    def encoded(data: bytes) -> str:
        return base64.b64encode(data).decode()

    password = b"correct horse battery"
    for value in (
        encoded(b"alice:" + password)[:-1],
        encoded(b"alice:" + password) + "=",
        encoded(b"alice:" + password + b"\0"),
        encoded(b"alice\0:" + password),
        encoded(b"alice:" + password + b"\n"),
        encoded(b"Alice:" + password),
        encoded(b" alice:" + password),
        encoded(b"alice::" + password),
        encoded(b":" + password),
        encoded(b"alice:"),
        encoded(b":"),
        encoded(b""),
        encoded(b"\xff\xfe:" + password),
        encoded(b"alice:" + b"x" * 2900),
        encoded(b"alice:" + b"x" * 60_000),
        "=" * 40,
        encoded(b"alice:" + password) + " extra",
        encoded(b"alice:" + password)[:10] + " " + encoded(b"alice:" + password)[10:],
    ):
        response = pair.fetch(fields=[("Authorization", f"Basic {value}"), somebody()])
        assert response.status in (401, 400, 431), value[:60]
    assert pair.fetch(fields=[basic("alice"), somebody()]).status == 200


UPGRADE = [("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")]


def upgrades(pair: Pair) -> None:
    def talk(connection: Connection, _: Head) -> None:
        connection.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        while data := connection.reader.some(65536):
            connection.send(data)

    pair.origin.on("/public/ws", talk)


def open_socket(
    pair: Pair, *proof: tuple[str, str], client: RawClient | None = None
) -> tuple[RawClient, int]:
    client = pair.client(host="a") if client is None else client
    client.send(
        request_head(
            "GET", "/public/ws", [("Host", "a"), *UPGRADE, ("Sec-WebSocket-Key", "x" * 22 + "=="), *proof]
        )
    )
    head = client.reader.head("the answer")
    assert head is not None
    return client, int(head.start.split()[1])


def test_upgrades_are_asked_too(world: World) -> None:
    pair = guarded(world)
    upgrades(pair)
    for proof, status in ((bearer("carol"), 403), (somebody(), 401), (("Authorization", "Bearer x"), 401)):
        client, got = open_socket(pair, proof)
        assert got == status
        client.close()
    assert requests_at(pair) == 0
    client, got = open_socket(pair, bearer("bob"))
    with client:
        assert got == 101
        client.send(b"hello")
        assert client.reader.exactly(5, "the echo") == b"hello"


@pytest.mark.parametrize("how", ["right", "user", "admitted"])
def test_a_reload_cuts_what_may_not_run_any_more(world: World, how: str) -> None:
    """WebSocket connections and downloads of one user; another one's, and what is still allowed, go on."""
    pair = guarded(world)
    upgrades(pair)

    def drip(connection: Connection, _: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbegin")
        connection.reader.some(1)

    pair.origin.on("/public/slow", drip)
    hers, _ = open_socket(pair, bearer("alice"))
    his, _ = open_socket(pair, bearer("bob"))
    with pair.client(host="a") as download, hers, his:
        download.send(request_head("GET", "/public/slow", [("Host", "a"), bearer("bob")]))
        assert download.reader.exactly(5, "the status line")
        config: dict[str, Any] = pair.dmz.config
        if how == "right":
            config["users"][1]["may"]["call"] = ["orders.example/*"]
        elif how == "user":
            config["users"].pop(1)
        else:
            config["external"][0]["auth"] = {"kind": "token", "users": ["alice"]}
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200
        his.expect_closed()
        with contextlib.suppress(ConnectionError):
            assert len(download.reader.drain()) < 1000, "it ended early"
        hers.send(b"still here")
        assert hers.reader.exactly(10, "the echo") == b"still here"
        wait_until(lambda: pair.dmz.status()["external"][0]["failures"]["forbidden"] == 2, "both are counted")


def echoes(client: RawClient) -> bool:
    """Whether a socket of `open_socket` is still served."""
    try:
        client.send(b"still here")
        return bytes(client.reader.exactly(10, "the echo")) == b"still here"
    except (OSError, AssertionError):
        return False


def reload(pair: Pair, config: dict[str, Any]) -> None:
    pair.dmz.write(config)
    assert pair.dmz.admin_post("/reload").status == 200


def withdraw(pair: Pair, kind: str, gone: RawClient, stays: RawClient) -> None:
    """Another one of alice's is added, which cuts nothing; then the first of them is taken away."""
    config: dict[str, Any] = pair.dmz.config
    config["users"][0][kind].append(f"sha256:{'0' * 64}")
    reload(pair, config)
    assert echoes(gone) and echoes(stays)
    config["users"][0][kind].pop(0)
    reload(pair, config)
    gone.expect_closed()
    assert echoes(stays)


def test_a_reload_cuts_what_runs_by_a_credential_that_is_gone(world: World) -> None:
    """And by no other of the same user, nor by one that stays."""
    pair = guarded(world, auth=["token", "basic"])
    upgrades(pair)
    config: dict[str, Any] = pair.dmz.config
    by_token, _ = open_socket(pair, bearer("alice"))
    by_password, _ = open_socket(pair, basic("alice"))
    other, _ = open_socket(pair, bearer("bob"))
    with by_token, by_password, other:
        withdraw(pair, "tokens", by_token, by_password)
        config["users"][0]["passwords"].clear()
        reload(pair, config)
        by_password.expect_closed()
        assert echoes(other)
        config["external"][0]["auth"] = "basic"
        reload(pair, config)
        other.expect_closed()


@pytest.mark.quick
def test_a_reload_cuts_what_runs_by_a_certificate_that_is_gone(world: World, tmp_path: Path) -> None:
    """Whatever else its user may prove himself by."""
    authority = Authority(tmp_path)
    pair, files, _ = certified(world, authority, auth=["certificate", "token"])
    upgrades(pair)
    by_certificate, _ = open_socket(pair, client=over_tls(pair, authority, files))
    by_token, _ = open_socket(pair, bearer("alice"), client=over_tls(pair, authority, files))
    with by_certificate, by_token:
        withdraw(pair, "certificates", by_certificate, by_token)


def test_the_service_asks_for_more_than_the_port(world: World) -> None:
    """A service's own `auth` holds whatever the way to it: by host, by path, by the path in disguise."""
    origin = world.origin()
    services = [
        {"match": "/open", "upstream": origin.url, "auth": "none"},
        {"match": "/open/secret", "upstream": origin.url, "auth": {"kind": "token", "users": ["alice"]}},
        {"match": "/", "upstream": origin.url, "auth": "token"},
    ]
    node = world.dmz(
        {"external": [{"name": "web", "listen": loopback()}], "users": users(), "services": services}
    )
    for target in (
        *("/open/secret", "/open/secret/x", "/open/./secret", "/open/x/../secret", "/open/%73ecret"),
        *("/open//secret", "/open/secret;x", "/open%2fsecret", "/open/../open/secret", "/open/secret?x"),
    ):
        before = len(origin.requests)
        status = node.fetch(target).status
        assert status in (200, 400, 401), target
        for head in origin.requests[before:]:
            assert not most_generous(head.target).startswith("/open/secret"), (target, head.target)
        assert status != 200 or len(origin.requests) > before
    assert node.fetch("/open/secret", fields=[bearer("bob")]).status == 403
    assert node.fetch("/open/secret", fields=[bearer("alice")]).status == 200
    assert code(node.fetch("/elsewhere")) == (401, "unauthenticated")
