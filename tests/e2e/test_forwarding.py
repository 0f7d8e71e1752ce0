"""What reaches the service of a request's head, and what reaches the client of a response's."""

import json
from typing import Any

import pytest

from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import Pair, World, loopback
from tests.harness.origin import Connection

pytestmark = pytest.mark.quick


def seen_by_origin(pair: Pair, raw: bytes) -> dict[str, Any]:
    with pair.client() as client:
        client.send(raw)
        value = json.loads(client.read_response().body)
        assert isinstance(value, dict)
        return value


def values(seen: dict[str, Any], name: str) -> list[str]:
    return [value for key, value in seen["fields"] if key.lower() == name.lower()]


TARGETS = [
    "/",
    "/plain",
    "/a/b/c?x=1&y=2",
    "/percent%20encoded/%7Euser/%C3%A4",
    "/lower%c3%a4/upper%C3%A4",
    "/query?only=%2F..%2F&&;==",
    "/?",
    "/trailing/",
    "/semi;colon=1,comma:colon@at",
    "/~tilde/$dollar/!bang/'quote'/(paren)/*star*/+plus",
    "/empty//segments",
    "/?url=http://other.example/path",
]


@pytest.mark.parametrize("target", TARGETS)
def test_the_target_arrives_as_sent(pair: Pair, target: str) -> None:
    seen = seen_by_origin(pair, f"GET {target} HTTP/1.1\r\nHost: test.example\r\n\r\n".encode())
    assert seen["start"] == f"GET {target} HTTP/1.1"


