"""What several workers have in common for security: ticket keys and penalties."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.nodes import DmzNode, World, everything, loopback
from tests.harness.peer import HandAgent, registration_head
from tests.harness.waiting import wait_until

TOKEN = "broker_a-token-for-the-tests-of-workers"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
NAME = "shop.example"


class Resuming:
    """A client that comes back with the last ticket that it was given."""

    def __init__(self, authority: Authority, version: ssl.TLSVersion) -> None:
        self.context = ssl.create_default_context(cafile=str(authority.ca))
        self.context.maximum_version = version
        self.session: ssl.SSLSession | None = None

    def comes(self, node: DmzNode) -> bool:
        """Whether its session was resumed."""
        with (
            socket.create_connection(node.external, 20) as plain,
            self.context.wrap_socket(plain, server_hostname=NAME, session=self.session) as secure,
        ):
            secure.sendall(f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while chunk := secure.recv(65536):
                answer += chunk
            assert answer.startswith(b"HTTP/1.1 200"), answer
            self.session = secure.session
            return bool(secure.session_reused)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_session_is_resumed_at_any_worker(world: World, tmp_path: Path, version: ssl.TLSVersion) -> None:
    authority = Authority(tmp_path)
    files = authority.issue(NAME, "localhost", days=90)
    tls = {"certificates": [files.snippet(), authority.issue("other.example", days=90).snippet()]}
    port = {"name": "web", "listen": loopback("https"), "tls": tls}
    node = world.dmz({"external": [port], "services": [everything(world.origin())], "workers": 2})
    client = Resuming(authority, version)
    assert not client.comes(node)
    assert [client.comes(node) for _ in range(20)] == [True] * 20
    assert node.admin_post("/reload").status == 200
    assert [client.comes(node) for _ in range(6)] == [True] * 6, "nothing has changed"
    renewed = authority.issue(NAME, "localhost", days=90)
    files.cert.write_bytes(renewed.cert.read_bytes())
    files.key.write_bytes(renewed.key.read_bytes())
    assert node.admin_post("/reload").status == 200
    assert not client.comes(node), "other files, other keys"
    assert [client.comes(node) for _ in range(10)] == [True] * 10
    # A worker that takes the place of another one has the keys, too.
    worker = node.status()["workers"][0]
    os.kill(worker["pid"], signal.SIGKILL)
    node.process.wait_for_line("another one starts")
    node.wait_ready()
    assert [client.comes(node) for _ in range(20)] == [True] * 20


def guesses(node: DmzNode, source: str, count: int, token: str) -> list[str]:
    found = []
    for _ in range(count):
        with (
            contextlib.suppress(ConnectionError),
            socket.create_connection(node.registration_at(), 20, source_address=(source, 0)) as sock,
        ):
            sock.sendall(registration_head("a", [{"match": "a.example"}], token=token))
            found.append(sock.recv(4096)[9:12].decode())
    return found


def test_penalties_are_those_of_the_node(world: World) -> None:
    """One network's failures count together, and an agent protects its neighbours, whatever the worker."""
    penalties: dict[str, Any] = {"exempt": ["192.0.2.1"]}
    port = {"name": "green", "listen": loopback(), "strangers": {"penalties": penalties}}
    user = {"name": "orders", "tokens": [HASH], "may": {"services": ["a.example"]}}
    node = world.dmz({"registration": [port], "users": [user], "workers": 2})
    wrong = "broker_a-guess-that-is-always-wrong"
    assert guesses(node, "127.0.0.2", 3, wrong) == ["401"] * 3
    # The supervisor's verdict reaches the workers a little later, each of them for itself.
    wait_until(lambda: set(guesses(node, "127.0.0.2", 12, wrong)) == {"429"}, "that both workers refuse")
    node.process.wait_for_line(r"takes no connections from 127\.0\.0\.2 for")
    assert node.status()["registration"][0]["punished"] == 1
    with HandAgent(node.registration_at(), [{"match": "a.example"}], token=TOKEN):
        node.wait_agents(1)  # the supervisor knows of it
        assert guesses(node, "127.0.0.1", 12, wrong) == ["401"] * 12
    # Also in a worker that has just started.
    os.kill(node.status()["workers"][1]["pid"], signal.SIGKILL)
    node.process.wait_for_line("another one starts")
    node.wait_ready()
    assert set(guesses(node, "127.0.0.2", 12, TOKEN)) == {"429"}
