"""Who an agent is: certificates and tokens at a registration port, proofs that are of no use elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority, Files
from tests.harness.client import RawClient
from tests.harness.nodes import Agent, DmzNode, Snippet, World, everything, loopback, merge
from tests.harness.peer import registration_head
from tests.harness.waiting import DEADLINE, wait_until

TOKEN = "broker_a-token-for-the-end-to-end-tests"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node_files(authority: Authority) -> Files:
    return authority.issue("localhost", days=90)


def fingerprint(files: Files) -> str:
    """As openssl has it."""
    command = ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", str(files.cert)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return "sha256:" + told.strip().partition("=")[2].replace(":", "").lower()


def user(name: str = "orders", **more: Any) -> Snippet:
    return {"name": name, "may": {"services": ["*"]}, **more}


def tls_node(
    world: World, authority: Authority, files: Files, users: list[Snippet], mode: str = "request", **port: Any
) -> DmzNode:
    listen = loopback("https").replace("127.0.0.1", "localhost")
    tls = {"certificates": [files.snippet()], "client": {"mode": mode, "ca": str(authority.ca)}}
    return world.dmz(
        {"registration": [{"name": "green", "listen": listen, "tls": tls, **port}], "users": users}
    )


def token_file(world: World, token: str = TOKEN) -> str:
    path = world.directory / f"{hashlib.sha256(token.encode()).hexdigest()[:8]}.token"
    path.write_text(token + "\n")
    path.chmod(0o600)
    return str(path)


def agent_of(
    world: World, node: DmzNode, authority: Authority | None, files: Files | None = None, **connect: Any
) -> Agent:
    entry: dict[str, Any] = {"url": node.registration_url(), "tunnels": 1, **connect}
    if authority is not None:
        shown = {"cert": str(files.cert), "key": str(files.key)} if files else {}
        entry["tls"] = {"ca": str(authority.ca), **shown}
    origin = world.origins[0] if world.origins else world.origin()
    agent = world.agent(
        node.registration_url(), [everything(origin)], extra={"connect": [entry]}, start=False
    )
    agent.start(ready=False)
    return agent


def refused_with(agent: Agent, *words: str) -> None:
    line = agent.process.wait_for_line(r"no tunnel to .*")[0]
    assert all(word in line for word in words), line


def registered(node: DmzNode, *users: str) -> None:
    wait_until(
        lambda: sorted(each["user"] for each in node.status()["tunnels"]) == sorted(users),
        f"{users} are registered",
    )


# --- certificates -------------------------------------------------------------------------------


def test_a_certificate_proves_its_user(world: World, authority: Authority, node_files: Files) -> None:
    mine, other = (authority.issue(subject=name, days=90) for name in ("orders-1", "stock-1"))
    named = {"ca": str(authority.ca), "subject": "stock-*"}
    node = tls_node(
        world,
        authority,
        node_files,
        [user("orders", certificates=[fingerprint(mine)]), user("stock", certificates=[named])],
    )
    agent_of(world, node, authority, mine).wait_ready()
    registered(node, "orders")
    # The same service by another user: he is known, and refused for that.
    refused_with(agent_of(world, node, authority, other), "409 conflict", "taken by another user")
    nobody = authority.issue(subject="nobody", days=90)
    refused_with(agent_of(world, node, authority, nobody), "403 forbidden", "CN=nobody", "belongs to no user")
    refused_with(agent_of(world, node, authority), "401 unauthenticated")
    strangers = Authority(world.directory, "strangers")
    foreign = strangers.issue(subject="orders-1", days=90)
    refused_with(agent_of(world, node, authority, foreign), "TLS failed", "does not know the CA")
    expired = authority.issue(subject="stock-2", days=-1)
    refused_with(agent_of(world, node, authority, expired), "TLS failed", "expired")
    registered(node, "orders")


def test_both_a_token_and_a_certificate(world: World, authority: Authority, node_files: Files) -> None:
    files = authority.issue(subject="orders-1", days=90)
    users = [user("orders", tokens=[HASH], certificates=[fingerprint(files)])]
    node = tls_node(world, authority, node_files, users, auth="both")
    file = token_file(world)
    refused_with(agent_of(world, node, authority, files), "401", "The token is missing")
    refused_with(agent_of(world, node, authority, token_file=file), "401", "No certificate was shown")
    agent_of(world, node, authority, files, token_file=file).wait_ready()
    registered(node, "orders")
    # Its certificate is taken from the user: the tunnel ends, although the token is good.
    node.write(merge(node.config, {"users": [user("orders", tokens=[HASH])]}))
    assert node.admin_post("/reload").status == 200
    registered(node)
    node.process.wait_for_line("its credentials are not valid any more")


def test_a_reload_takes_a_certificate_away(world: World, authority: Authority, node_files: Files) -> None:
    files = authority.issue(subject="orders-1", days=90)
    node = tls_node(world, authority, node_files, [user(certificates=[fingerprint(files)])])
    agent = agent_of(world, node, authority, files)
    agent.wait_ready()
    node.write(merge(node.config, {"users": [user(tokens=[HASH])]}))
    assert node.admin_post("/reload").status == 200
    registered(node)
    refused_with(agent, "403 forbidden", "belongs to no user")


@pytest.mark.parametrize("by", ["certificate", "token"])
def test_a_revoked_certificate_ends_its_tunnel(
    world: World, authority: Authority, node_files: Files, by: str
) -> None:
    """Also that of an agent which a token has proven, beside it."""
    gone, stays = (authority.issue(subject=f"orders-{number}", days=90) for number in (1, 2))
    named = {"ca": str(authority.ca), "subject": "orders-*"}
    known = user(certificates=[named]) if by == "certificate" else user(tokens=[HASH])
    node = tls_node(world, authority, node_files, [known], mode="require")
    more = {"token_file": token_file(world)} if by == "token" else {}
    lost = agent_of(world, node, authority, gone, **more)
    lost.wait_ready()
    agent_of(world, node, authority, stays, **more).wait_ready()
    registered(node, "orders", "orders")
    port = node.config["registration"][0]
    port["tls"]["client"]["crl"] = [str(authority.crl(gone))]
    node.write(node.config)
    assert node.admin_post("/reload").status == 200
    registered(node, "orders")
    lost.process.wait_for_line("its certificate was revoked")
    refused_with(lost, "TLS failed", "revoked")


def test_a_certificate_that_can_not_be_read_proves_nothing(
    world: World, authority: Authority, node_files: Files
) -> None:
    """OpenSSL verifies it; `cryptography` knows no version 4, and no DNS name of the byte 0xFF."""
    rules = [{"ca": str(authority.ca), "san": "DNS:*"}, {"ca": str(authority.ca), "subject": "v4"}]
    node = tls_node(world, authority, node_files, [user(certificates=rules)])
    head = registration_head("localhost", [{"match": "/"}])
    for files, status in (
        (authority.strange("v4", version=4), b"401"),
        (authority.strange("odd", names=b"\x30\x03\x82\x01\xff"), b"403"),
    ):
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(files.cert, files.key)
        with (
            socket.create_connection(node.registration_at(), DEADLINE) as sock,
            context.wrap_socket(sock, server_hostname="localhost") as client,
        ):
            client.sendall(head)
            assert client.recv(65536).split()[1] == status
    node.process.assert_clean()


# --- proofs -------------------------------------------------------------------------------------


class Recorder:
    """Between agents and a node; passes bytes on and keeps what agents sent. With TLS: opens it."""

    def __init__(self, target: tuple[str, int], files: Files | None = None, ca: Path | None = None) -> None:
        self.target = target
        self.sent: list[bytes] = []
        self.port = 0
        self._server = self._client = None
        if files is not None:
            self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server.load_cert_chain(files.cert, files.key)
            self._client = ssl.create_default_context(cafile=str(ca))
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Recorder:
        self._thread.start()
        assert self._listening.wait(DEADLINE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._pair, "127.0.0.1", 0, ssl=self._server)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _pair(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = "localhost" if self._client else None
        node = await asyncio.open_connection(*self.target, ssl=self._client, server_hostname=name)
        try:
            await asyncio.gather(self._pump(reader, node[1], self.sent), self._pump(node[0], writer, []))
        finally:
            for each in (writer, node[1]):
                each.transport.abort()

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, kept: list[bytes]
    ) -> None:
        with contextlib.suppress(OSError):
            while chunk := await source.read(65536):
                kept.append(chunk)
                sink.write(chunk)
                await sink.drain()
        sink.close()


def answer_to(address: tuple[str, int], data: bytes, context: ssl.SSLContext | None = None) -> bytes:
    """The status line that these bytes get on a new connection."""
    with socket.create_connection(address, DEADLINE) as sock:
        wrapped = context.wrap_socket(sock, server_hostname="localhost") if context else sock
        with wrapped:
            wrapped.sendall(data)
            told = b""
            while b"\r\n" not in told:
                chunk = wrapped.recv(4096)
                if not chunk:
                    return told
                told += chunk
            return told.partition(b"\r\n")[0]


def test_a_recorded_login_is_worthless(world: World) -> None:
    """Over plain HTTP everything can be read; the token can't, and what was read gets nobody in again."""
    node = world.dmz({"users": [user(tokens=[HASH])]})
    with Recorder(node.registration_at()) as between:
        url = f"http://127.0.0.1:{between.port}"
        agent_of(world, node, None, url=url, token_file=token_file(world)).wait_ready()
        registered(node, "orders")
        recorded = b"".join(between.sent)
    heads = [head + b"\r\n\r\n" for head in recorded.split(b"\r\n\r\n")[:2]]
    assert heads[0].endswith(b"Authorization: Broker\r\n\r\n") and b"proof=" in heads[1]
    assert TOKEN.encode() not in recorded
    at = node.registration_at()
    assert answer_to(at, heads[1]).startswith(b"HTTP/1.1 401 ")
    with RawClient(at) as again:
        again.send(heads[0])
        challenge = again.read_response()
        assert challenge.status == 401 and challenge.headers["WWW-Authenticate"].startswith("Broker nonce=")
        again.send(heads[1])
        assert again.read_response().status == 401
    assert node.status()["registration"][0]["logins"] == 1


