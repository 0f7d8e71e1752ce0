"""Clients that people use, against services that people use: through a tunnel, unchanged."""

import asyncio
import hashlib
import json
import logging
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import httpx
import pytest
import requests
from httpbin import app
from werkzeug.serving import make_server

from tests.harness.message import Head
from tests.harness.nodes import Pair, World
from tests.harness.origin import Connection, pattern
from tests.harness.servers import program

MIB = 1 << 20


@pytest.fixture(scope="module")
def httpbin(module_world: World) -> Iterator[str]:
    """The URL of httpbin behind a tunnel."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    upstream = f"http://127.0.0.1:{server.server_port}"
    pair = module_world.pair(services=lambda _: [{"match": "/", "upstream": upstream}])
    yield f"http://{pair.address[0]}:{pair.address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


# --- curl -------------------------------------------------------------------------------------


def curl(*args: str) -> bytes:
    done = subprocess.run(["curl", "-sS", "--max-time", "30", *args], capture_output=True, check=False)
    assert done.returncode == 0, (done.returncode, done.stderr)
    return done.stdout


def test_curl(httpbin: str, tmp_path: Path) -> None:
    assert json.loads(curl(f"{httpbin}/get?a=1&b=%20"))["args"] == {"a": "1", "b": " "}
    assert json.loads(curl("-d", "x=1", f"{httpbin}/post"))["form"] == {"x": "1"}
    body = pattern(3 * MIB)
    (tmp_path / "body").write_bytes(body)
    seen = curl("-T", str(tmp_path / "body"), "-H", "Content-Type: text/plain", f"{httpbin}/put")
    assert json.loads(seen)["headers"]["Content-Length"] == str(len(body))
    sent = curl("--data-binary", f"@{tmp_path / 'body'}", "-H", "Expect: 100-continue", f"{httpbin}/anything")
    assert json.loads(sent)["method"] == "POST"
    assert b"HTTP/1.1 204" in curl("-I", f"{httpbin}/status/204")
    assert curl("-r", "10-19", f"{httpbin}/range/100") == b"klmnopqrst"
    assert b"304" in curl(
        "-H", "If-None-Match: x", "-o", "/dev/null", "-w", "%{http_code}", f"{httpbin}/etag/x"
    )
    assert curl("-L", "-w", "%{num_redirects}", "-o", "/dev/null", f"{httpbin}/redirect/3") == b"3"


def test_curl_that_offers_http_2(httpbin: str) -> None:
    """`Upgrade: h2c` is what curl --http2 says, and Java's client by default: answered in HTTP/1.1."""
    shown = curl("--http2", "-o", "/dev/null", "-w", "%{http_version} %{http_code}", f"{httpbin}/get")
    assert shown == b"1.1 200"


