"""Clients prove who they are: tokens, passwords, certificates; who is refused, and what a service is told."""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from broker.config.model import Secret
from broker.config.passwords import format_password_hash, hash_password
from tests.harness.certificates import Authority, Files
from tests.harness.client import RawClient, chunked, connect, request_head
from tests.harness.message import Headers, Reader, Response, read_response
from tests.harness.nodes import Pair, Snippet, World, everything, loopback
from tests.harness.origin import Connection
from tests.harness.waiting import wait_until

HERE = "127.0.0.1"
TOKENS = {name: f"broker_{name}-{'x' * 30}" for name in ("alice", "bob", "carol", "agent")}
PASSWORDS = {"alice": "correct horse battery", "dora": "pâsswörd of dora"}
FORGED = [
    ("Broker-User", "root"),
    ("broker_user", "root"),
    ("X-Forwarded-Client-Cert", "Hash=1"),
    ("Client-Cert", ":AA==:"),
    ("Client_Cert_Chain", ":AA==:"),
]


def token_hash(name: str) -> str:
    return f"sha256:{hashlib.sha256(TOKENS[name].encode()).hexdigest()}"


def users() -> list[Snippet]:
    """alice may call everything, bob one host and a path, carol nothing; dora has a password only."""
    hashes = {name: format_password_hash(hash_password(Secret(text))) for name, text in PASSWORDS.items()}
    everything = {"call": ["*"]}
    return [
        {"name": "alice", "tokens": [token_hash("alice")], "passwords": [hashes["alice"]], "may": everything},
        {"name": "bob", "tokens": [token_hash("bob")], "may": {"call": ["orders.example/*", "/public"]}},
        {"name": "carol", "tokens": [token_hash("carol")], "may": {"call": []}},
        {"name": "dora", "passwords": [hashes["dora"]], "may": {"call": ["*"]}},
        {"name": "agent", "tokens": [token_hash("agent")], "may": {"services": ["*"], "tcp": ["*"]}},
    ]  # fmt: skip


def bearer(name: str) -> tuple[str, str]:
    return "Authorization", f"Bearer {TOKENS[name]}"


def basic(name: str, password: str | None = None) -> tuple[str, str]:
    pair = f"{name}:{PASSWORDS[name] if password is None else password}"
    return "Authorization", f"Basic {base64.b64encode(pair.encode()).decode()}"


def guarded(world: World, **port: Any) -> Pair:
    """A port that asks, in front of an agent that serves everything; we are a proxy that is trusted."""
    origin = world.origin()
    external = {"name": "web", "listen": loopback(), "trusted_proxies": HERE, "auth": "token", **port}
    node = world.dmz({"external": [external], "users": users()})
    token = world.directory / "agent.token"
    token.write_text(TOKENS["agent"])
    token.chmod(0o600)
    agent = world.agent([], [everything(origin)], start=False)
    agent.write({**agent.config, "connect": [{"url": node.registration_url(), "token_file": str(token)}]})
    agent.start()
    return Pair(node, agent, origin)


numbers = itertools.count(1)


def somebody() -> tuple[str, str]:
    """A client address of its own: failures are counted by address."""
    number = next(numbers)
    return "X-Forwarded-For", f"198.51.{number // 250}.{number % 250 + 1}"


def told(response: Response) -> Headers:
    assert response.status == 200, response
    return Headers([(name, value) for name, value in json.loads(response.body)["fields"]])


def values(headers: Headers, name: str) -> list[str]:
    return [value for key, value in headers.fields if key.lower().replace("_", "-") == name.lower()]


def code(response: Response) -> tuple[int, str]:
    return response.status, response.headers["Broker-Error"]


def requests_at(pair: Pair) -> int:
    return sum(len(connection.requests) for connection in pair.origin.connections)


@pytest.fixture(scope="module")
def shared(module_world: World) -> Pair:
    return guarded(module_world, auth=["token", "basic"])


@pytest.fixture
def pair(shared: Pair) -> Iterator[Pair]:
    yield shared
    shared.origin.raise_errors()
    for node in (shared.dmz, shared.agent):
        assert node.process.running, node.process.output
        node.process.assert_clean()


# --- tokens and passwords --------------------------------------------------------