def test_a_login_can_not_be_passed_on(world: World, authority: Authority, node_files: Files) -> None:
    """A man in the middle whose certificate the agent believes opens TLS, and gains nothing by it."""
    node = tls_node(world, authority, node_files, [user(tokens=[HASH])], "none")
    port = node.registration_at()[1]
    context = ssl.create_default_context(cafile=str(authority.ca))
    with Recorder(("localhost", port), node_files, authority.ca) as between:
        url = f"https://localhost:{between.port}"
        agent = agent_of(world, node, authority, url=url, token_file=token_file(world))
        refused_with(agent, "401", "its proof was made for another connection")
        stolen = b"".join(between.sent)
        assert b"proof=" in stolen and TOKEN.encode() not in stolen
        assert answer_to(("localhost", port), stolen, context).startswith(b"HTTP/1.1 401 ")
        assert not node.status()["tunnels"]
        # Who wants TLS to be opened on the way says so, and has to trust whoever does it.
        bare = agent_of(world, node, authority, url=url, token_file=token_file(world), bearer=True)
        bare.wait_ready()
        registered(node, "orders")
        assert TOKEN.encode() in b"".join(between.sent)


def test_a_node_that_takes_proofs_only(world: World, authority: Authority, node_files: Files) -> None:
    node = tls_node(world, authority, node_files, [user(tokens=[HASH])], "none", bearer=False)
    file = token_file(world)
    refused_with(agent_of(world, node, authority, token_file=file, bearer=True), "401", "no bare tokens")
    agent_of(world, node, authority, token_file=file).wait_ready()
    registered(node, "orders")
    wrong = token_file(world, "broker_a-token-that-nobody-knows-of")
    refused_with(agent_of(world, node, authority, token_file=wrong), "401", "The token is unknown")


