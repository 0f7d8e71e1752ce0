"""`tls` ports: connections pass through unopened, chosen by the server name that the client asks for."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.client import client_hello
from tests.harness.nodes import DmzNode, Snippet, World, loopback
from tests.harness.origin import Origin, pattern, sha256
from tests.harness.waiting import wait_until

MIB = 1 << 20
UNRECOGNIZED_NAME = b"\x15\x03\x01\x00\x02\x02\x70"
INTERNAL_ERROR = b"\x15\x03\x01\x00\x02\x02\x50"
DECODE_ERROR = b"\x15\x03\x01\x00\x02\x02\x32"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def secure_origin(world: World, authority: Authority, *names: str) -> Origin:
    files = authority.issue(*names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    return world.origin(names[0].replace("*", "any"), tls=context)


def passed(match: str, origin: Origin) -> Snippet:
    return {"match": match, "upstream": f"tls://127.0.0.1:{origin.port}"}


def dmz_with(world: World, services: list[Snippet] | None = None, **more: Any) -> DmzNode:
    ports = [{"name": "mail", "listen": loopback("tls"), "registration": "green", **more}]
    return world.dmz({"external": ports, "services": services or []})


@contextmanager
def client(node: DmzNode, authority: Authority, name: str) -> Iterator[ssl.SSLSocket]:
    context = ssl.create_default_context(cafile=str(authority.ca))
    with (
        socket.create_connection(node.external, timeout=20) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        yield secure


def ask(secure: ssl.SSLSocket, target: str = "/") -> bytes:
    secure.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data or b"}" not in data:
        chunk = secure.recv(65536)
        assert chunk, data
        data += chunk
    return data


def answer_to(node: DmzNode, data: bytes) -> bytes:
    """All that a raw client gets, up to the end."""
    with socket.create_connection(node.external, timeout=20) as plain:
        plain.sendall(data)
        got = b""
        try:
            while chunk := plain.recv(65536):
                got += chunk
        except ConnectionResetError:
            pass
        return got


def test_the_service_is_chosen_by_name(world: World, authority: Authority) -> None:
    dmz = dmz_with(world)
    exact = secure_origin(world, authority, "app.example")
    below = secure_origin(world, authority, "any.example", "x.example", "a.b.example")
    services = [passed("app.example", exact), passed("*.example", below)]
    world.agent(dmz.registration_url(), services, 2)
    dmz.wait_agents(2)
    for name, origin in [("app.example", exact), ("x.example", below), ("a.b.example", below)]:
        with client(dmz, authority, name) as secure:
            # The certificate is the service's own: nobody has opened the connection.
            assert origin.name.encode() in ask(secure)
    assert (len(exact.connections), len(below.connections)) == (1, 2)


def test_a_local_service_comes_first(world: World, authority: Authority) -> None:
    here = secure_origin(world, authority, "here.example")
    there = secure_origin(world, authority, "there.example")
    dmz = dmz_with(world, [passed("here.example", here)])
    world.agent(dmz.registration_url(), [passed("*", there)])
    dmz.wait_agents(1)
    for name, origin in [("here.example", here), ("there.example", there)]:
        with client(dmz, authority, name) as secure:
            assert origin.name.encode() in ask(secure)


def test_bulk_and_the_end_pass_through(world: World, authority: Authority) -> None:
    dmz = dmz_with(world)
    origin = secure_origin(world, authority, "app.example")
    body = pattern(8 * MIB, seed=1)
    origin.on("/large", lambda c, _: (c.answer(body=body), True)[-1])
    world.agent(dmz.registration_url(), [passed("app.example", origin)])
    dmz.wait_agents(1)
    with client(dmz, authority, "app.example") as secure:
        secure.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        data = b""
        while chunk := secure.recv(1 << 20):
            data += chunk
    assert sha256(data.partition(b"\r\n\r\n")[2]) == sha256(body)


def test_a_hello_in_crumbs(world: World, authority: Authority) -> None:
    origin = secure_origin(world, authority, "app.example")
    dmz = dmz_with(world, [passed("app.example", origin)])
    whole = client_hello("app.example")
    with socket.create_connection(dmz.external, timeout=20) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(len(whole)):
            plain.sendall(whole[at : at + 1])
        assert plain.recv(1) == b"\x16", "the service has understood it"


def test_who_is_not_answered_is_told(world: World, authority: Authority) -> None:
    dmz = dmz_with(world, timeouts={"agent_wait": "100ms", "head": "300ms"})
    origin = secure_origin(world, authority, "app.example")
    agent = world.agent(dmz.registration_url(), [passed("app.example", origin)])
    dmz.wait_agents(1)
    assert answer_to(dmz, client_hello("other.example")) == UNRECOGNIZED_NAME
    assert answer_to(dmz, b"\x16\x03\x01\x00\x04\x02\x00\x00\x00") == DECODE_ERROR
    assert answer_to(dmz, b"GET / HTTP/1.1\r\n\r\n") == b""
    assert answer_to(dmz, b"") == b"", "silent: its deadline"
    assert answer_to(dmz, client_hello("app.example")[:50]) == INTERNAL_ERROR, "half a hello: its deadline"
    agent.stop()
    assert answer_to(dmz, client_hello("app.example")) == INTERNAL_ERROR
    assert len(origin.connections) == 0


def test_openssl_reports_the_alert(world: World) -> None:
    dmz = dmz_with(world)
    host, port = dmz.external
    run = subprocess.run(
        ["openssl", "s_client", "-connect", f"{host}:{port}", "-servername", "nobody.example"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=20,
    )
    assert b"unrecognized name" in run.stderr


def test_rights(world: World, authority: Authority, tmp_path: Any) -> None:
    import hashlib

    token = "broker_" + "t" * 40
    file = tmp_path / "agent.token"
    file.write_text(token)
    file.chmod(0o600)
    digest = hashlib.sha256(token.encode()).hexdigest()
    users = [{"name": "apps", "tokens": [f"sha256:{digest}"], "may": {"tls": ["*.apps.example"]}}]
    ports = [{"name": "mail", "listen": loopback("tls"), "registration": "green"}]
    dmz = world.dmz({"external": ports, "users": users})
    origin = secure_origin(world, authority, "a.apps.example")
    services = [passed("a.apps.example", origin), passed("b.elsewhere.example", origin)]
    extra = {"connect": [{"url": dmz.registration_url(), "token_file": str(file), "tunnels": 1}]}
    agent = world.agent(dmz.registration_url(), services, 1, extra)
    dmz.wait_agents(1)
    with client(dmz, authority, "a.apps.example") as secure:
        ask(secure)
    assert answer_to(dmz, client_hello("b.elsewhere.example")) == UNRECOGNIZED_NAME
    agent.process.wait_for_line(r"refuses the service tls://b\.elsewhere\.example")


def test_a_thousand_silent_connections_do_not_matter(world: World, authority: Authority) -> None:
    origin = secure_origin(world, authority, "app.example")
    dmz = dmz_with(world, [passed("app.example", origin)])
    crowd = [socket.create_connection(dmz.external, timeout=20) for _ in range(1000)]
    try:
        with client(dmz, authority, "app.example") as secure:
            ask(secure)
    finally:
        for each in crowd:
            each.close()
    wait_until(lambda: dmz.status()["external"][0]["connections"] == 0, "all are gone")
