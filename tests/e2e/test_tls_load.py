"""TLS ports among many: peers that say nothing, and reloads while clients come and go."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.certificates import Authority, Files
from tests.harness.nodes import DmzNode, Snippet, World, everything, loopback
from tests.harness.waiting import wait_until

NAME = "shop.example"
SILENT = 2000
HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(60)  # the beginning of one


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def tls_world(world: World, files: Files, **external: object) -> DmzNode:
    """Both ports over TLS, with an agent."""
    tls = {"certificates": [files.snippet()]}
    config: Snippet = {
        "external": [{"name": "web", "listen": loopback("https"), "tls": tls, **external}],
        "registration": [{"name": "green", "listen": loopback("https", "localhost"), "tls": tls}],
    }
    return world.dmz(config)


def agent(world: World, node: DmzNode, authority: Authority) -> None:
    url = node.registration_url()
    origin = world.origin(f"origin-{len(world.origins)}")
    dial = {"url": url, "tls": {"ca": str(authority.ca)}, "tunnels": 1}
    world.agent(url, [everything(origin)], extra={"connect": [dial]})


def client(node: DmzNode, authority: Authority) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(authority.ca))
    raw = socket.create_connection(node.external, timeout=20)
    return context.wrap_socket(raw, server_hostname=NAME)


def ask(sock: ssl.SSLSocket) -> None:
    sock.sendall(f"GET /hello HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
    got = b""
    while not got.endswith(b"hello"):
        piece = sock.recv(65536)
        assert piece, got
        got += piece
    assert got.startswith(b"HTTP/1.1 200"), got


@contextlib.contextmanager
def strangers(address: tuple[str, int], count: int, first: bytes = b"") -> Iterator[list[socket.socket]]:
    """Connections that say no more than `first`."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            found.append(stack.enter_context(socket.create_connection(address, timeout=20)))
            if first:
                found[-1].sendall(first)
        yield found


def test_silent_peers_cost_a_descriptor(world: World, authority: Authority) -> None:
    """2,000 that say nothing and some that stop within the ClientHello; clients and agents come as before."""
    files = authority.issue(NAME, "localhost", days=90)
    node = tls_world(world, files, timeouts={"head": "8s", "idle": 60})
    agent(world, node, authority)
    world.origins[-1].on("/hello", lambda c, _: c.answer(body=b"hello"))
    with client(node, authority) as sock:
        ask(sock)
        before = node.process.rss()
        with strangers(node.external, SILENT):
            wait_until(lambda: node.status()["external"][0]["connections"] > SILENT, "all are accepted")
            assert (node.process.rss() - before) / SILENT < 4096
            with strangers(node.external, 100, HELLO[:1]), strangers(node.external, 100, HELLO):
                for _ in range(20):
                    with client(node, authority) as other:
                        ask(other)
                ask(sock)
            # The handshake's deadline ends them all, and nobody else.
            wait_until(
                lambda: node.status()["external"][0]["connections"] == 1, "the silent ones are gone", 40
            )
        ask(sock)
    with strangers(("localhost", node.registration_at()[1]), SILENT // 2):
        agent(world, node, authority)
        node.wait_agents(2)


def test_reloads_under_load_drop_nobody(world: World, authority: Authority, tmp_path: Path) -> None:
    """Certificates are replaced in place while clients ask, on kept connections and on new ones."""
    first, second = (authority.issue(NAME, "localhost", days=days) for days in (90, 100))
    current = Files(tmp_path / "current.crt", tmp_path / "current.key")

    def put(files: Files) -> None:
        current.cert.write_bytes(files.cert.read_bytes())
        current.key.write_bytes(files.key.read_bytes())

    put(first)
    node = tls_world(world, current)
    agent(world, node, authority)
    world.origins[-1].on("/hello", lambda c, _: c.answer(body=b"hello"))
    seen: set[bytes | None] = set()
    problems: list[BaseException] = []
    done = threading.Event()
    asked = [0, 0]

    def keep_asking(place: int) -> None:
        try:
            kept = client(node, authority)
            while not done.is_set():
                if place:
                    with client(node, authority) as fresh:
                        ask(fresh)
                        seen.add(fresh.getpeercert(binary_form=True))
                ask(kept)
                asked[place] += 1
            kept.close()
        except BaseException as problem:
            problems.append(problem)

    threads = [threading.Thread(target=keep_asking, args=(place,)) for place in (0, 1)]
    for thread in threads:
        thread.start()
    try:
        for number in range(8):
            put(second if number % 2 == 0 else first)
            assert node.admin_post("/reload").status == 200
            now = list(asked)
            wait_until(
                lambda now=now: problems or all(a > b + 2 for a, b in zip(asked, now, strict=True)),
                "both go on asking",
            )
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not problems
    assert len(seen) == 2
    assert len(node.status()["tunnels"]) == 1
    node.process.assert_clean()