@pytest.mark.quick
def test_who_proves_nothing_is_asked_to(pair: Pair) -> None:
    before = requests_at(pair)
    for fields in (
        [],
        [("Authorization", "Bearer wrong")],
        [("Authorization", "Bearer " + TOKENS["alice"][:-1])],
        [("Authorization", f"Digest {TOKENS['alice']}")],
        [("Authorization", TOKENS["alice"])],
        [("Authorization", "Bearer")],
        [("Authorization", "Basic !!!!")],
        [("Authorization", "Basic " + base64.b64encode(b"alice").decode())],
        [basic("alice", "wrong")],
        [basic("nobody", "wrong")],
        [basic("bob", TOKENS["bob"])],
        [("Proxy-Authorization", f"Bearer {TOKENS['alice']}")],
        [("Authorization_", f"Bearer {TOKENS['alice']}")],
        [("Authorization", "Bearer " + "x" * 5000)],
    ):
        response = pair.fetch(fields=[*fields, somebody()])
        assert code(response) == (401, "unauthenticated"), fields
        assert response.headers["Broker-Delivery"] == "never-sent"
        asked = [value for name, value in response.headers.fields if name == "WWW-Authenticate"]
        assert asked == ['Bearer realm="broker"', 'Basic realm="broker", charset="UTF-8"']
    assert code(pair.fetch(fields=[bearer("alice"), bearer("alice"), somebody()])) == (400, "bad-request")
    assert code(pair.fetch("/nowhere", "HEAD")) == (401, "unauthenticated")
    assert requests_at(pair) == before


@pytest.mark.quick
@pytest.mark.parametrize(
    "proof", [bearer("alice"), basic("alice"), ("authorization", "BEARER  " + TOKENS["alice"])]
)
def test_the_service_is_told_who_it_was(pair: Pair, proof: tuple[str, str]) -> None:
    with pair.client() as client:
        for _ in range(3):
            headers = told(client.request(fields=[proof, *FORGED, ("X-Other", "stays"), somebody()]))
            assert values(headers, "Broker-User") == ["alice"]
            assert values(headers, "Authorization") == []
            assert values(headers, "X-Other") == ["stays"]
            assert values(headers, "Client-Cert") == values(headers, "X-Forwarded-Client-Cert") == []


def test_passwords_of_any_letters(pair: Pair) -> None:
    assert values(told(pair.fetch(fields=[basic("dora"), somebody()])), "Broker-User") == ["dora"]


def test_a_refused_client_may_go_on(pair: Pair) -> None:
    """The connection lives where the request was read whole; its body never reaches the service."""
    with pair.client() as client:
        assert client.request("POST", body=b"secret" * 100, fields=[somebody()]).status == 401
        headers = told(client.request("POST", body=b"x", fields=[bearer("alice"), somebody()]))
        assert values(headers, "Broker-User") == ["alice"]
        assert code(client.request(fields=[bearer("carol")])) == (403, "forbidden")
        assert client.request(fields=[bearer("alice")]).status == 200
    with pair.client() as client:  # more than is kept: refused before the body has come
        client.send(request_head("POST", "/", [("Host", "a"), ("Content-Length", "1000000")]) + b"x" * 1000)
        assert client.read_response().status == 401
        client.expect_closed()
    assert not any(connection.received.count(b"secret") for connection in pair.origin.connections)


def test_what_comes_behind_a_password_waits_for_it(pair: Pair) -> None:
    """Bodies and pipelined requests that come while a password is looked at, whole or in pieces."""
    slow = basic("dora", "pâsswörd of dora")
    body = b"0123456789" * 5000
    with pair.client(host="a") as client:
        client.send(
            request_head("PUT", "/one", [("Host", "a"), slow, somebody(), ("Transfer-Encoding", "chunked")])
            + chunked([body[:7], body[7:]])
            + request_head("GET", "/two", [("Host", "a"), bearer("alice")])
            + request_head("GET", "/three", [("Host", "a"), basic("dora", "wrong"), somebody()])
            + request_head("GET", "/four", [("Host", "a"), bearer("alice")])
        )
        first = client.read_response()
        assert json.loads(first.body)["sha256"] == hashlib.sha256(body).hexdigest()
        assert values(told(first), "Broker-User") == ["dora"]
        assert values(told(client.read_response()), "Broker-User") == ["alice"]
        assert client.read_response().status == 401
        assert client.read_response().status == 200


