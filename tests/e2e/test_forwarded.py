"""Whose a request is: forged, told by proxies that are trusted or not, and numbered. Seen by a raw origin."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.harness.client import fetch
from tests.harness.message import Headers, Response
from tests.harness.nodes import Pair, World, everything, loopback
from tests.harness.servers import Haproxy

pytestmark = pytest.mark.quick

HERE = "127.0.0.1"
FORGED = [
    ("X-Forwarded-For", "6.6.6.6"),
    ("x-forwarded-for", "7.7.7.7"),
    ("X_Forwarded_For", "6.6.6.6"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
    ("X-Real-IP", "6.6.6.6"),
    ("Forwarded", "for=6.6.6.6;proto=https"),
    ("Broker-User", "root"),
    ("BROKER-USER", "root"),
    ("Broker_User", "root"),
    ("broker-anything", "x"),
    ("Client-Cert", ":AAAA:"),
    ("Client-Cert-Chain", ":AAAA:"),
    ("Client_Cert", ":AAAA:"),
    ("X-Forwarded-Client-Cert", "Hash=00"),
    ("X_Forwarded_Client_Cert", "Hash=00"),
    ("x-forwarded_client-cert", "Hash=00"),
]


def seen(response: Response) -> Headers:
    assert response.status == 200, response
    return Headers([(name, value) for name, value in json.loads(response.body)["fields"]])


def values(headers: Headers, name: str) -> list[str]:
    return [value for key, value in headers.fields if key.lower().replace("_", "-") == name.lower()]


def test_a_client_says_nothing_of_itself(pair: Pair) -> None:
    for extra in ([], [("Connection", "X-Forwarded-For, Forwarded, Broker-User, close")]):
        headers = seen(pair.fetch(fields=[*FORGED, *extra]))
        assert values(headers, "X-Forwarded-For") == [HERE]
        assert values(headers, "X-Forwarded-Proto") == ["http"]
        assert values(headers, "X-Forwarded-Host") == ["test.example"]
        assert values(headers, "Forwarded") == [f"for={HERE};host=test.example;proto=http"]
        names = {name.lower().replace("_", "-") for name, _ in headers.fields}
        assert not {
            name for name in names if "broker" in name or "cert" in name or "real" in name or "port" in name
        }


def test_every_request_has_an_id(pair: Pair) -> None:
    made = set()
    for _ in range(20):
        (found,) = values(seen(pair.fetch()), "X-Request-Id")
        assert re.fullmatch("[0-9a-f]{32}", found)
        made.add(found)
    assert len(made) == 20
    assert values(seen(pair.fetch(fields=[("X-Request-Id", "order-17")])), "X-Request-Id") == ["order-17"]
    for bad in ('a"b', "a b", "x" * 200, ""):
        (found,) = values(seen(pair.fetch(fields=[("X-Request-Id", bad)])), "X-Request-Id")
        assert re.fullmatch("[0-9a-f]{32}", found)


def trusting(world: World, proxies: Any = HERE, **keys: Any) -> Pair:
    port = {"name": "web", "listen": loopback(), "trusted_proxies": proxies, **keys}
    return world.pair(dmz={"external": [port]})


def test_a_trusted_proxy_is_believed(world: World) -> None:
    pair = trusting(world, [HERE, "10.0.0.0/8"])
    with pair.client() as client:  # one connection of the proxy, many clients
        for sent, client_address in (
            ("203.0.113.9", "203.0.113.9"),
            ("6.6.6.6, 203.0.113.9, 10.0.0.2", "203.0.113.9"),
            ("2001:4860::1", "2001:4860::1"),
        ):
            headers = seen(client.request(fields=[("X-Forwarded-For", sent), ("X-Forwarded-Proto", "https")]))
            (found,) = values(headers, "X-Forwarded-For")
            assert found.split(", ")[0] == client_address
            assert found.endswith(f", {HERE}")
            assert values(headers, "X-Forwarded-Proto") == ["https"]
        headers = seen(client.request(fields=[("Forwarded", "for=203.0.113.8;proto=https")]))
        assert values(headers, "X-Forwarded-For") == [f"203.0.113.8, {HERE}"]
        headers = seen(client.request(fields=FORGED[8:]))
        names = {name.lower().replace("_", "-") for name, _ in headers.fields}
        assert not {name for name in names if "broker" in name or "cert" in name}


def test_others_are_not_believed(world: World) -> None:
    headers = seen(trusting(world, "192.0.2.1").fetch(fields=FORGED))
    assert values(headers, "X-Forwarded-For") == [HERE]


def test_rules_for_addresses_look_at_the_client(world: World) -> None:
    pair = trusting(world, allow=["203.0.113.0/24"], deny=["203.0.113.66"])
    with pair.client() as client:
        for sent, status in (
            ("203.0.113.9", 200),
            ("203.0.113.66", 403),
            ("192.0.2.9", 403),
            ("203.0.113.9, 192.0.2.9", 403),
            ("203.0.113.9", 200),
        ):
            response = client.request(fields=[("X-Forwarded-For", sent)])
            assert response.status == status, sent
        assert client.request().status == 403  # the proxy itself is not allowed, and speaks for nobody
    targets = [request for connection in pair.origin.connections for request in connection.requests]
    assert len(targets) == 2


def test_behind_a_real_proxy(world: World, tmp_path: Path) -> None:
    """HAProxy adds X-Forwarded-For; what the client forged stands left of that."""
    origin = world.origin()
    port = {"name": "web", "listen": loopback(), "trusted_proxies": "127.0.0.2"}
    node = world.dmz({"external": [port]})
    world.agent(node.registration_url(), [everything(origin)])
    haproxy = Haproxy(tmp_path, node.external[1], "option forwardfor", "source 127.0.0.2")
    try:
        headers = seen(fetch(haproxy.address, fields=FORGED[:1]))
        assert values(headers, "X-Forwarded-For") == [f"{HERE}, 127.0.0.2"]
    finally:
        haproxy.close()