def test_tls_that_ends_before_the_node(world: World, authority: Authority, node_files: Files) -> None:
    """A balancer opens TLS and speaks plain HTTP to the node: the agent is told what to do."""
    node = world.dmz({"users": [user(tokens=[HASH])]})
    head = registration_head("localhost", [{"match": "/"}]).decode()
    proof = "Authorization: Broker key=0000000000000000, binding=tls-exporter, proof=AAAA\r\n"
    data = head.replace("\r\n\r\n", f"\r\n{proof}\r\n").encode()
    with RawClient(node.registration_at()) as client:
        client.send(data)
        told = client.read_response()
    assert told.status == 401 and b"bearer: true" in told.body


def test_a_nonce_is_given_once(world: World) -> None:
    node = world.dmz({"users": [user(tokens=[HASH])]})
    question = (
        b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: broker-tunnel\r\n"
        b"Broker-Version: 1\r\nAuthorization: Broker\r\n\r\n"
    )
    with RawClient(node.registration_at()) as client:
        client.send(question)
        first = client.read_response()
        client.send(question)
        assert client.read_response().status == 400
    with RawClient(node.registration_at()) as client:
        client.send(question)
        second = client.read_response()
    nonces = {each.headers["WWW-Authenticate"] for each in (first, second)}
    assert len(nonces) == 2
