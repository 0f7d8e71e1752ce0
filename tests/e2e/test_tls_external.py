"""External ports over TLS, by openssl, curl and Python's own ssl."""

from __future__ import annotations

import hashlib
import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.certificates import Authority, Files
from tests.harness.client import fetch
from tests.harness.nodes import DmzNode, Pair, Snippet, World, everything, loopback
from tests.harness.origin import Connection, pattern
from tests.harness.process import environment
from tests.harness.waiting import wait_until

MIB = 1 << 20
NAME = "shop.example"
MODES = ["direct", "methods"]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shop(authority: Authority) -> Files:
    return authority.issue(NAME, "*.shop.example", days=90)


def tls_pair(world: World, certificates: list[Files], mode: str = "direct", **tls: Any) -> Pair:
    """As a plain pair, but clients speak TLS; `mode`: how OpenSSL is driven."""
    origin = world.origin()
    dmz = world.dmz(port_config(certificates, **tls), start=False)
    dmz.env = environment_for(mode)
    dmz.start()
    agent = world.agent(dmz.registration_url(), [everything(origin)])
    return Pair(dmz, agent, origin)


def environment_for(mode: str) -> dict[str, str]:
    return environment({"BROKER_TLS": mode})


def port_config(certificates: list[Files], **tls: Any) -> Snippet:
    listen = {"name": "web", "listen": loopback("https")}
    return {
        "external": [{**listen, "tls": {"certificates": [each.snippet() for each in certificates], **tls}}]
    }


def trusting(authority: Authority, **options: Any) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    for name, value in options.items():
        setattr(context, name, value)
    return context


def connect(node: DmzNode, context: ssl.SSLContext, name: str = NAME) -> ssl.SSLSocket:
    raw = socket.create_connection(node.external, timeout=20)
    return context.wrap_socket(raw, server_hostname=name)


