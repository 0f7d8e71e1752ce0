"""Heads and chunked bodies: this scanner beside httptools and h11. Divide by LOOPS."""

from collections.abc import Callable

import h11
import httptools
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _fastpath.chunked import ChunkedReader
from _fastpath.forward import rewrite_request
from _fastpath.http1 import HeadScanner

LOOPS = 10_000
FEW = 200  # for what is called from Python

SMALL = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n"
CURL = (
    b"GET /orders/17 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    b"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n"
)
BROWSER = (
    b"GET /static/app.js?v=20260101 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n"
    b'sec-ch-ua: "Chromium";v="130", "Not?A_Brand";v="99"\r\nsec-ch-ua-mobile: ?0\r\n'
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/130.0.0.0 Safari/537.36\r\n"
    b'sec-ch-ua-platform: "Linux"\r\nAccept: */*\r\nSec-Fetch-Site: same-origin\r\n'
    b"Sec-Fetch-Mode: no-cors\r\n"
    b"Sec-Fetch-Dest: script\r\nReferer: https://www.example.com/\r\n"
    b"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n"
    b"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"
)
HEADS = {"small": SMALL, "curl": CURL, "browser": BROWSER}
CHUNKS = b"".join(b"%x\r\n%b\r\n" % (size, b"x" * size) for size in (16, 1000, 8192, 30_000)) + b"0\r\n\r\n"


@pytest.mark.parametrize("name", HEADS)
def test_scan(benchmark: BenchmarkFixture, name: str) -> None:
    scanner = HeadScanner()
    benchmark.extra_info["loops"] = LOOPS
    assert benchmark(scanner.bench, HEADS[name], LOOPS) == len(HEADS[name])


class Fields:
    """What a program does at least with what httptools calls back."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))


def with_httptools(head: bytes) -> None:
    httptools.HttpRequestParser(Fields()).feed_data(head)


def with_h11(head: bytes) -> None:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    connection.next_event()


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize("parse", [with_httptools, with_h11])
def test_others(benchmark: BenchmarkFixture, parse: Callable[[bytes], None], name: str) -> None:
    def run() -> None:
        for _ in range(FEW):
            parse(HEADS[name])

    benchmark.extra_info["loops"] = FEW
    benchmark(run)


@pytest.mark.parametrize("name", HEADS)
def test_rewrite(benchmark: BenchmarkFixture, name: str) -> None:
    """The canonical head; one Python call and one scan each are included."""

    def run() -> bytes | None:
        for _ in range(FEW):
            out = rewrite_request(HEADS[name], address=b"192.0.2.1", scheme=b"http", via=b"broker")
        return out

    benchmark.extra_info["loops"] = FEW
    assert benchmark(run)


def test_chunked(benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["loops"] = LOOPS // 10
    assert benchmark(ChunkedReader().bench, CHUNKS, LOOPS // 10) == 16 + 1000 + 8192 + 30_000
