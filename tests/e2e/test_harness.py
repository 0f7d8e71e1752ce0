"""The harness proves itself on servers that are known to be right, before it judges the product."""

import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers.processes import established
from tests.harness.client import RawClient, chunked, connect, fetch
from tests.harness.message import Closed
from tests.harness.origin import Connection, Origin, pattern, refused_port, sha256
from tests.harness.peer import (
    CONTROL,
    DATA,
    END,
    INITIAL_WINDOW,
    OPEN,
    HandAgent,
    HandNode,
    frame,
    open_payload,
    parse_open,
    stream_id,
)
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.servers import Haproxy, Nginx, Postgres, Redis
from tests.harness.waiting import wait_equal, wait_until


@pytest.fixture
def origin() -> Iterator[Origin]:
    with Origin() as server:
        yield server


def test_nginx_answers_strictly(nginx: Nginx) -> None:
    with RawClient(nginx.address) as client:
        for _ in range(3):
            response = client.request(target="/hello")
            assert (response.status, response.body, response.framing) == (
                200,
                b"hello from nginx\n",
                "length",
            )
        assert client.request("HEAD", "/hello").body == b""
        assert client.request(target="/missing").status == 404


def test_nginx_files_match_their_hash(nginx: Nginx) -> None:
    data = pattern(3_000_000, seed=1)
    path = nginx.file("harness.bin", data)
    with RawClient(nginx.address) as client:
        assert client.request(target=path, digest=True).digest == sha256(data)


def test_origin_records_exact_bytes(origin: Origin) -> None:
    raw = b"GET /x HTTP/1.1\r\nHost: a\r\nX-Odd:   spaced  \r\n\r\n"
    with RawClient(origin.address) as client:
        client.send(raw)
        assert client.read_response().status == 200
    assert bytes(origin.connections[0].received) == raw
    assert origin.requests[0].headers["X-Odd"] == "spaced"


def test_origin_reads_chunked_and_counts(origin: Origin) -> None:
    data = pattern(100_000)
    with RawClient(origin.address) as client:
        client.send_request("POST", "/c", [("Transfer-Encoding", "chunked")])
        client.send(chunked([data[:10], data[10:]], [("X-After", "1")]))
        seen = client.read_response().body
    assert sha256(data).encode() in seen and b'["X-After", "1"]' in seen


def test_origin_plays_broken_answers(origin: Origin) -> None:
    origin.on("/broken", lambda c, _: c.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort") or True)
    with RawClient(origin.address) as client, pytest.raises(Closed):
        client.request(target="/broken")


def test_origin_scripts_wait_for_events(origin: Origin) -> None:
    gate = threading.Event()

    def held(connection: Connection, _head: object) -> None:
        connection.wait(gate)
        connection.answer(body=b"late")

    origin.on("/held", held)
    with RawClient(origin.address) as client:
        client.send_request(target="/held")
        client.expect_silence()
        gate.set()
        assert client.read_response().body == b"late"


def test_origin_reports_bad_requests() -> None:
    server = Origin()
    with RawClient(server.address) as client:
        client.send(b"GET / HTTP/1.1\r\nbad header\r\n\r\n")
        client.expect_closed()
    wait_equal(lambda: server.open_connections, 0)
    server.close()
    with pytest.raises(AssertionError, match="bad header"):
        server.raise_errors()


@pytest.mark.parametrize("family", ["tcp6", "unix"])
def test_origin_on_other_families(family: str, tmp_path: Path) -> None:
    with Origin(family=family, path=str(tmp_path / "o.sock")) as server:
        assert fetch(server.address).status == 200


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\na",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nBad Header: 1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
    ],
)
def test_client_refuses_what_is_not_exact(origin: Origin, raw: bytes) -> None:
    origin.on("/raw", lambda c, _: c.send(raw) or True)
    with RawClient(origin.address) as client, pytest.raises((AssertionError, Closed)):
        client.request(target="/raw")


def test_client_through_haproxy(origin: Origin, tmp_path: Path) -> None:
    proxy = Haproxy(tmp_path, origin.port)
    try:
        with RawClient(proxy.address) as client:
            body = pattern(200_000)
            for _ in range(3):
                assert sha256(body).encode() in client.request("POST", "/p", body=body).body
            client.send_request("HEAD", "/")
            assert client.read_response("HEAD").status == 200
        wait_equal(lambda: established(proxy.port), 0)
    finally:
        proxy.close()


def test_process_output_exit_and_cleanliness() -> None:
    code = (
        "import sys, signal; signal.signal(15, lambda *a: sys.exit(3)); "
        "print('up', flush=True); signal.pause()"
    )
    process = Process([sys.executable, "-c", code])
    process.wait_for_line("^up$")
    assert process.rss() > 0 and process.descriptors() >= 3
    process.signal(signal.SIGTERM)
    process.expect_exit(3)


def test_process_traceback_is_a_failure() -> None:
    process = Process([sys.executable, "-c", "1/0"])
    with pytest.raises(AssertionError, match="Traceback"):
        process.expect_exit(1)


def test_process_that_never_says_it() -> None:
    process = Process([sys.executable, "-c", "print('other')"])
    with pytest.raises(AssertionError, match="no line matches"):
        process.wait_for_line("^expected$")
    process.expect_exit(0)


def test_ports_are_free_and_refused() -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(("127.0.0.1", free_port()), 5)
    with refused_port() as sock, pytest.raises(ConnectionRefusedError):
        connect(sock.getsockname(), 5)


def test_wait_until_shows_what_it_saw() -> None:
    with pytest.raises(AssertionError, match="last seen: 0"):
        wait_until(lambda: 0, deadline=0.05)


def test_hand_agent_and_hand_node_understand_each_other() -> None:
    with HandNode() as node:
        accepted = []
        thread = threading.Thread(target=lambda: accepted.append(node.accept(streams=7)))
        thread.start()
        host, port = node.url.removeprefix("http://").split(":")
        with HandAgent((host, int(port)), [{"match": "/"}], index=3) as agent:
            thread.join()
            assert agent.granted["streams"] == 7 and agent.granted["window"] == INITIAL_WINDOW
            link = accepted[0]
            link.send(
                frame(CONTROL, 0, b"\x80") + frame(OPEN, stream_id(1), open_payload(b"HEAD", b"body"), END)
            )
            got = agent.expect(OPEN)
            assert parse_open(got.payload) == (1, b"HEAD", b"body") and got.flags == END
            agent.send_frame(DATA, got.stream, b"x")
            assert link.expect(DATA).payload == b"x"


def test_redis(tmp_path: Path) -> None:
    server = Redis(tmp_path)
    try:
        sock = connect(("127.0.0.1", server.port))
        with sock:
            sock.sendall(b"PING\r\n")
            assert sock.recv(100) == b"+PONG\r\n"
    finally:
        server.close()


def test_postgres() -> None:
    server = Postgres()
    try:
        assert server.query("select 6 * 7", server.port) == "42"
    finally:
        server.close()