def ask(sock: ssl.SSLSocket, target: str = "/", extra: str = "", body: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of an answer with a length."""
    head = f"{'PUT' if body else 'GET'} {target} HTTP/1.1\r\nHost: {NAME}\r\n{extra}"
    if body:
        head += f"Content-Length: {len(body)}\r\n"
    sock.sendall(head.encode() + b"\r\n" + body)
    reader = sock.makefile("rb")
    status = [reader.readline()]
    while (line := reader.readline()) not in (b"\r\n", b""):
        status.append(line)
    size = next(int(line.split(b":")[1]) for line in status if line.lower().startswith(b"content-length:"))
    return b"".join(status), reader.read(size)


@pytest.fixture(scope="module", params=MODES)
def pair(request: pytest.FixtureRequest, module_world: World, shop: Files) -> Iterator[Pair]:
    found = tls_pair(module_world, [shop], request.param)
    yield found
    for node in (found.dmz, found.agent):
        assert node.process.running, node.process.output
        node.process.assert_clean()


def curl(authority: Authority, node: DmzNode, path: str, *options: str) -> subprocess.CompletedProcess[bytes]:
    port = node.external[1]
    return subprocess.run(
        [
            *("curl", "-sS", "--cacert", str(authority.ca), "--resolve", f"{NAME}:{port}:127.0.0.1"),
            *options,
            f"https://{NAME}:{port}{path}",
        ],
        capture_output=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_requests_on_one_connection(pair: Pair, authority: Authority, version: str) -> None:
    chosen = getattr(ssl.TLSVersion, version)
    context = trusting(authority, minimum_version=chosen, maximum_version=chosen)
    with connect(pair.dmz, context) as sock:
        assert sock.version() == version.replace("_", ".")
        for number in range(5):
            head, body = ask(sock, f"/echo/{number}")
            assert head.startswith(b"HTTP/1.1 200")
            assert json.loads(body)["start"] == f"GET /echo/{number} HTTP/1.1"


def test_the_service_is_told_https(pair: Pair, authority: Authority) -> None:
    done = curl(authority, pair.dmz, "/echo")
    assert done.returncode == 0, done.stderr
    assert dict(json.loads(done.stdout)["fields"])["X-Forwarded-Proto"] == "https"


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, 16_385, 5 * MIB + 7])
def test_bodies_both_ways(pair: Pair, authority: Authority, size: int) -> None:
    body = pattern(size, seed=size)

    def play(connection: Connection, _head: Any) -> None:
        connection.answer(body=body)

    pair.origin.on(f"/down-{size}", play)
    with connect(pair.dmz, trusting(authority)) as sock:
        _, got = ask(sock, f"/down-{size}")
        assert got == body
        if size:
            seen = json.loads(ask(sock, f"/up-{size}", body=body)[1])
            assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())


def test_a_request_in_many_records(pair: Pair, authority: Authority) -> None:
    """Every byte in a record, and so in a packet, of its own."""
    with connect(pair.dmz, trusting(authority)) as sock:
        for byte in f"GET /bytes HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode():
            sock.sendall(bytes([byte]))
        assert sock.recv(12).startswith(b"HTTP/1.1 200")


def test_pipelined_requests_in_one_record(pair: Pair, authority: Authority) -> None:
    one = f"GET /pipelined HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode()
    with connect(pair.dmz, trusting(authority)) as sock:
        sock.sendall(one * 50)
        got = b""
        while got.count(b"HTTP/1.1 200") < 50:
            piece = sock.recv(65536)
            assert piece, got[-300:]
            got += piece


def test_a_client_that_ends_cleanly_is_answered_cleanly(pair: Pair, authority: Authority) -> None:
    with connect(pair.dmz, trusting(authority)) as sock:
        sock.sendall(f"GET /last HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode())
        got = b""
        while piece := sock.recv(65536):  # raises where close_notify is missing
            got += piece
        assert got.startswith(b"HTTP/1.1 200")


def test_a_slow_reader_of_a_large_body(pair: Pair, authority: Authority) -> None:
    body = pattern(20 * MIB, seed=4)
    pair.origin.on("/slow-reader", lambda c, _: c.answer(body=body))
    with connect(pair.dmz, trusting(authority)) as sock:
        sock.sendall(f"GET /slow-reader HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        with connect(pair.dmz, trusting(authority)) as other:
            assert ask(other)[0].startswith(b"HTTP/1.1 200")
        digest, left = hashlib.sha256(), len(body)
        reader = sock.makefile("rb")
        while reader.readline() != b"\r\n":
            pass
        while left:
            piece = reader.read(min(left, 100_000))
            digest.update(piece)
            left -= len(piece)
    assert digest.hexdigest() == hashlib.sha256(body).hexdigest()


def test_a_client_that_rests_can_go_on(world: World, authority: Authority, shop: Files) -> None:
    """After a while without a request its buffers are given back; it asks again, and ends, as before."""
    pair = tls_pair(world, [shop])
    body = pattern(MIB, seed=9)
    pair.origin.on("/large", lambda c, _: c.answer(body=body))

    def rested() -> int:
        return int(pair.dmz.status()["external"][0]["rested"])

    with connect(pair.dmz, trusting(authority)) as sock:
        for times, target in ((1, "/echo"), (2, "/large")):
            assert ask(sock, target)[0].startswith(b"HTTP/1.1 200")
            wait_until(lambda times=times: rested() == times, "the client rests")
        assert ask(sock, "/large")[1] == body
        wait_until(lambda: rested() == 3, "the client rests")
    with connect(pair.dmz, trusting(authority)) as sock:
        wait_until(lambda: rested() == 4, "one that has never asked rests, too")
        pair.dmz.process.terminate()
        assert sock.recv(1) == b""
    pair.dmz.process.expect_exit(0)


def test_plain_http_is_told_so(pair: Pair) -> None:
    answer = fetch(pair.dmz.external, "/")
    assert (answer.status, answer.headers["Broker-Error"]) == (400, "bad-request")
    assert "https://" in json.loads(answer.body)["detail"]


def test_garbage_and_silence_cost_only_themselves(pair: Pair, authority: Authority) -> None:
    silent = socket.create_connection(pair.dmz.external, timeout=20)
    garbage = socket.create_connection(pair.dmz.external, timeout=20)
    garbage.sendall(b"\x16\x03\x01\x02\x00" + b"\xff" * 600)
    while garbage.recv(4096):
        pass  # an alert, then the end
    with connect(pair.dmz, trusting(authority)) as sock:
        assert ask(sock)[0].startswith(b"HTTP/1.1 200")
    silent.close()
    garbage.close()


def test_old_versions_are_refused(pair: Pair) -> None:
    done = subprocess.run(
        [
            "openssl",
            "s_client",
            "-connect",
            "{}:{}".format(*pair.dmz.external),
            "-tls1_1",
            "-cipher",
            "ALL:@SECLEVEL=0",
        ],
        input=b"",
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert done.returncode != 0
    assert b"BEGIN CERTIFICATE" not in done.stdout


def test_sessions_are_resumed(pair: Pair, authority: Authority) -> None:
    context = trusting(authority, maximum_version=ssl.TLSVersion.TLSv1_2)
    with connect(pair.dmz, context) as sock:
        assert ask(sock)[0].startswith(b"HTTP/1.1 200")
        session = sock.session
    raw = socket.create_connection(pair.dmz.external, timeout=20)
    with context.wrap_socket(raw, server_hostname=NAME, session=session) as sock:
        assert sock.session_reused
        assert ask(sock)[0].startswith(b"HTTP/1.1 200")


def test_alpn(pair: Pair, authority: Authority) -> None:
    for offered, chosen in ((["h2", "http/1.1"], "http/1.1"), (["h2"], None)):
        context = trusting(authority)
        context.set_alpn_protocols(offered)
        with connect(pair.dmz, context) as sock:
            assert sock.selected_alpn_protocol() == chosen


def test_certificates_by_name(world: World, authority: Authority, shop: Files) -> None:
    other = authority.issue("other.example")
    node = tls_pair(world, [shop, other]).dmz
    for name, subject in (
        (NAME, NAME),
        ("a.shop.example", NAME),
        ("OTHER.example", "other.example"),
    ):
        with connect(node, trusting(authority), name) as sock:
            common = {key: value for ((key, value),) in sock.getpeercert()["subject"]}  # type: ignore[index]
            assert common["commonName"] == subject
    unknown = trusting(authority, check_hostname=False)
    with connect(node, unknown, "a.b.shop.example") as sock:  # a wildcard stands for one label
        assert sock.getpeercert()["subject"] == ((("commonName", NAME),),)  # type: ignore[index]


def test_client_certificates(world: World, authority: Authority, shop: Files, tmp_path: Path) -> None:
    strangers = Authority(tmp_path, "strangers")
    node = tls_pair(world, [shop], client={"mode": "require", "ca": str(authority.ca)}).dmz
    good = authority.issue(subject="alice")
    for files, taken in (
        (good, True),
        (strangers.issue(subject="mallory"), False),
        (authority.issue(days=-1), False),
    ):
        done = curl(authority, node, "/", "--cert", str(files.cert), "--key", str(files.key))
        assert (done.returncode == 0) == taken, done.stderr
    assert curl(authority, node, "/").returncode != 0
    wait_until(
        lambda: node.status()["external"][0].get("handshake_failures", 0) == 3, "three handshakes have failed"
    )


def test_a_reload_changes_certificates_and_drops_nobody(
    world: World, authority: Authority, shop: Files
) -> None:
    pair = tls_pair(world, [shop])
    node = pair.dmz
    assert "expires on" not in node.process.output
    with connect(node, trusting(authority)) as kept:
        assert ask(kept)[0].startswith(b"HTTP/1.1 200")
        renewed = authority.issue(NAME, "new.example", days=20)
        shop_config = node.config
        shop_config["external"][0]["tls"]["certificates"] = [renewed.snippet()]
        node.write(shop_config)
        assert node.admin_post("/reload").status == 200
        node.process.wait_for_line(r"the certificate .* expires on 20\d\d-")
        with connect(node, trusting(authority), "new.example") as sock:
            assert ask(sock)[0].startswith(b"HTTP/1.1 200")
        assert ask(kept)[0].startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("missing", "can't be read"),
        ("not PEM", "no certificate in PEM form"),
        ("another key", "is not the key of"),
        ("weak", "weak key"),
        ("expired", "has expired on"),
    ],
)
def test_bad_files_are_said_clearly(
    world: World, authority: Authority, shop: Files, tmp_path: Path, what: str, said: str
) -> None:
    other = authority.issue("x.example")
    files = {
        "missing": Files(tmp_path / "none.crt", shop.key),
        "not PEM": Files(shop.key, shop.key),
        "another key": Files(shop.cert, other.key),
        "weak": authority.issue("w.example", key=rsa.generate_private_key(65537, 1024)),
        "expired": authority.issue("e.example", days=-1),
    }[what]
    node = world.dmz(port_config([files]), start=False)
    node.start(ready=False)
    node.process.expect_exit(2)
    assert said in "\n".join(node.process.stderr)
