"""A soak: mixed load while agents are killed, frozen and replaced, links break, and nodes reload, at random.

    scripts/soak [MINUTES] [--seed N]

Counted, and zero unless something is wrong:

    failed      an idempotent request without a right answer: an error, no answer, a wrong body
    shortened   an answer that looked whole and was not
    duplicated  a POST that the service saw more than once

Told, but no failures, since nobody can do better: a download that was visibly cut in its middle
(`cut`: its head had been passed on), a POST that may have been delivered when its tunnel was lost (`unsure`),
and TCP and WebSocket connections that ended with their tunnel (`ended`).
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import logging
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from aiohttp import web
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect as dial

from tests.faults.proxy import FaultProxy
from tests.harness.client import RawClient, connect
from tests.harness.message import Closed
from tests.harness.nodes import Agent, DmzNode, World, loopback
from tests.harness.origin import pattern
from tests.harness.waiting import wait_until

AGENTS = 3
PATIENCE_S = 90.0
BODY = pattern(3000, seed=1)
BODY_HASH = hashlib.sha256(BODY).hexdigest()
BULK = pattern(4 << 20, seed=2)


class Service:
    """What the agents offer, in a thread of its own: HTTP, WebSocket and a TCP echo."""

    def __init__(self) -> None:
        self.posts: Counter[str] = Counter()
        self.http = self.tcp = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("GET", "/ws", self._websocket)
        app.router.add_route("GET", "/bulk", self._bulk)
        app.router.add_route("GET", "/slow", self._slow)
        app.router.add_route("*", "/n/{number}", self._small)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=600)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self.http = runner.addresses[0][1]
        echo = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.tcp = echo.sockets[0].getsockname()[1]
        self._ready.set()
        await asyncio.Event().wait()

    async def _small(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.posts[request.match_info["number"]] += 1
        body = await request.read()
        return web.Response(text=f"{request.path} {hashlib.sha256(body).hexdigest()}")

    async def _bulk(self, _request: web.Request) -> web.Response:
        return web.Response(body=BULK)

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(random.uniform(0.2, 3))
        return web.Response(text=request.path)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(str(message.data))
        return answer

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()


class Clients:
    """Threads that ask until they are told to end."""

    def __init__(self, dmz: DmzNode) -> None:
        self.dmz = dmz
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self.stop = threading.Event()
        self._numbers = itertools.count()
        kinds: list[Callable[[], None]] = [self._small] * 4 + [self._posts] * 2
        kinds += [self._bulk, self._upload, self._slow, self._slow, self._tcp, self._websocket]
        self._threads = [threading.Thread(target=self._repeat, args=(kind,), daemon=True) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 10)
            assert not thread.is_alive(), "a client hangs"

    def _repeat(self, kind: Callable[[], None]) -> None:
        while not self.stop.is_set():
            kind()

    def bad(self, what: str, text: str) -> None:
        self.counts[what] += 1
        self.problems.append(f"{time.strftime('%H:%M:%S')} {what}: {text}")

    def _client(self) -> RawClient:
        return RawClient(self.dmz.external, timeout=PATIENCE_S)

    def _small(self) -> None:
        """A few GETs and PUTs on one connection."""
        with self._client() as client:
            for _ in range(20):
                number = next(self._numbers)
                body = BODY if number % 2 else None
                expected = BODY_HASH if body else hashlib.sha256(b"").hexdigest()
                try:
                    answer = client.request("PUT" if body else "GET", f"/n/{number}", body=body)
                except (OSError, Closed) as error:
                    self.bad("failed", f"/n/{number}: {error!r}")
                    return
                if answer.status != 200:
                    self.bad("failed", f"/n/{number}: {answer.status} {answer.body[:150]!r}")
                elif answer.body != f"/n/{number} {expected}".encode():
                    self.bad("shortened", f"/n/{number}: {answer.body!r}")
                else:
                    self.counts["small"] += 1
                if not answer.keeps_open:
                    return

    def _posts(self) -> None:
        number = next(self._numbers)
        with self._client() as client:
            try:
                answer = client.request("POST", f"/n/{number}", body=BODY)
            except (OSError, Closed) as error:
                self.bad("failed", f"POST /n/{number}: {error!r}")
                return
        if answer.status == 200:
            self.counts["posts"] += 1
        elif answer.headers.get("Broker-Delivery") == "maybe-sent":
            self.counts["unsure"] += 1
        else:
            self.bad("failed", f"POST /n/{number}: {answer.status} {answer.body[:150]!r}")

    def _bulk(self) -> None:
        with self._client() as client:
            client.send_request("GET", "/bulk")
            try:
                head = client.read_head()
                if head.status != 200:
                    self.bad("failed", f"/bulk: {head.status}")
                    return
                body = client.reader.exactly(len(BULK), "a bulk body")
            except (OSError, Closed):
                self.counts["cut"] += 1
                return
        if body != BULK:
            self.bad("shortened", "/bulk: other bytes")
        self.counts["bulk"] += 1

    def _upload(self) -> None:
        """A PUT that is too large to be sent again: it succeeds, or is told that it may have been sent."""
        with self._client() as client:
            number = next(self._numbers)
            try:
                answer = client.request("PUT", f"/n/{number}", body=BULK)
            except (OSError, Closed):
                self.counts["cut"] += 1  # answered while it was still sending
                return
        if answer.status == 200:
            self.counts["uploads"] += 1
        elif answer.headers.get("Broker-Error") == "tunnel-lost":
            self.counts["unsure"] += 1
        else:
            self.bad("failed", f"upload: {answer.status} {answer.body[:150]!r}")

    def _slow(self) -> None:
        with self._client() as client:
            try:
                answer = client.request("GET", "/slow")
            except (OSError, Closed) as error:
                self.bad("failed", f"/slow: {error!r}")
                return
        if answer.status != 200:
            self.bad("failed", f"/slow: {answer.status} {answer.body[:150]!r}")
        self.counts["slow"] += 1

    def _tcp(self) -> None:
        try:
            with connect(self.dmz.external_at(1), PATIENCE_S) as sock:
                for _ in range(50):
                    sock.sendall(BODY)
                    got = b""
                    while len(got) < len(BODY):
                        part = sock.recv(65536)
                        if not part:
                            self.counts["ended"] += 1
                            return
                        got += part
                    if got != BODY:
                        self.bad("shortened", "tcp: other bytes")
                    self.counts["tcp"] += 1
                    time.sleep(0.05)
        except OSError:
            self.counts["ended"] += 1

    def _websocket(self) -> None:
        host, port = self.dmz.external
        try:
            with dial(
                f"ws://{host}:{port}/ws", proxy=None, open_timeout=PATIENCE_S, ping_interval=None
            ) as ws:
                for number in range(50):
                    ws.send(str(number))
                    if ws.recv(timeout=PATIENCE_S) != str(number):
                        self.bad("shortened", "WebSocket: another message")
                    self.counts["websocket"] += 1
                    time.sleep(0.05)
        except (OSError, WebSocketException, TimeoutError, EOFError):
            self.counts["ended"] += 1
            time.sleep(0.2)


class Chaos:
    """One fault after the other; at least one agent is always left alone."""

    def __init__(
        self, world: World, dmz: DmzNode, agents: list[Agent], proxies: list[FaultProxy], seed: int
    ) -> None:
        self.world, self.dmz, self.agents, self.proxies = world, dmz, agents, proxies
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._faults = [
            *(self.kill, self.freeze, self.replace, self.cut, self.cut, self.hang),
            *(self.narrow, self.delay, self.half_close, self.reload_dmz, self.reload_agent),
        ]
        self._base = dmz.config

    def one(self) -> None:
        fault = self.random.choice(self._faults)
        index = self.random.randrange(AGENTS)
        fault(self.agents[index], self.proxies[index])
        self.done[fault.__name__] += 1

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.random.uniform(least, most))

    def kill(self, agent: Agent, _proxy: FaultProxy) -> None:
        agent.process.kill()
        self.pause(0, 3)
        agent.restart()

    def freeze(self, agent: Agent, _proxy: FaultProxy) -> None:
        agent.process.signal(signal.SIGSTOP)
        self.pause(0.5, 8)
        agent.process.signal(signal.SIGCONT)

    def replace(self, agent: Agent, _proxy: FaultProxy) -> None:
        agent.process.terminate()
        agent.process.expect_exit(0, deadline=60)
        agent.restart()

    def cut(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.cut(self.random.choice([1, None]))

    def hang(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.hang()
        self.pause(0.5, 8)
        proxy.heal()

    def narrow(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.throttle(self.random.choice([20_000, 200_000, 1_000_000]))
        self.pause(1, 6)
        proxy.heal()

    def delay(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.up.delay = proxy.down.delay = self.random.uniform(0.01, 0.3)
        self.pause(1, 5)
        proxy.heal()

    def half_close(self, _agent: Agent, proxy: FaultProxy) -> None:
        weather = self.random.choice([proxy.up, proxy.down])
        weather.half_close = True
        self.pause(0.1, 1)
        proxy.heal()

    def reload_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._reload(self.dmz, {**self._base, "limits": {"headers": self.random.randrange(50, 200)}})

    def reload_agent(self, agent: Agent, _proxy: FaultProxy) -> None:
        link = {**agent.config["connect"][0], "tunnels": self.random.randrange(1, 5)}
        self._reload(agent, {**agent.config, "connect": [link]})

    def _reload(self, node: DmzNode | Agent, config: dict[str, object]) -> None:
        before = node.status()["reloads"]["ok"]
        node.write(config)
        node.process.signal(signal.SIGHUP)
        wait_until(lambda: node.status()["reloads"]["ok"] > before, f"{node.name} has reloaded")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("minutes", nargs="?", type=float, default=10)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    print(f"{options.minutes:g} minutes, seed {options.seed}", flush=True)
    service = Service()
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        try:
            return soak(world, service, options.minutes * 60, options.seed)
        finally:
            world.discard()


def soak(world: World, service: Service, seconds: float, seed: int) -> int:
    ports = [{"name": "web", "listen": loopback()}, {"name": "echo", "listen": loopback("tcp", rest="/echo")}]
    dmz = world.dmz({"external": ports, "timeouts": {"agent_wait": "60s"}})
    proxies = [FaultProxy(dmz.registration_at()) for _ in range(AGENTS)]
    offered = [
        {"match": "/", "upstream": f"http://127.0.0.1:{service.http}"},
        {"name": "echo", "upstream": f"tcp://127.0.0.1:{service.tcp}"},
    ]
    agents = [world.agent(proxy.url, offered, 2) for proxy in proxies]
    dmz.wait_agents(2 * AGENTS)
    chaos = Chaos(world, dmz, agents, proxies, seed)
    clients = Clients(dmz)
    began = told = time.monotonic()
    rss = dmz.process.rss()
    while time.monotonic() - began < seconds and not clients.problems:
        chaos.one()
        chaos.pause(0.2, 2)
        if time.monotonic() - told > 30:
            told = time.monotonic()
            print(f"{told - began:5.0f} s  {dict(clients.counts)}", flush=True)
    clients.end()
    for proxy in proxies:
        proxy.heal()
    counts = clients.counts
    duplicated = [number for number, times in service.posts.items() if times > 1]
    print(f"faults: {dict(chaos.done)}")
    print(f"load: {dict(counts)}")
    print(f"memory of the DMZ node: {rss >> 20} MiB at the start, {dmz.process.rss() >> 20} MiB at the end")
    print(f"failed {counts['failed']}, shortened {counts['shortened']}, duplicated {len(duplicated)}")
    print("\n".join(clients.problems[:20]))
    world.close()
    for proxy in proxies:
        proxy.close()
    if clients.problems or duplicated:
        Path("build/soak.log").write_text(world.output)
        print("what the nodes said is in build/soak.log")
        return 1
    return 0


if __name__ == "__main__":
    socket.setdefaulttimeout(PATIENCE_S)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # its clients are agents that are killed
    sys.exit(main())
