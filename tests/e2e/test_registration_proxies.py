"""Agents behind a balancer: allowed, denied, punished and shown by their own address."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.client import RawClient
from tests.harness.nodes import DmzNode, Snippet, World, everything, loopback
from tests.harness.peer import registration_head
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.servers import Nginx, program
from tests.harness.waiting import wait_until

HERE = "127.0.0.1"
TOKEN = "broker_a-token-of-an-agent-behind-a-balancer"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
SERVICE = [{"match": "a.example"}]
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
ACCESS_DENIED = b"\x15\x03\x01\x00\x02\x02\x31"
PENALTIES = {"failed": 5, "broken": 5, "slow": 5, "exempt": ["203.0.113.1"]}


def v1(source: str) -> bytes:
    return f"PROXY TCP4 {source} 198.51.100.1 1234 7000\r\n".encode()


def v2(source: str, command: int = 0x21) -> bytes:
    block = socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack(">HH", 1234, 7000)
    return SIGNATURE + bytes([command, 0x11]) + struct.pack(">H", len(block)) + block


def login(token: str = TOKEN, **headers: str) -> bytes:
    head = registration_head("dmz", SERVICE, token=token)
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return head[:-2] + lines.encode() + b"\r\n"


def dmz_with(world: World, scheme: str = "http", **keys: Any) -> DmzNode:
    port: Snippet = {"name": "green", "listen": loopback(scheme), "trusted_proxies": HERE, **keys}
    user = {"name": "orders", "tokens": [HASH], "may": {"services": ["*"]}}
    workers = keys.pop("workers", 1)
    port.pop("workers", None)
    return world.dmz({"registration": [port], "users": [user], "workers": workers})


def port_of(node: DmzNode) -> dict[str, Any]:
    found = node.status()["registration"][0]
    assert isinstance(found, dict)
    return found


def answer(node: DmzNode, data: bytes) -> bytes:
    """The status of the answer, or what else came before the end; b"" where nothing did."""
    got = b""
    with (
        contextlib.suppress(ConnectionResetError, BrokenPipeError),
        RawClient(node.registration_at()) as peer,
    ):
        peer.send(data)
        while chunk := peer.sock.recv(4096):
            got += chunk
            if got.startswith(b"HTTP/1.1 101"):
                break
    return got[9:12] if got.startswith(b"HTTP/1.1 ") else got


@contextlib.contextmanager
def haproxy(directory: Path, text: str) -> Iterator[int]:
    front = free_port()
    path = directory / "haproxy.cfg"
    path.write_text(
        "defaults\n mode tcp\n timeout connect 5s\n timeout client 60s\n timeout server 60s\n"
        f"listen front\n bind {HERE}:{front}\n {text}\n"
    )
    process = Process([program("haproxy", "haproxy"), "-db", "-f", str(path)], name="haproxy", forbidden=None)
    try:
        wait_until(lambda: accepts(front), "haproxy listens")
        yield front
    finally:
        process.kill()


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def accepts(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex((HERE, port)) == 0


@pytest.mark.quick
@pytest.mark.parametrize("header", [v1, v2])
def test_whom_the_header_names(world: World, header: Any) -> None:
    node = dmz_with(world, proxy_protocol=True)
    with RawClient(node.registration_at()) as agent:
        for byte in header("192.0.2.7"):
            agent.send(bytes([byte]))
        agent.send(login())
        head = agent.reader.head("the answer")
        assert head is not None and " 101 " in head.start
        assert [each["peer"] for each in node.status()["tunnels"]] == ["192.0.2.7:1234"]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_real_balancer(world: World, tmp_path: Path, scheme: str, workers: int) -> None:
    authority = Authority(tmp_path)
    tls: Snippet = {}
    if scheme == "https":
        tls = {"tls": {"certificates": [authority.issue("localhost").snippet()]}}
    node = dmz_with(world, scheme, proxy_protocol=True, workers=workers, **tls)
    (tmp_path / "token").write_text(TOKEN + "\n")
    with haproxy(tmp_path, f"server dmz {HERE}:{node.registration_at()[1]} send-proxy-v2") as front:
        connect: Snippet = {"url": f"{scheme}://localhost:{front}", "tunnels": 2}
        connect["token_file"] = str(tmp_path / "token")
        if tls:
            connect["tls"] = {"ca": str(authority.ca)}
        world.agent(node.registration_url(), [everything(world.origin())], 2, extra={"connect": [connect]})
        node.wait_agents(2)
        assert node.fetch().status == 200


def test_an_http_proxy_names_the_agent(world: World, tmp_path: Path) -> None:
    """nginx with X-Forwarded-For; what stands left of it in that field is hearsay."""
    node = dmz_with(world, allow=["127.0.0.0/8"], strangers={"penalties": PENALTIES})
    place = """location /tunnel {
        proxy_pass http://127.0.0.1:PORT; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
        proxy_set_header Connection $http_connection;
        proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }"""
    nginx = Nginx(tmp_path / "nginx", extra=place.replace("PORT", str(node.registration_at()[1])))
    try:
        with RawClient(("127.0.0.1", nginx.port)) as agent:
            agent.sock.close()
            agent.sock = socket.create_connection((HERE, nginx.port), 20, source_address=("127.0.0.9", 0))
            agent.reader.sock = agent.sock
            agent.send(login(X_Forwarded_For="192.0.2.7"))
            head = agent.reader.head("the answer")
            assert head is not None and " 101 " in head.start
            assert [each["peer"] for each in node.status()["tunnels"]] == ["127.0.0.9"]
    finally:
        nginx.close()
    for field in ({"X_Forwarded_For": "192.0.2.7"}, {"Forwarded": "for=192.0.2.7"}):
        assert answer(node, login(**field)) == b"403"
        assert answer(node, login(X_Forwarded_For="127.0.0.8, " + next(iter(field.values()))[-9:])) == b"403"
    assert answer(node, login()) == b"101", "nobody is named: it is the proxy's own"


def test_nobody_else_is_believed(world: World) -> None:
    node = dmz_with(world, trusted_proxies="192.0.2.1", proxy_protocol=True)
    assert answer(node, v1("203.0.113.1") + login()) == b"403"
    other = dmz_with(world, trusted_proxies="192.0.2.1", allow=[HERE])
    assert answer(other, login(X_Forwarded_For="203.0.113.1")) == b"101"
    assert answer(other, v1("203.0.113.1") + login())[:1] != b"1"


def test_what_is_closed(world: World) -> None:
    node = dmz_with(
        world, proxy_protocol=True, timeouts={"head": "500ms"}, strangers={"penalties": PENALTIES}
    )
    for data in (
        login(),
        b"PROXY TCP5 x\r\n",
        b"\x16\x03\x01",
        v2("192.0.2.7", 0x23),
        b"PROXY " + b"A" * 200,
    ):
        assert answer(node, data) == b"", data
    for data in (b"", v1("192.0.2.7")[:20], v2("192.0.2.7")[:14]):
        began = time.monotonic()
        assert answer(node, data) in (b"", b"408"), data
        assert time.monotonic() - began > 0.4
    for second in (v1("192.0.2.8"), v2("192.0.2.8")):
        assert answer(node, v1("192.0.2.7") + second + login()) in (b"400", b"405", b"")
    assert port_of(node)["punished"] == 0, "the balancer is not punished for its clients"
    assert answer(node, v2("192.0.2.9", 0x20) + login()) == b"101", "the balancer itself"
    node.process.wait_for_line("does not begin with a PROXY header")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_allow_and_deny(world: World, tmp_path: Path, scheme: str) -> None:
    tls = {}
    if scheme == "https":
        tls = {"tls": {"certificates": [Authority(tmp_path).issue("localhost").snippet()]}}
    node = dmz_with(world, scheme, proxy_protocol=True, allow=["192.0.2.0/24"], deny="192.0.2.66", **tls)
    for source in ("203.0.113.1", "192.0.2.66"):
        assert answer(node, v1(source) + login()) == (ACCESS_DENIED if tls else b"403")
    node.process.wait_for_line("refused 192.0.2.66:1234: forbidden")
    sock = socket.create_connection(node.registration_at(), 20)
    sock.sendall(v1("192.0.2.7"))
    with unverified().wrap_socket(sock) if tls else sock as agent:
        agent.sendall(login())
        assert agent.recv(100).startswith(b"HTTP/1.1 101")
        if not tls:
            node.config["registration"][0]["deny"] = "192.0.2.7"
            node.write(node.config)
            assert node.admin_post("/reload").status == 200
            wait_until(lambda: not node.status()["tunnels"], "the reload has ended its tunnel")


@pytest.mark.parametrize("how", ["proxy", "forwarded"])
def test_who_guesses_is_punished_and_not_his_neighbour(world: World, how: str) -> None:
    node = dmz_with(world, proxy_protocol=how == "proxy", strangers={"penalties": PENALTIES})

    def tries(source: str, token: str) -> bytes:
        if how == "proxy":
            return answer(node, v2(source) + login(token))
        return answer(node, login(token, X_Forwarded_For=source))

    seen = [tries("192.0.2.7", "broker_a-wrong-guess-for-this-test") for _ in range(8)]
    assert seen[:3] == [b"401"] * 3 and set(seen[4:]) == {b"429"}, seen
    assert tries("192.0.2.7", TOKEN) == b"429"
    assert tries("192.0.2.8", "broker_a-wrong-guess-for-this-test") == b"401"
    assert tries("192.0.2.8", TOKEN) == b"101"
    assert port_of(node)["punished"] == 1
    node.process.wait_for_line(r"takes no connections from 192\.0\.2\.7 for")
