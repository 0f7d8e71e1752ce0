"""https upstreams: verified by default, in DMZ nodes and agents, with OpenSSL's functions and pyOpenSSL's."""

from __future__ import annotations

import json
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority, Files
from tests.harness.client import chunked
from tests.harness.message import Head
from tests.harness.nodes import DmzNode, Pair, Snippet, World
from tests.harness.origin import Connection, Origin, pattern, sha256
from tests.harness.problems import assert_problem
from tests.harness.process import environment
from tests.harness.servers import Nginx
from tests.harness.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def files(authority: Authority) -> Files:
    return authority.issue("localhost", days=90)


def server_context(files: Files, **more: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.cert, files.key)
    for name, value in more.items():
        setattr(context, name, value)
    return context


def service(origin: Origin, **tls: Any) -> Snippet:
    return {"upstream": origin.url, "tls": tls}


def node_with(world: World, services: list[Snippet], mode: str = "direct", **more: Any) -> DmzNode:
    node = world.dmz({"services": services, **more}, start=False)
    node.env = environment({"BROKER_TLS": mode})
    node.start()
    return node


@pytest.mark.parametrize("mode", ["direct", "methods"])
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_local_service_over_tls(
    world: World, authority: Authority, files: Files, mode: str, version: ssl.TLSVersion
) -> None:
    origin = world.origin(tls=server_context(files, maximum_version=version))
    node = node_with(world, [service(origin, ca=str(authority.ca))], mode)
    body = pattern(5 * MIB, seed=3)
    origin.on("/large", lambda c, _: c.answer(body=body))
    with node.client() as client:
        for number in range(20):
            assert client.request(target=f"/{number}").status == 200
        answer = client.request(target="/large", digest=True)
        assert (answer.size, answer.digest) == (len(body), sha256(body))
        client.send_request("PUT", "/upload", [("Transfer-Encoding", "chunked")])
        client.send(chunked([body[at : at + 70_001] for at in range(0, len(body), 70_001)]))
        assert json.loads(client.read_response().body)["sha256"] == sha256(body)
    assert len(origin.connections) == 1, "one connection is used again and again"


@pytest.mark.parametrize("mode", ["direct", "methods"])
def test_an_agent_with_an_https_service(world: World, authority: Authority, files: Files, mode: str) -> None:
    origin = world.origin(tls=server_context(files))
    dmz = world.dmz()
    agent = world.agent(dmz.registration_url(), [service(origin, ca=str(authority.ca))], 2, start=False)
    agent.env = environment({"BROKER_TLS": mode})
    agent.start()
    dmz.wait_agents(2)
    pair = Pair(dmz, agent, origin)
    body = pattern(3 * MIB, seed=4)
    # The whole request waits for the handshake.
    answer = pair.fetch("/first", "PUT", body=body)
    assert json.loads(answer.body)["sha256"] == sha256(body)
    pair.assert_alive()


def test_nginx_over_https(world: World, authority: Authority, files: Files, tmp_path: Path) -> None:
    from tests.harness.ports import free_port

    port = free_port()
    tls = f"ssl_certificate {files.cert};\nssl_certificate_key {files.key};\nlisten 127.0.0.1:{port} ssl;"
    nginx = Nginx(tmp_path / "nginx", tls)
    try:
        node = node_with(world, [{"upstream": f"https://localhost:{port}", "tls": {"ca": str(authority.ca)}}])
        data = pattern(4 * MIB)
        name = nginx.file("data", data)
        for _ in range(5):
            assert sha256(node.fetch(name).body) == sha256(data)
        assert node.fetch("/hello").body == b"hello from nginx\n"
    finally:
        nginx.close()


def refused(node: DmzNode, words: str) -> None:
    assert_problem(node.fetch("/"), 502, "upstream-unreachable", "never-sent")
    line = node.process.wait_for_line(r"service .*: TLS with .* failed: .*")[0]
    assert words in line, line


@pytest.mark.parametrize("mode", ["direct", "methods"])
def test_what_is_not_believed(world: World, authority: Authority, tmp_path: Path, mode: str) -> None:
    other = Authority(tmp_path, "other CA")
    cases = [
        (authority.issue("localhost"), other, "not trusted"),
        (authority.issue("elsewhere.example"), authority, "not for localhost"),
        (authority.issue("localhost", days=-1), authority, "the certificate has expired"),
    ]
    for shown, believed, words in cases:
        origin = world.origin(f"origin-{len(world.origins)}", tls=server_context(shown))
        node = node_with(world, [service(origin, ca=str(believed.ca))], mode)
        refused(node, words)
        assert not origin.requests, "nothing of the request is sent to a stranger"