def test_the_same_password_many_times_at_once(world: World) -> None:
    pair = guarded(world, auth="basic")
    found: list[int] = []

    def ask() -> None:
        found.append(pair.fetch(fields=[basic("alice"), ("X-Forwarded-For", "203.0.113.5")]).status)

    threads = [threading.Thread(target=ask) for _ in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [200] * 24


def test_a_password_is_remembered_over_a_reload_as_long_as_it_is_right(world: World) -> None:
    pair = guarded(world, auth="basic")
    config = pair.dmz.config
    with pair.client() as client:
        assert client.request(fields=[basic("alice")]).status == 200
        assert pair.dmz.admin_post("/reload").status == 200
        assert client.request(fields=[basic("alice")]).status == 200
        new = hash_password(Secret("another password"))
        config["users"][0]["passwords"] = [format_password_hash(new)]
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200
        assert client.request(fields=[basic("alice"), somebody()]).status == 401
        assert client.request(fields=[basic("alice", "another password"), somebody()]).status == 200


def test_a_client_that_leaves_while_its_password_is_looked_at(pair: Pair) -> None:
    with pair.client(host="a") as client:
        client.send(request_head("GET", "/", [("Host", "a"), basic("dora", "some other"), somebody()]))
    with pair.client(host="a") as client:
        client.send(request_head("GET", "/", [("Host", "a"), basic("dora", "and another"), somebody()]))
        client.reset()
    assert pair.fetch(fields=[bearer("alice")]).status == 200
    wait_until(lambda: pair.dmz.status()["external"][0]["connections"] == 0, "both are gone")


def test_guessing_is_slowed_down(pair: Pair) -> None:
    guesser = ("X-Forwarded-For", "203.0.113.77")
    assert pair.fetch(fields=[bearer("alice"), guesser]).status == 200
    statuses = [
        pair.fetch(fields=[("Authorization", f"Bearer guess-{number % 3}"), guesser]).status
        for number in range(30)
    ]
    assert statuses[:10] == [401] * 10
    assert 429 in statuses[10:]
    limited = pair.fetch(fields=[basic("alice", "guess"), guesser])
    assert code(limited) == (429, "rate-limited")
    assert int(limited.headers["Retry-After"]) >= 1
    assert pair.fetch(fields=[bearer("alice"), guesser]).status == 200  # known to be good
    assert pair.fetch(fields=[bearer("bob"), somebody()]).status == 403
    assert pair.fetch(fields=[guesser]).status == 401  # to ask is no guess


def test_rights(pair: Pair) -> None:
    for host, target, status in (
        ("orders.example", "/", 200),
        ("ORDERS.example:80", "/a?b", 200),
        ("orders.example.", "/a", 200),
        ("other.example", "/", 403),
        ("x.orders.example", "/", 403),
        ("other.example", "/public", 200),
        ("other.example", "/public/deep", 200),
        ("other.example", "/publicly", 403),
        ("other.example", "/Public", 403),
        ("other.example", "/public/../private", 403),
        ("other.example", "/x/../public", 400),
    ):
        response = pair.fetch(target, host=host, fields=[bearer("bob")])
        found = response.status
        assert found == status or (status in (400, 403) and found in (400, 403)), (host, target, found)
    before = requests_at(pair)
    assert code(pair.fetch(fields=[bearer("carol")])) == (403, "forbidden")
    assert requests_at(pair) == before
    assert pair.fetch(fields=[bearer("agent")]).status == 200  # nothing is said of what it may call


@pytest.mark.quick
def test_a_reload_changes_users_and_rights(world: World) -> None:
    pair = guarded(world, auth={"kind": "token", "users": ["alice", "bob"], "pass_credentials": True})
    config = pair.dmz.config

    def reload() -> None:
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200

    with pair.client() as client:
        headers = told(client.request(fields=[bearer("alice")]))
        assert values(headers, "Authorization") == [bearer("alice")[1]]
        assert code(client.request(fields=[bearer("agent")])) == (403, "forbidden")  # not of those let in
        config["users"][0]["may"] = {"call": ["nowhere.example"]}
        reload()
        assert code(client.request(fields=[bearer("alice")])) == (403, "forbidden")
        alice = config["users"].pop(0)
        config["external"][0]["auth"] = "token"
        reload()
        assert code(client.request(fields=[bearer("alice"), somebody()])) == (401, "unauthenticated")
        assert client.request(target="/public", fields=[bearer("bob")]).status == 200
        config["users"].append({**alice, "may": {"call": ["*"]}})
        reload()
        headers = told(client.request(fields=[bearer("alice")]))
        assert values(headers, "Authorization") == []
        del config["external"][0]["auth"]
        reload()
        headers = told(client.request(fields=[bearer("alice"), *FORGED]))
        assert values(headers, "Broker-User") == []
        assert values(headers, "Authorization") == [bearer("alice")[1]]  # not for us


def test_services_of_their_own(world: World) -> None:
    """A port asks nothing and one service does; or the other way round."""
    origin = world.origin()
    port = {"name": "web", "listen": loopback()}
    services = [
        {"match": "/open", "upstream": origin.url, "auth": "none"},
        {"match": "/closed", "upstream": origin.url, "auth": {"kind": "token", "users": ["alice"]}},
        {"match": "/", "upstream": origin.url},
    ]
    registration: list[Snippet] = []
    for auth, statuses in ((None, (200, 401, 200)), ("token", (200, 401, 401))):
        external = {**port, "listen": loopback(), **({"auth": auth} if auth else {})}
        node = world.dmz(
            {"external": [external], "registration": registration, "users": users(), "services": services}
        )
        with RawClient(node.external) as client:
            found = [client.request(target=target).status for target in ("/open", "/closed/x", "/other")]
            assert tuple(found) == statuses
            assert client.request(target="/closed", fields=[bearer("alice")]).status == 200
            assert code(client.request(target="/closed", fields=[bearer("bob")])) == (403, "forbidden")
            assert client.request(target="/open", fields=[bearer("bob")]).status == 200


# --- certificates -------------------------------------------------------------------


def certified(
    world: World, authority: Authority, mode: str = "request", **port: Any
) -> tuple[Pair, Files, Files]:
    """A port that takes client certificates; alice's belongs to a user, mallory's to nobody."""
    server = authority.issue("shop.example")
    alice, mallory = (
        authority.issue("alice.example", subject="alice"),
        authority.issue(subject='Mallory "M", Inc'),
    )
    tls = {"certificates": [server.snippet()], "client": {"mode": mode, "ca": str(authority.ca)}}
    pair = guarded(world, listen=loopback("https"), tls=tls, **port)
    config = pair.dmz.config
    leaf = x509.load_pem_x509_certificate(alice.cert.read_bytes())
    config["users"][0]["certificates"] = [
        f"sha256:{hashlib.sha256(leaf.public_bytes(Encoding.DER)).hexdigest()}"
    ]
    config["external"][0]["auth"] = port.get("auth", "certificate")
    pair.dmz.write(config)
    assert pair.dmz.admin_post("/reload").status == 200
    return pair, alice, mallory


def over_tls(pair: Pair, authority: Authority, files: Files | None) -> RawClient:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if files is not None:
        context.load_cert_chain(files.cert, files.key)
    client = RawClient.__new__(RawClient)
    client.host = "shop.example"
    client.sock = context.wrap_socket(connect(pair.address), server_hostname="shop.example")
    client.reader = Reader(client.sock)
    return client


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.mark.quick
def test_names_that_can_not_be_read_are_left_out(world: World, authority: Authority) -> None:
    """And the rest is told: the certificate itself above all."""
    fields = ["X-Forwarded-Client-Cert", "Client-Cert"]
    pair, *_ = certified(world, authority, auth="none", client_cert_fields=fields)
    odd = authority.strange("odd", names=b"\x30\x03\x82\x01\xff")
    der = ssl.PEM_cert_to_DER_cert(odd.cert.read_text())
    with over_tls(pair, authority, odd) as client:
        headers = told(client.request(fields=FORGED))
    shown = f'Hash={hashlib.sha256(der).hexdigest()};Subject="CN=odd"'
    assert values(headers, "X-Forwarded-Client-Cert") == [shown]
    assert values(headers, "Client-Cert") == [f":{base64.b64encode(der).decode()}:"]


@pytest.mark.quick
def test_certificates_of_users(world: World, authority: Authority) -> None:
    fields = ["X-Forwarded-Client-Cert", "Client-Cert"]
    pair, alice, mallory = certified(world, authority, auth="none", client_cert_fields=fields)
    config = pair.dmz.config
    der = x509.load_pem_x509_certificate(alice.cert.read_bytes()).public_bytes(Encoding.DER)
    digest = hashlib.sha256(der).hexdigest()
    with over_tls(pair, authority, alice) as client, over_tls(pair, authority, mallory) as other:
        headers = told(client.request(fields=FORGED))
        assert values(headers, "Broker-User") == []
        shown = f'Hash={digest};Subject="CN=alice";DNS="alice.example"'
        assert values(headers, "X-Forwarded-Client-Cert") == [shown]
        assert values(headers, "Client-Cert") == [f":{base64.b64encode(der).decode()}:"]
        (shown,) = values(told(other.request()), "X-Forwarded-Client-Cert")
        assert shown.endswith(r'Subject="CN=Mallory \5C\"M\5C\"\5C, Inc"')
        config["external"][0]["auth"] = "certificate"
        config["external"][0]["client_cert_fields"] = ["Client-Cert"]
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200
        headers = told(client.request(fields=FORGED))
        assert values(headers, "Broker-User") == ["alice"]
        assert values(headers, "X-Forwarded-Client-Cert") == []
        assert len(values(headers, "Client-Cert")) == 1
        before = requests_at(pair)
        assert code(other.request()) == (401, "unauthenticated")
        del config["users"][0]["certificates"]
        config["external"][0]["auth"] = ["certificate", "token"]
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200
        assert code(client.request()) == (401, "unauthenticated")
        assert requests_at(pair) == before
        assert values(told(client.request(fields=[bearer("alice")])), "Broker-User") == ["alice"]
    with over_tls(pair, authority, None) as nobody:
        assert code(nobody.request(fields=FORGED)) == (401, "unauthenticated")
        headers = told(nobody.request(fields=[*FORGED, bearer("alice")]))
        assert values(headers, "Client-Cert") == values(headers, "X-Forwarded-Client-Cert") == []


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_comes_again_is_known_again(world: World, tmp_path: Path, version: ssl.TLSVersion) -> None:
    """By a rule for a root, with a certificate of an intermediate CA; it offers its last session."""
    root = Authority(tmp_path, "root")
    below = Authority(tmp_path, "below", root)
    tls = {
        "certificates": [root.issue("localhost").snippet()],
        "client": {"mode": "require", "ca": str(root.ca)},
    }
    external = {"name": "web", "listen": loopback("https"), "tls": tls, "auth": "certificate"}
    rule = {"ca": str(root.ca), "subject": "carol"}
    node = world.dmz(
        {
            "external": [external],
            "users": [{"name": "carol", "certificates": [rule], "may": {"call": ["*"]}}],
            "services": [everything(world.origin())],
        }
    )
    carol = below.issue(subject="carol")
    context = ssl.create_default_context(cafile=str(root.ca))
    context.load_cert_chain(carol.cert, carol.key)
    context.minimum_version = context.maximum_version = version
    session = None
    for _ in range(3):
        with (
            connect(node.external) as plain,
            context.wrap_socket(plain, server_hostname="localhost", session=session) as secure,
        ):
            secure.sendall(request_head("GET", "/", [("Host", "a")]))
            headers = told(read_response(Reader(secure)))
            assert values(headers, "Broker-User") == ["carol"]
            session = secure.session


def test_a_certificate_leaves_authorization_to_the_service(world: World, authority: Authority) -> None:
    pair, alice, _ = certified(world, authority, auth=["certificate", "token"])
    with over_tls(pair, authority, alice) as client:
        headers = told(client.request(fields=[("Authorization", "Bearer of-the-service-itself"), somebody()]))
        assert values(headers, "Broker-User") == ["alice"]
        assert values(headers, "Authorization") == ["Bearer of-the-service-itself"]
        headers = told(client.request(fields=[bearer("alice")]))
        assert values(headers, "Authorization") == []


def test_interim_answers_and_bodies_still_work(pair: Pair) -> None:
    def script(connection: Connection, head: Any) -> None:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, _ = connection.read_body(head)
        connection.answer(body=str(body.size).encode())

    pair.origin.on("/continue", script)
    with pair.client(host="a") as client:
        fields = [("Host", "a"), bearer("alice"), ("Expect", "100-continue"), ("Content-Length", "100000")]
        client.send(request_head("PUT", "/continue", fields))
        assert client.read_head().status == 100
        client.send(b"x" * 100000)
        assert client.read_response().body == b"100000"


@pytest.mark.quick
def test_an_agent_need_not_believe_the_node(world: World) -> None:
    pair = guarded(world)
    config = pair.agent.config
    for trusted, users_told in ((None, ["alice"]), (False, []), (True, ["alice"])):
        if trusted is not None:
            config["services"][0]["trust_identity"] = trusted
            pair.agent.write(config)
            assert pair.agent.admin_post("/reload").status == 200
        headers = told(pair.fetch(fields=[bearer("alice"), ("X-Other", "stays"), ("Upgrade", "nothing")]))
        assert values(headers, "Broker-User") == users_told
        assert values(headers, "X-Other") == ["stays"]
        assert len(values(headers, "X-Forwarded-For")) == 1
