"""Bodies of every framing and size, both ways, compared by hash."""

import json
import threading
from collections.abc import Callable

import pytest

from tests.harness.client import RawClient, chunked
from tests.harness.message import Head, Response
from tests.harness.nodes import Pair, World
from tests.harness.origin import Connection, pattern, sha256
from tests.harness.waiting import wait_until

KIB, MIB = 1024, 1024 * 1024
# Around the sizes at which buffers, frames (64 KiB) and windows change.
SIZES = [0, 1, 1000, 16 * KIB, 64 * KIB - 1, 64 * KIB, 64 * KIB + 1, 300_000, 5 * MIB + 7]
LARGE = 64 * MIB


def chunks_of(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


def by_length(connection: Connection, body: bytes) -> bool:
    connection.answer(body=body)
    return False


def by_chunks(connection: Connection, body: bytes) -> bool:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for piece in chunks_of(body, 70_001):
        connection.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    connection.send(b"0\r\n\r\n")
    return False


def until_close(connection: Connection, body: bytes) -> bool:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)
    return True


DOWNLOADS = {"length": by_length, "chunked": by_chunks, "close": until_close}


def download(pair: Pair, framing: str, size: int) -> Response:
    body = pattern(size, seed=size)
    play: Callable[[Connection, bytes], bool] = DOWNLOADS[framing]
    target = pair.origin.on(f"/download-{framing}-{size}", lambda c, _: play(c, body))
    with pair.client() as client:
        response = client.request(target=target, digest=True)
        assert response.status == 200
        assert (response.size, response.digest) == (size, sha256(body))
        if response.keeps_open:
            assert client.request(target="/after").status == 200
        else:
            client.expect_closed()
        return response


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", DOWNLOADS)
def test_download(pair: Pair, framing: str, size: int) -> None:
    response = download(pair, framing, size)
    if framing == "length":
        assert response.framing == "length"


@pytest.mark.parametrize("framing", DOWNLOADS)
def test_download_64_mib(pair: Pair, framing: str) -> None:
    download(pair, framing, LARGE)


def upload(pair: Pair, framing: str, body: bytes) -> None:
    with pair.client() as client:
        if framing == "length":
            client.send_request("PUT", "/upload", body=body)
        else:
            client.send_request("PUT", "/upload", [("Transfer-Encoding", "chunked")])
            client.send(chunked(chunks_of(body, 70_001)))
        seen = json.loads(client.read_response().body)
        assert (seen["size"], seen["sha256"]) == (len(body), sha256(body))
        assert client.request(target="/after").status == 200


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload(pair: Pair, framing: str, size: int) -> None:
    upload(pair, framing, pattern(size, seed=size))


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_upload_64_mib(pair: Pair, framing: str) -> None:
    upload(pair, framing, pattern(LARGE, seed=3))


def test_both_directions_at_once(pair: Pair) -> None:
    """The origin sends back what comes while it comes: neither side may wait for the other to finish."""
    body = pattern(8 * MIB, seed=5)

    def mirror(connection: Connection, head: Head) -> None:
        size = int(head.headers["Content-Length"])
        connection.send(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for piece in connection.reader.pieces(size):
            connection.send(piece)

    pair.origin.on("/mirror", mirror)
    with pair.client() as client:
        sender = threading.Thread(target=client.send_request, args=("POST", "/mirror", (), body))
        sender.start()
        response = client.read_response(digest=True)
        sender.join()
    assert response.digest == sha256(body)


def test_chunk_sizes_of_the_client_do_not_matter(pair: Pair) -> None:
    body = pattern(50_000, seed=9)
    pieces = [body[:1], body[1:3], *chunks_of(body[3:40_000], 777), body[40_000:]]
    with pair.client() as client:
        client.send_request("POST", "/pieces", [("Transfer-Encoding", "chunked")])
        raw = chunked(pieces)
        for piece in chunks_of(raw, 997):
            client.send(piece)
        assert json.loads(client.read_response().body)["sha256"] == sha256(body)


def test_a_body_byte_by_byte(pair: Pair) -> None:
    """The head and a chunked body, every byte in a packet of its own."""
    raw = b"POST /slowly HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(
        [b"hello", b" world"]
    )
    with pair.client() as client:
        for index in range(len(raw)):
            client.send(raw[index : index + 1])
        assert json.loads(client.read_response().body)["sha256"] == sha256(b"hello world")


def test_body_bytes_arrive_before_the_body_is_complete(pair: Pair) -> None:
    """Streamed, not held: the origin sees the first half while the client still has the second."""
    half_seen = threading.Event()

    def script(connection: Connection, _head: Head) -> None:
        assert connection.reader.exactly(1000) == b"a" * 1000
        half_seen.set()
        assert connection.reader.exactly(1000) == b"b" * 1000
        connection.answer(body=b"both")

    pair.origin.on("/halves", script)
    with pair.client() as client:
        client.send_request("POST", "/halves", [("Content-Length", "2000")])
        client.send(b"a" * 1000)
        assert half_seen.wait(20)
        client.send(b"b" * 1000)
        assert client.read_response().body == b"both"


def test_nginx_downloads_match(world: World, nginx) -> None:  # type: ignore[no-untyped-def]
    """A real server behind the agent: whole files, ranges, HEAD, conditional requests."""
    data = pattern(2 * MIB, seed=11)
    path = nginx.file("bodies.bin", data)
    dmz = world.dmz()
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": nginx.url}])
    with dmz.client() as client:
        whole = client.request(target=path, digest=True)
        assert whole.digest == sha256(data)
        part = client.request(target=path, fields=[("Range", "bytes=1000-1999")])
        assert (part.status, part.body) == (206, data[1000:2000])
        assert part.headers["Content-Range"] == f"bytes 1000-1999/{len(data)}"
        head = client.request("HEAD", path)
        assert (head.headers["Content-Length"], head.body) == (str(len(data)), b"")
        tag = whole.headers["ETag"]
        unchanged = client.request(target=path, fields=[("If-None-Match", tag)])
        assert (unchanged.status, unchanged.body, unchanged.headers["ETag"]) == (304, b"", tag)
        assert client.request(target="/hello").body == b"hello from nginx\n"


def test_a_client_that_leaves_in_the_middle_of_an_upload(pair: Pair) -> None:
    """The origin must not take the part for the whole."""
    seen: list[bytes] = []

    def script(connection: Connection, _head: Head) -> bool:
        while piece := connection.reader.some():
            seen.append(piece)
        return True

    pair.origin.on("/cut-upload", script)
    client = RawClient(pair.address)
    client.send_request("POST", "/cut-upload", [("Transfer-Encoding", "chunked")])
    client.send(b"5\r\nhello\r\n")
    client.close()
    connection = next_ended(pair, "/cut-upload")
    raw = bytes(connection.received).partition(b"\r\n\r\n")[2]
    assert not raw.endswith(b"0\r\n\r\n"), f"a cut body was completed: {raw!r}"


def next_ended(pair: Pair, target: str) -> Connection:
    """The origin's connection that served this target, once it has ended."""

    def find() -> Connection | None:
        for connection in pair.origin.connections:
            if any(head.target == target for head in connection.requests) and connection.ended.is_set():
                return connection
        return None

    return wait_until(find, f"the origin's connection for {target} has ended")