def test_the_cas_of_the_system_are_the_default(world: World, files: Files) -> None:
    origin = world.origin(tls=server_context(files))
    refused(node_with(world, [service(origin)]), "not trusted")


def test_another_name_and_no_verification(world: World, authority: Authority) -> None:
    shown = authority.issue("inner.example")
    named: list[str | None] = []
    context = server_context(shown)
    context.sni_callback = lambda _socket, name, _context: named.append(name)
    origin = world.origin(tls=context)
    node = node_with(world, [service(origin, ca=str(authority.ca), server_name="inner.example")])
    assert node.fetch("/").status == 200
    assert named == ["inner.example"]
    careless = node_with(world, [service(origin, verify=False)])
    assert careless.fetch("/").status == 200
    assert "whoever answers" in careless.process.output


def test_a_client_certificate_is_shown(world: World, authority: Authority, files: Files) -> None:
    context = server_context(files, verify_mode=ssl.CERT_REQUIRED)
    context.load_verify_locations(authority.ca)
    origin = world.origin(tls=context)
    client = authority.issue(subject="node")
    tls = {"ca": str(authority.ca)}
    with_one = node_with(world, [service(origin, **tls, cert=str(client.cert), key=str(client.key))])
    assert with_one.fetch("/").status == 200
    without = node_with(world, [service(origin, **tls)])
    # A TLS 1.3 server says no after the client believes that all is done.
    assert without.fetch("/").status == 502


def test_an_upstream_that_speaks_no_tls(world: World) -> None:
    origin = world.origin()
    origin.raw = lambda c: (c.sock.recv(65536), c.send(b"HTTP/1.1 400 Bad Request\r\n\r\n"))
    node = node_with(world, [{"upstream": f"https://localhost:{origin.port}"}])
    refused(node, "does not speak TLS")


def test_an_upstream_that_says_nothing_in_the_handshake(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        node = node_with(
            world,
            [{"upstream": f"https://localhost:{silent.getsockname()[1]}", "timeouts": {"connect": "300ms"}}],
        )
        refused(node, "took too long")


def test_the_next_address_where_the_first_refuses(world: World, authority: Authority, files: Files) -> None:
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        origin = world.origin(tls=server_context(files))
        dead = f"https://localhost:{refusing.getsockname()[1]}"
        node = node_with(world, [{"upstream": [dead, origin.url], "tls": {"ca": str(authority.ca)}}])
        body = pattern(200_000)
        answer = node.fetch("/", "POST", body=body)
        assert json.loads(answer.body)["sha256"] == sha256(body)


def test_bytes_behind_a_response_are_never_another_ones(
    world: World, authority: Authority, files: Files
) -> None:
    origin = world.origin(tls=server_context(files))

    def with_more(connection: Connection, _head: Head) -> None:
        stolen = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen"
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n" + bytes(40000) + stolen)

    origin.on("/more", with_more)
    node = node_with(world, [service(origin, ca=str(authority.ca))])
    for _ in range(10):
        assert len(node.fetch("/more").body) == 40000
        assert b"stolen" not in node.fetch("/other").body


def test_a_response_cut_without_close_notify_does_not_look_whole(
    world: World, authority: Authority, files: Files
) -> None:
    origin = world.origin(tls=server_context(files))

    def cut(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000)
        connection.sock.shutdown(socket.SHUT_RDWR)  # of the TCP connection: no close_notify
        return True

    origin.on("/cut", cut)
    node = node_with(world, [service(origin, ca=str(authority.ca))])
    with node.client() as client, pytest.raises(Exception, match=r"(?i)cut|reset|closed|short|ended"):
        client.request(target="/cut")


def test_a_reload_believes_another_ca(
    world: World, authority: Authority, files: Files, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other CA")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(other.ca.read_bytes())
    origin = world.origin(tls=server_context(files))
    node = node_with(world, [service(origin, ca=str(bundle))])
    refused(node, "not trusted")
    bundle.write_bytes(authority.ca.read_bytes())
    assert node.admin_post("/reload").status == 200
    wait_until(lambda: node.fetch("/").status == 200, "the new CA is believed")
