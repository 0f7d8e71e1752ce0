"""The load benchmark: the end of responses, the generator, the accounting, the figures."""

import asyncio
import json
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvloop
from click.testing import CliRunner

from broker.bench import accounting, load, service
from broker.bench.report import Report
from broker.bench.response import BadResponse, ChunkReader, ResponseReader
from broker.bench.run import read_url
from broker.cli.bench import bench
from broker.errors import UsageError

RESPONSES = {
    "length": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    "empty": b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n",
    "none": b"HTTP/1.1 204 No Content\r\n\r\n",
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n10;x=y\r\n"
    + b"0123456789abcdef\r\n0\r\nA: b\r\n\r\n",
    "interim": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!",
}


@pytest.mark.parametrize("name", RESPONSES)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_the_end_of_a_response_is_found_in_pieces_of_any_size(name: str, size: int) -> None:
    reader = ResponseReader()
    data = RESPONSES[name]
    for _ in range(2):  # the reader is ready for the next one
        statuses = [reader.feed(data[at : at + size]) for at in range(0, len(data), size)]
        assert statuses[-1] in (200, 204, 503)
        assert not any(statuses[:-1])


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_what_is_no_response_is_refused(data: bytes) -> None:
    with pytest.raises(BadResponse):
        ResponseReader().feed(data)


def test_a_response_may_end_the_connection() -> None:
    reader = ResponseReader()
    assert reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n") == 200
    assert not reader.keep_alive


def test_chunks_end_with_the_trailer() -> None:
    reader = ChunkReader()
    assert not reader.feed(b"0\r\nTrailer: 1\r\n")
    assert reader.feed(b"\r\n")


@asynccontextmanager
async def running_service() -> AsyncIterator[int]:
    listening = socket.create_server(("127.0.0.1", 0))
    server = await asyncio.get_running_loop().create_server(service.Client, sock=listening)
    async with server:
        yield listening.getsockname()[1]


def run_plan(**plan: object) -> load.Outcome:
    async def run() -> load.Outcome:
        async with running_service() as port:
            return await load.run(load.Plan("127.0.0.1", port, **plan))  # type: ignore[arg-type]

    return uvloop.run(run())


def test_every_request_of_a_batch_is_answered() -> None:
    outcome = run_plan(connections=5, requests=23, seconds=10)
    assert (outcome.requests, outcome.completed, outcome.errors) == (23, 23, {})
    assert outcome.seconds < 10


def test_a_fixed_rate_sends_what_is_due() -> None:
    outcome = run_plan(connections=4, rate=200, seconds=0.5)
    assert (outcome.requests, outcome.errors) == (100, {})


def test_latency_counts_from_the_intended_start() -> None:
    # One connection carries a request every 50 ms; the second of two that are due at once waits for it.
    outcome = run_plan(target="/delay/50", connections=1, rate=1000, requests=4, seconds=1)
    first, *_, last = outcome.percentiles(0, 50, 100)
    assert first >= 45
    assert last >= 4 * 50 - 20


def test_errors_are_counted_by_what_they_are() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 503 Away\r\nContent-Length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def run() -> load.Outcome:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            return await load.run(load.Plan("127.0.0.1", port, connections=1, requests=1, seconds=5))

    outcome = uvloop.run(run())
    assert (outcome.requests, outcome.errors) == (0, {"status 503": 1})


def test_what_is_not_answered_in_time_is_an_error() -> None:
    outcome = run_plan(target="/delay/60000", connections=2, requests=2, seconds=0.1, grace=0.1)
    assert outcome.errors == {"no answer in time": 2}


def test_only_what_comes_after_the_warm_up_counts() -> None:
    readings = iter([1.0, 2.0, 5.0])

    async def run() -> load.Outcome:
        async with running_service() as port:
            plan = load.Plan("127.0.0.1", port, rate=100, warmup=0.2, seconds=0.3)
            return await load.run(plan, meter=lambda: next(readings))

    outcome = uvloop.run(run())
    assert outcome.metered == 3.0
    assert 20 <= outcome.requests <= 32


def test_the_service_reads_bodies_and_answers_pipelined_requests_in_turn() -> None:
    async def run() -> bytes:
        async with running_service() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
            writer.write(b"GET /delay/10 HTTP/1.1\r\n\r\nGET /bytes/3 HTTP/1.1\r\n\r\n")
            answer = await reader.readuntil(bytes(3))
            writer.close()
            await writer.wait_closed()
            return answer

    answer = uvloop.run(run())
    marks = (b"\r\n\r\n300000\n", b"Content-Length: 1024", b"Content-Length: 3\r")
    places = [answer.index(mark) for mark in marks]
    assert places == sorted(places)


def test_a_process_is_accounted_for() -> None:
    assert os.getpid() in accounting.tree([os.getppid()])
    assert accounting.tree([2**22 - 1]) == []
    before = accounting.cpu_seconds([os.getpid()])
    sum(range(200_000))
    assert accounting.cpu_seconds([os.getpid()]) > before
    memory = accounting.memory([os.getpid()])
    assert memory.rss >= memory.pss > 1000


def test_percentiles() -> None:
    outcome = load.Outcome()
    assert outcome.percentiles(50) == [0.0]
    outcome.latencies.extend(number / 1000 for number in range(100))
    assert outcome.percentiles(0, 50, 99, 100) == [0, 50, 99, 99]


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "http://127.0.0.1:http", "http://"])
def test_a_url_that_cannot_be_loaded_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        read_url(url)


def test_a_url_may_have_a_path_and_no_scheme() -> None:
    loaded = read_url("localhost:8080/a?b=c")
    assert (loaded.host, loaded.port, loaded.target, loaded.authority) == (
        "localhost",
        8080,
        "/a?b=c",
        "localhost:8080",
    )


def test_the_report_is_json_or_lines(capsys: pytest.CaptureFixture[str]) -> None:
    plan, outcome = load.Plan("h", 1), load.Outcome(seconds=2.0, completed=100, metered=0.001)
    outcome.latencies.extend([0.001] * 100)
    report = Report.of(plan, outcome, memory=2048)
    assert report.good
    report.print(as_json=True)
    figures = json.loads(capsys.readouterr().out)
    assert (figures["requests_per_second"], figures["cpu_us_per_request"], figures["p99"]) == (50, 10, 1)
    report.print(as_json=False)
    assert "memory of both nodes: 2.0 MiB" in capsys.readouterr().out


@pytest.mark.e2e
def test_the_command_starts_a_pair_and_loads_it() -> None:
    answer = CliRunner().invoke(bench, ["--seconds", "0.3", "--connections", "4", "--json"])
    assert answer.exit_code == 0, answer.output
    figures = json.loads(answer.stdout)
    assert figures["requests"] > 0
    assert figures["errors"] == {}
    assert figures["cpu_us_per_request"] > 0
