"""What is counted: loops of the compiled core, and whole requests through both nodes.

A part is a function that does its work so many times. Nothing in it may depend on time or
on where memory lies: the counts are compared with recorded ones.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import uvloop

from _fastpath.chunked import ChunkedReader
from _fastpath.http1 import HeadScanner
from _fastpath.loops import Loop
from _fastpath.route import RouteTable, Target
from broker.config import Config, load
from broker.node.node import Node

Work = Callable[[int], None]

HEAD = (
    b"GET /orders/17 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    b"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n"
)
CHUNKS = b"3e8\r\n%b\r\n2000\r\n%b\r\n0\r\n\r\n" % (b"x" * 0x3E8, b"x" * 0x2000)
ROUTES = 999
BATCH = 32
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Part:
    title: str
    count: int
    prepare: Callable[[], contextlib.AbstractContextManager[Work]]


@contextlib.contextmanager
def scan() -> Iterator[Work]:
    scanner = HeadScanner()
    yield lambda count: _exactly(scanner.bench(HEAD, count), len(HEAD))


@contextlib.contextmanager
def chunked() -> Iterator[Work]:
    reader = ChunkedReader()
    yield lambda count: _exactly(reader.bench(CHUNKS, count), 0x3E8 + 0x2000)


@contextlib.contextmanager
def route() -> Iterator[Work]:
    entries = [("", "/", Target("rest"))]
    for number in range(ROUTES):
        host = (f"shop{number}.example.com", f"*.team{number}.example.com", "api.example.com")[number % 3]
        entries.append((host, f"/v{number}" if number % 3 == 2 else "/", Target(str(number))))
    table = RouteTable(entries)

    def work(count: int) -> None:
        # The table's hash is keyed at random: many hosts, so that no one's place decides.
        for number in range(1, ROUTES, 3):
            table.repeat(b"a.b.team%d.example.com:8443" % number, b"/cart/items", count // (ROUTES // 3))

    yield work


@contextlib.contextmanager
def multiplexer() -> Iterator[Work]:
    loop = Loop()
    try:
        yield lambda count: _exactly(loop.requests(count, BATCH), count)
    finally:
        loop.close()


def _exactly(got: int, wanted: int) -> None:
    if got != wanted:
        raise RuntimeError(f"{got} in place of {wanted}: the part does not do its work")


# --- whole requests ---------------------------------------------------------------------------------


@contextlib.contextmanager
def nodes(at_once: int) -> Iterator[Work]:
    """A DMZ node and an agent in this process, with access logs; clients and service are others."""
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(TemporaryDirectory()))
        runner = stack.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        service = stack.enter_context(_other("broker.bench.service"))
        dmz, agent = runner.run(_start(home, f"http://127.0.0.1:{int(_line(service))}"))
        stack.callback(lambda: runner.run(_close(agent, dmz)))
        [external] = dmz.parts.external.values()
        clients = stack.enter_context(_other("bench.instructions.clients", external.url, str(at_once)))
        runner.run(_ask(clients, at_once))  # all connections are there, and warm
        yield lambda count: runner.run(_ask(clients, count))


async def _start(home: Path, service: str) -> tuple[Node, Node]:
    ports = [f"{kind}: [{{listen: 'http://127.0.0.1:0'}}]" for kind in ("external", "registration")]
    dmz = Node(_config(home, "dmz", *ports))
    await dmz.start()
    [registration] = dmz.parts.registration.values()
    ways = [f"connect: [{{url: '{registration.url}'}}]", f"services: [{{upstream: '{service}'}}]"]
    agent = Node(_config(home, "agent", *ways))
    await agent.start()
    async with asyncio.timeout(PATIENCE_S):
        while agent.not_ready():
            await asyncio.sleep(0.01)
    return dmz, agent


def _config(home: Path, name: str, *lines: str) -> Config:
    path = home / f"{name}.yaml"
    path.write_text("\n".join([*lines, f"access_log: {{path: {home / name}.log}}", ""]))
    return load(path)


async def _close(*nodes: Node) -> None:
    for node in nodes:
        await node.close()


@contextlib.contextmanager
def _other(module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout is not None
    return process.stdout.readline()


async def _ask(clients: subprocess.Popen[bytes], count: int) -> None:
    """Let the clients send so many requests, and the nodes work until all are answered."""
    assert clients.stdin is not None and clients.stdout is not None
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(clients.stdout, answered.set)
    clients.stdin.write(b"%d\n" % count)
    clients.stdin.flush()
    async with asyncio.timeout(PATIENCE_S):
        await answered.wait()
    loop.remove_reader(clients.stdout)
    _exactly(int(_line(clients) or -1), count)


PARTS = {
    "scan": Part("a request's head of 146 bytes, scanned", 2000, scan),
    "chunked": Part("a body of 9 KiB in two chunks, read", 2000, chunked),
    "route": Part("a route found among 1,000, by wildcard", 20 * ROUTES // 3, route),
    "multiplexer": Part("a request through two sessions and back, 32 at once", 3200, multiplexer),
    "one": Part("a request through both nodes, logged, one after another", 1000, lambda: nodes(1)),
    "many": Part("the same, 32 at once", 3200, lambda: nodes(32)),
}