def test_curl_with_http_2_alone_is_refused(httpbin: str) -> None:
    done = subprocess.run(
        ["curl", "-sS", "--max-time", "10", "--http2-prior-knowledge", f"{httpbin}/get"],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0 and not done.stdout


# --- Python's clients ------------------------------------------------------------------------------


def test_requests(httpbin: str) -> None:
    with requests.Session() as session:
        assert session.get(f"{httpbin}/get", params={"ä": "ö"}, timeout=30).json()["args"] == {"ä": "ö"}
        body = pattern(2 * MIB)
        sent = session.post(f"{httpbin}/post", data=body, timeout=30).json()["headers"]
        assert sent["Content-Length"] == str(len(body))
        files = {"file": ("name", b"content")}
        assert session.post(f"{httpbin}/post", files=files, timeout=30).json()["files"] == {"file": "content"}
        assert session.get(f"{httpbin}/gzip", timeout=30).json()["gzipped"] is True
        assert session.get(f"{httpbin}/brotli", timeout=30, stream=True).headers["Content-Encoding"] == "br"
        session.get(f"{httpbin}/cookies/set?a=1&b=2", timeout=30)
        assert session.get(f"{httpbin}/cookies", timeout=30).json()["cookies"] == {"a": "1", "b": "2"}
        assert session.get(f"{httpbin}/basic-auth/u/p", auth=("u", "p"), timeout=30).json()["user"] == "u"
        assert session.delete(f"{httpbin}/delete", timeout=30).status_code == 200
        for status in (201, 204, 304, 404, 418, 503):
            assert session.get(f"{httpbin}/status/{status}", timeout=30).status_code == status
        lines = list(session.get(f"{httpbin}/stream/20", timeout=30, stream=True).iter_lines())
        assert [json.loads(line)["id"] for line in lines] == list(range(20))


def test_httpx(httpbin: str) -> None:
    with httpx.Client(base_url=httpbin, timeout=30, trust_env=False) as client:
        seeded = client.get("/bytes/100000?seed=7").content
        assert len(seeded) == 100_000 and client.get("/bytes/100000?seed=7").content == seeded
        with client.stream("GET", "/stream-bytes/100000?seed=3&chunk_size=777") as response:
            assert sum(map(len, response.iter_bytes())) == 100_000
        assert client.patch("/patch", json={"a": [1, 2]}).json()["json"] == {"a": [1, 2]}
        assert client.head("/get").content == b""
        assert client.get("/response-headers?X-A=1&X-A=2").headers.get_list("X-A") == ["1", "2"]


def test_aiohttp(httpbin: str) -> None:
    """Fifty at once."""

    async def one(session: aiohttp.ClientSession, number: int) -> None:
        body = str(number) * 1000
        async with session.post(f"{httpbin}/post", data=body) as response:
            assert (await response.json())["data"] == body

    async def main() -> None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as session:
            await asyncio.gather(*(one(session, number) for number in range(50)))

    asyncio.run(main())


# --- event streams -----------------------------------------------------------------------------------

PAGE = b"""<!doctype html><title>waiting</title><pre id=seen></pre><script>
const source = new EventSource("/events"), seen = document.getElementById("seen")
source.onmessage = event => { seen.textContent += event.data + ";" }
source.addEventListener("done", () => { source.close(); seen.textContent += "done" })
</script>"""


def test_events_as_they_come(pair: Pair) -> None:
    """What an EventSource sees: each event before the service says the next, without a wait on the way."""
    heard = threading.Event()
    delays: list[float] = []

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(50):
            heard.clear()
            started = time.monotonic()
            connection.send(b"id: %d\ndata: event\n\n" % number)
            connection.wait(heard)
            delays.append(time.monotonic() - started)
        return True

    pair.origin.on("/events", script)
    url = f"http://{pair.address[0]}:{pair.address[1]}/events"
    with httpx.Client(timeout=30, trust_env=False) as client, client.stream("GET", url) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        for line in response.iter_lines():
            if not line:
                heard.set()
    assert len(delays) == 50
    assert sorted(delays)[25] < 0.05, f"events are held back: median {sorted(delays)[25]:.4f} s"


def test_the_event_source_of_a_browser(world: World) -> None:
    """Chromium itself: events, and the reconnect with Last-Event-ID after the stream has ended."""
    chromium = program("chromium", "chromium")
    pair = world.pair()
    asked: list[str | None] = []

    def events(connection: Connection, head: Head) -> bool:
        asked.append(head.headers.get("Last-Event-ID"))
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        first = 4 if asked[-1] == "3" else 1
        for number in range(first, first + 3):
            event = b"retry: 50\nid: %d\ndata: event %d\n\n" % (number, number)
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
        if first == 4:
            connection.send(b"%x\r\n%b\r\n0\r\n\r\n" % (21, b"event: done\ndata: x\n\n\n"))
        return True

    pair.origin.on("/events", events)
    pair.origin.on("/page", lambda c, _: c.answer(body=PAGE, fields=[("Content-Type", "text/html")]))
    url = f"http://{pair.address[0]}:{pair.address[1]}/page"
    assert "event 1;event 2;event 3;event 4;event 5;event 6;done" in browse(chromium, url, world.directory)
    assert asked == [None, "3"]


def browse(chromium: str, url: str, directory: Path) -> str:
    """What a page looks like after a while, by its document."""
    done = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
            *(f"--user-data-dir={directory / 'profile'}", "--no-proxy-server", "--timeout=15000"),
            *("--virtual-time-budget=8000", "--dump-dom", url),
        ],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


# --- no byte of one in another -----------------------------------------------------------------------


def test_ten_thousand_different_bodies_two_hundred_at_once(pair: Pair) -> None:
    """Every answer is that to its own request, whatever the sizes, by length and by chunks."""

    async def play(number: int, session: aiohttp.ClientSession, url: str) -> None:
        size = (number * 7919) % 3000 if number % 50 else (number * 7919) % 200_000
        body = pattern(size, seed=number)
        data = stream(body) if number % 3 == 0 else body
        async with session.post(f"{url}/body/{number}", data=data) as response:
            seen = await response.json()
        assert seen["start"] == f"POST /body/{number} HTTP/1.1"
        assert (seen["size"], seen["sha256"]) == (size, hashlib.sha256(body).hexdigest())

    async def stream(body: bytes) -> AsyncIterator[bytes]:
        for at in range(0, len(body), 1000):
            yield body[at : at + 1000]

    async def main(url: str) -> None:
        numbers = iter(range(10_000))

        async def worker(session: aiohttp.ClientSession) -> None:
            for number in numbers:
                await play(number, session, url)

        connector = aiohttp.TCPConnector(limit=200)
        timeout = aiohttp.ClientTimeout(60)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            await asyncio.gather(*(worker(session) for _ in range(200)))

    asyncio.run(main(f"http://{pair.address[0]}:{pair.address[1]}"))