@pytest.mark.parametrize(
    "host", ["test.example", "TEST.Example", "test.example:8080", "192.0.2.1", "[2001:db8::1]:80"]
)
def test_the_host_arrives_as_sent(pair: Pair, host: str) -> None:
    seen = seen_by_origin(pair, f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    assert values(seen, "Host") == [host]
    assert values(seen, "X-Forwarded-Host") == [host]


def test_forwarding_fields_are_set(pair: Pair) -> None:
    seen = seen_by_origin(pair, b"GET / HTTP/1.1\r\nHost: test.example\r\n\r\n")
    assert values(seen, "X-Forwarded-For") == ["127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["http"]
    assert values(seen, "X-Forwarded-Host") == ["test.example"]
    assert len(values(seen, "Via")) == 1 and values(seen, "Via")[0].startswith("1.1 ")


def test_a_client_cannot_forge_forwarding_fields(pair: Pair) -> None:
    """It is a stranger: what it claims about where it comes from is not passed on."""
    seen = seen_by_origin(
        pair,
        b"GET / HTTP/1.1\r\nHost: test.example\r\nX-Forwarded-For: 10.0.0.1\r\nx-forwarded-proto: https\r\n"
        b"X-FORWARDED-HOST: evil.example\r\nForwarded: for=10.0.0.1\r\n\r\n",
    )
    assert values(seen, "X-Forwarded-For") == ["127.0.0.1"]
    assert values(seen, "X-Forwarded-Proto") == ["http"]
    assert values(seen, "X-Forwarded-Host") == ["test.example"]
    assert not [value for value in values(seen, "Forwarded") if "10.0.0.1" in value]


def test_via_of_earlier_hops_is_kept(pair: Pair) -> None:
    seen = seen_by_origin(pair, b"GET / HTTP/1.0\r\nHost: a\r\nVia: 1.1 first\r\n\r\n")
    via = [part.strip() for value in values(seen, "Via") for part in value.split(",")]
    assert via[0] == "1.1 first" and via[1].startswith("1.0 ")


def test_hop_by_hop_fields_stay_on_their_hop(pair: Pair) -> None:
    seen = seen_by_origin(
        pair,
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, X-Mine\r\nX-Mine: secret\r\n"
        b"Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive\r\nTE: trailers\r\nX-Yours: kept\r\n\r\n",
    )
    for name in ("X-Mine", "Keep-Alive", "Proxy-Connection"):
        assert not values(seen, name), f"{name} was forwarded"
    assert values(seen, "X-Yours") == ["kept"]
    assert "x-mine" not in ",".join(values(seen, "Connection")).lower()


def test_connection_cannot_remove_what_must_stay(pair: Pair) -> None:
    """Naming an end-to-end field as hop-by-hop must not strip what the service relies on."""
    with pair.client() as client:
        client.send(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: Host, X-Forwarded-For, Content-Length\r\n"
            b"Content-Length: 5\r\n\r\nhello"
        )
        response = client.read_response()
    if response.status == 200:
        seen = json.loads(response.body)
        assert values(seen, "Host") == ["a"] and values(seen, "X-Forwarded-For") == ["127.0.0.1"]
        assert seen["size"] == 5
    else:
        assert response.status == 400


def test_order_spelling_and_repetition_of_fields(pair: Pair) -> None:
    fields = [
        ("x-lower", "1"),
        ("X-UPPER", "2"),
        ("Cookie", "a=1; b=2"),
        ("x-Mixed-Case", "3"),
        ("X-Empty", ""),
        ("X-Many", "first"),
        ("X-Many", "second"),
        ("X-Odd", 'tab\tand "quotes" and %00 and ÿ'),
        ("Accept", "*/*"),
    ]
    raw = "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields) + "\r\n"
    seen = seen_by_origin(pair, raw.encode("latin-1"))
    names = {name for name, _ in fields}
    assert [(name, value) for name, value in seen["fields"] if name in names] == fields


def test_credentials_and_cookies_pass(pair: Pair) -> None:
    seen = seen_by_origin(
        pair, b"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Basic eDp5\r\nCookie: s=1\r\n\r\n"
    )
    assert values(seen, "Authorization") == ["Basic eDp5"] and values(seen, "Cookie") == ["s=1"]


def respond(pair: Pair, target: str, fields: bytes) -> str:
    def script(connection: Connection, _head: Head) -> None:
        connection.send(b"HTTP/1.1 200 Fine By Me\r\n" + fields + b"Content-Length: 2\r\n\r\nok")

    return pair.origin.on(target, script)


def test_response_fields_arrive_as_sent(pair: Pair) -> None:
    target = respond(
        pair,
        "/fields",
        b"server: odd/1.0\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2, c=3\r\n"
        b"X-Empty:\r\nDate: long ago\r\n"
        b"Location: http://internal.example:1234/x\r\nX-Latin: \xe4\r\n",
    )
    response = pair.fetch(target)
    assert response.reason == "Fine By Me"
    assert response.headers.all("Set-Cookie") == ["a=1; Path=/", "b=2, c=3"]
    assert response.headers["X-Empty"] == "" and response.headers["Date"] == "long ago"
    assert response.headers["Location"] == "http://internal.example:1234/x"
    assert response.headers["X-Latin"] == "ä"
    assert [name for name, _ in response.headers.fields][:2] == ["server", "Set-Cookie"]


def test_hop_by_hop_fields_of_a_response_stay_there(pair: Pair) -> None:
    target = respond(
        pair,
        "/hop",
        b"Connection: X-Internal\r\nX-Internal: secret\r\nKeep-Alive: timeout=99\r\nX-Kept: 1\r\n",
    )
    response = pair.fetch(target)
    assert "X-Internal" not in response.headers and "Keep-Alive" not in response.headers
    assert response.headers["X-Kept"] == "1"


def test_broker_fields_cannot_be_confused(pair: Pair) -> None:
    """Only a node's own answers carry Broker-Error: what a service says is not."""
    forged = (
        b"Broker-Error: no-agent\r\nbroker-delivery: never-sent\r\nBroker_Error: x\r\nBroker-User: root\r\n"
    )
    for target in ("/plain", respond(pair, "/forged", forged)):
        response = pair.fetch(target)
        assert response.status == 200
        assert not [name for name, _ in response.headers.fields if name.lower().startswith("broker")]


def test_a_local_service_gets_the_same(world: World) -> None:
    origin = world.origin()
    dmz = world.dmz({"services": [{"match": "/", "upstream": origin.url}]})
    with RawClient(dmz.external) as client:
        client.send(b"GET /x?y HTTP/1.1\r\nHost: Local.Example\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n")
        seen = json.loads(client.read_response().body)
    assert seen["start"] == "GET /x?y HTTP/1.1"
    assert values(seen, "Host") == ["Local.Example"]
    assert values(seen, "X-Forwarded-For") == ["127.0.0.1"]
    assert len(values(seen, "Via")) == 1


def test_the_address_of_an_ipv6_client(world: World) -> None:
    origin = world.origin(family="tcp6")
    dmz = world.dmz({"external": [{"name": "web", "listen": loopback(host="::1")}]})
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": origin.url}])
    seen = json.loads(dmz.fetch("/").body)
    assert values(seen, "X-Forwarded-For") == ["::1"]
