"""Who may connect, by address; and PROXY headers in front of connections, in and out."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.client import RawClient, client_hello, connect, fetch, request_head
from tests.harness.message import Response
from tests.harness.nodes import DmzNode, Snippet, World, everything, loopback
from tests.harness.origin import Connection
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.servers import Nginx, program
from tests.harness.waiting import wait_until

HERE = "127.0.0.1"
# Another server beside that of the harness, which ends here.
WHO = """}
    server {
        listen 127.0.0.1:PORT proxy_protocol;
        location = /who {
            return 200 "$proxy_protocol_addr $proxy_protocol_port $proxy_protocol_server_port";
        }
"""
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
GET = request_head("GET", "/", [("Host", "test.example")])
V1 = b"PROXY TCP4 192.0.2.7 198.51.100.1 1234 80\r\n"


def v2(command: int = 0x21, source: str = "192.0.2.7", tail: bytes = b"") -> bytes:
    block = socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 1234, 80) + tail
    return SIGNATURE + bytes([command, 0x11]) + struct.pack(">H", len(block)) + block


def fields_of(response: Response) -> dict[str, str]:
    assert response.status == 200, response
    return dict(json.loads(response.body)["fields"])


def changed(node: DmzNode, section: str, **keys: Any) -> None:
    """Reload with other keys at the first port of a section; None takes a key away."""
    entry = node.config[section][0] if section != "admin" else node.config[section]
    for key, value in keys.items():
        entry.pop(key, None)
        if value is not None:
            entry[key] = value
    node.write(node.config)
    assert node.admin_post("/reload").status == 200


def denied(node: DmzNode) -> int:
    return int(node.status()["external"][0]["denied"])


# --- allow and deny -------------------------------------------------------------


@pytest.mark.quick
def test_who_may_connect_changes_with_a_reload(world: World) -> None:
    pair = world.pair()
    assert pair.fetch().status == 200
    with pair.client() as kept:
        assert kept.request().status == 200
        changed(pair.dmz, "external", deny="127.0.0.0/8")
        kept.expect_closed()  # also who is here already
    refused = pair.fetch()
    assert (refused.status, refused.headers["Broker-Error"]) == (403, "forbidden")
    assert refused.headers["Broker-Delivery"] == "never-sent"
    seen = len(pair.origin.connections)
    changed(pair.dmz, "external", deny=None, allow=["10.0.0.0/8", "::1"])
    assert pair.fetch().status == 403
    assert denied(pair.dmz) == 3
    changed(pair.dmz, "external", allow=["127.0.0.1"])
    assert pair.fetch().status == 200
    changed(pair.dmz, "external", allow=["127.0.0.1"], deny=["127.0.0.1"])
    assert pair.fetch().status == 403
    assert len(pair.origin.connections) == seen


def test_on_a_port_for_both_families(world: World) -> None:
    """An IPv4 client of [::] is mapped; the rules are those of IPv4."""
    port = {"name": "web", "listen": f"http://[::]:{free_port()}", "allow": ["127.0.0.0/8"]}
    node = world.dmz({"external": [port]})
    world.agent(node.registration_url(), [everything(world.origin())])
    port_number = node.external[1]
    assert fetch((HERE, port_number)).status == 200
    assert fetch(("::1", port_number)).status == 403
    changed(node, "external", allow=["::1"])
    assert fetch((HERE, port_number)).status == 403
    assert fetch(("::1", port_number)).status == 200


def test_many_who_may_not_are_not_told(world: World) -> None:
    pair = world.pair(dmz={"limits": {"connections": 300}})
    changed(pair.dmz, "external", deny=HERE)
    socks = []
    for _ in range(600):
        with contextlib.suppress(ConnectionResetError):  # as early as that
            socks.append(connect(pair.address))
    wait_until(lambda: denied(pair.dmz) == 600, "all were turned away")
    assert pair.dmz.status()["external"][0]["connections"] <= 256
    for sock in socks:
        sock.close()
    wait_until(lambda: pair.dmz.status()["external"][0]["connections"] == 0, "nothing of them is left")


def closed_at_once(address: tuple[str, int], data: bytes = b"") -> None:
    """The connection is closed, perhaps before anything could be said."""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError), RawClient(address) as client:
        client.send(data)
        client.expect_closed()


def test_a_denied_client_of_https_and_tcp_is_closed(world: World, tmp_path: Path) -> None:
    files = Authority(tmp_path).issue("shop.example")
    node = world.dmz(
        {
            "external": [
                {"listen": loopback("https"), "tls": {"certificates": [files.snippet()]}, "deny": HERE},
                {"listen": loopback("tcp", rest="/db"), "deny": HERE},
                {"listen": loopback("tls"), "deny": HERE},
            ]
        }
    )
    for place in range(3):
        closed_at_once(node.external_at(place))
    assert [each["denied"] for each in node.status()["external"]] == [1, 1, 1]


def test_agents_and_the_admin_port(world: World) -> None:
    pair = world.pair()
    changed(pair.dmz, "registration", deny=HERE)
    pair.agent.process.wait_for_line("not allowed")
    wait_until(lambda: not pair.dmz.status()["tunnels"], "the tunnel is closed")
    changed(pair.dmz, "registration", deny=None)
    pair.dmz.wait_agents(1)
    assert pair.fetch().status == 200
    changed(pair.dmz, "admin", allow="192.0.2.1")
    assert fetch(pair.dmz.admin, "/status", host="localhost").status == 403
    assert fetch(pair.dmz.admin, "/healthz", host="localhost").status == 403
    pair.dmz.write({**pair.dmz.config, "admin": {"listen": pair.dmz.config["admin"]["listen"]}})
    pair.dmz.process.signal(signal.SIGHUP)
    pair.dmz.process.wait_for_line("reloaded")
    wait_until(pair.dmz.ready, "the admin port is open again")


# --- PROXY headers from proxies ------------------------------------------------


def proxied(world: World, listen: str = "", **keys: Any) -> Any:
    port = {"name": "web", "listen": listen or loopback(), "trusted_proxies": HERE, "proxy_protocol": True}
    return world.pair(dmz={"external": [{**port, **keys}]})


@pytest.mark.quick
@pytest.mark.parametrize("header", [V1, v2(), v2(tail=b"\x04\0\x10" + bytes(16))])
def test_the_client_is_whom_the_header_names(world: World, header: bytes) -> None:
    pair = proxied(world)
    with pair.client() as client:
        for byte in header[:-1]:
            client.send(bytes([byte]))
        client.send(header[-1:] + GET)
        for number in range(2):  # it holds for the whole connection
            fields = fields_of(client.read_response())
            assert fields["X-Forwarded-For"] == "192.0.2.7"
            assert fields["Forwarded"].startswith("for=192.0.2.7;")
            if not number:
                client.send(GET)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN 1 2 3\r\n", v2(0x20), SIGNATURE + b"\x21\0\0\0"])
def test_a_proxy_that_names_nobody(world: World, header: bytes) -> None:
    pair = proxied(world)
    with pair.client() as client:
        client.send(header + GET)
        assert fields_of(client.read_response())["X-Forwarded-For"] == HERE


def test_what_is_closed(world: World) -> None:
    pair = proxied(world, allow=["192.0.2.0/24"], timeouts={"head": "500ms"})
    bad = [
        GET,
        b"\x16\x03\x01\x02\0" + bytes(100),
        v2(0x23),
        V1.replace(b"TCP4", b"TCP5"),
        b"PROXY " + b"A" * 200,
    ]
    bad += [V1.replace(b"192.0.2.7", b"192.0.3.7"), v2(source="10.0.0.1")]  # not allowed
    for data in bad:
        with pair.client() as client:
            client.send(data)
            client.expect_closed()
    for data in (b"", V1[:20], v2()[:14]):
        with pair.client() as client:
            client.send(data)
            client.expect_closed()  # the deadline
    for second in (V1, v2()):
        with pair.client() as client:
            client.send(V1 + second + GET)
            assert client.read_response().status == 400
    assert pair.origin.connections == []
    changed(pair.dmz, "external", trusted_proxies="192.0.2.1")
    closed_at_once(pair.address, V1 + GET)
    assert denied(pair.dmz) == len(bad) + 4


def test_in_front_of_tls(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("shop.example")
    pair = proxied(world, loopback("https"), tls={"certificates": [files.snippet()]})
    context = ssl.create_default_context(cafile=str(authority.ca))
    for header in (V1, v2()):
        raw = connect(pair.address)
        raw.sendall(header)
        with context.wrap_socket(raw, server_hostname="shop.example") as sock:
            sock.sendall(GET)
            assert b'"192.0.2.7"' in sock.recv(65536)
    port = pair.address[1]
    done = subprocess.run(
        [*("curl", "-sS", "--haproxy-protocol", "--cacert", str(authority.ca)),
         *("--resolve", f"shop.example:{port}:127.0.0.1", f"https://shop.example:{port}/")],
        capture_output=True, check=True, timeout=60,
    )  # fmt: skip
    assert dict(json.loads(done.stdout)["fields"])["X-Forwarded-For"] == HERE


def test_limits_per_address_are_those_of_clients(world: World) -> None:
    pair = proxied(world, limits={"connections_per_address": 1})
    with pair.client() as first, pair.client() as other, pair.client() as second:
        first.send(V1 + GET)
        assert first.read_response().status == 200
        other.send(v2(source="192.0.2.8") + GET)
        assert other.read_response().status == 200
        second.send(V1 + GET)
        second.expect_closed()
    wait_until(lambda: pair.dmz.status()["external"][0]["connections"] == 0, "all have left")
    with pair.client() as again:
        again.send(V1 + GET)
        assert again.read_response().status == 200


# --- PROXY headers to services ---------------------------------------------------


def tcp_world(world: World, version: str | None, agent: bool, **port: Any) -> tuple[DmzNode, Any]:
    """A tcp port to a raw origin that gets PROXY headers, behind an agent or local."""
    origin = world.origin("raw")
    service: Snippet = {"name": "svc", "upstream": origin.tcp_url}
    if version:
        service["proxy_protocol"] = version
    external = {"name": "raw", "listen": loopback("tcp", rest="/svc"), **port}
    node = world.dmz({"external": [external], **({} if agent else {"services": [service]})})
    if agent:
        world.agent(node.registration_url(), [service])
    return node, origin


def recorded(origin: Any, act: Callable[[], None]) -> bytes:
    """What the origin reads on the connection that `act` makes."""
    got: list[bytes] = []

    def script(connection: Connection) -> None:
        got.append(connection.reader.drain())

    origin.raw = script
    act()
    wait_until(lambda: got, "the service has read everything")
    return got[0]


@pytest.mark.quick
@pytest.mark.parametrize("agent", [False, True])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_service_is_told_whose_a_connection_is(world: World, version: str, agent: bool) -> None:
    node, origin = tcp_world(world, version, agent)
    ports: list[int] = []

    def act() -> None:
        with connect(node.external) as sock:
            ports.append(sock.getsockname()[1])
            sock.sendall(b"hello")

    got = recorded(origin, act)
    here, there = ports[0], node.external[1]
    if version == "v1":
        assert got == f"PROXY TCP4 {HERE} {HERE} {here} {there}\r\n".encode() + b"hello"
    else:
        block = socket.inet_aton(HERE) * 2 + struct.pack(">HH", here, there)
        assert got == SIGNATURE + b"\x21\x11\0\x0c" + block + b"hello"


def test_the_header_comes_before_a_service_that_speaks_first(world: World) -> None:
    node, origin = tcp_world(world, "v1", agent=True)

    def script(connection: Connection) -> None:
        assert connection.reader.some(200).startswith(b"PROXY TCP4 ")
        connection.send(b"220 hello\r\n")

    origin.raw = script
    with connect(node.external) as sock:
        assert sock.recv(100) == b"220 hello\r\n"


def test_from_proxy_to_service(world: World) -> None:
    """What comes in with a header goes out with one; a second one in front of the bytes is refused."""
    node, origin = tcp_world(world, "v1", agent=True, trusted_proxies=HERE, proxy_protocol=True)

    def act() -> None:
        with connect(node.external) as sock:
            sock.sendall(v2() + b"bytes")

    there = node.external[1]
    assert recorded(origin, act) == f"PROXY TCP4 192.0.2.7 {HERE} 1234 {there}\r\n".encode() + b"bytes"
    seen = len(origin.connections)
    for second in (V1, v2()):
        with RawClient(node.external) as client:
            client.send(V1 + second)
            client.expect_closed()
    assert len(origin.connections) == seen


@pytest.mark.parametrize("agent", [False, True])
def test_from_proxy_to_service_on_a_tls_port(world: World, agent: bool) -> None:
    """The header stands in front of the ClientHello, which nobody opens, on both hops."""
    origin = world.origin("raw")
    upstream = f"tls://127.0.0.1:{origin.port}"
    service = {"match": "svc.example", "upstream": upstream, "proxy_protocol": "v1"}
    external = {"name": "raw", "listen": loopback("tls"), "trusted_proxies": HERE, "proxy_protocol": True}
    node = world.dmz({"external": [external], **({} if agent else {"services": [service]})})
    if agent:
        world.agent(node.registration_url(), [service])
    hello = client_hello("svc.example")

    def act() -> None:
        with connect(node.external) as sock:
            sock.sendall(v2() + hello)

    there = node.external[1]
    assert recorded(origin, act) == f"PROXY TCP4 192.0.2.7 {HERE} 1234 {there}\r\n".encode() + hello
    seen = len(origin.connections)
    for first in (hello, b"PROXY TCP4 nonsense\r\n" + hello, V1 + V1 + hello):
        with RawClient(node.external) as client:
            client.send(first)
            with contextlib.suppress(ConnectionError):
                client.read_to_end()
    assert len(origin.connections) == seen


def test_without_the_setting_no_header_is_sent(world: World) -> None:
    node, origin = tcp_world(world, None, agent=True)

    def act() -> None:
        with connect(node.external) as sock:
            sock.sendall(b"hello")

    assert recorded(origin, act) == b"hello"


def test_real_proxies_on_both_sides(world: World, tmp_path: Path) -> None:
    """HAProxy in front (send-proxy-v2), nginx behind (proxy_protocol), a client that says v1 to the first."""
    behind = free_port()
    nginx = Nginx(tmp_path / "nginx", extra=WHO.replace("PORT", str(behind)))
    port = {
        "name": "raw",
        "listen": loopback("tcp", rest="/svc"),
        "trusted_proxies": HERE,
        "proxy_protocol": True,
    }
    node = world.dmz({"external": [port]})
    service = {"name": "svc", "upstream": f"tcp://127.0.0.1:{behind}", "proxy_protocol": "v2"}
    world.agent(node.registration_url(), [service])
    front = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"listen front\n bind 127.0.0.1:{front} accept-proxy\n"
        f" server broker 127.0.0.1:{node.external[1]} send-proxy-v2\n"
    )
    haproxy = Process(
        [program("haproxy", "haproxy"), "-db", "-f", str(config)], name="haproxy", forbidden=None
    )
    try:
        wait_until(lambda: _accepts(front), "haproxy listens")
        with RawClient((HERE, front)) as client:
            client.send(b"PROXY TCP4 192.0.2.9 192.0.2.10 4321 443\r\n")
            response = client.request(target="/who")
        assert response.body == f"192.0.2.9 4321 {node.external[1]}".encode()
    finally:
        haproxy.kill()
        nginx.close()


def _accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HERE, port)) == 0
