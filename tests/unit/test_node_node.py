"""Whole nodes in one loop: start, serve, reload, drain, and the admin port."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from broker import config as configuration
from broker.config.model import Config, Flags, Match, Rights, Secret, User
from broker.errors import ConfigError, ConfigProblem, ListenError
from broker.node import Node
from broker.node import node as node_module
from broker.node.process import run_node
from tests.unit.node_support import LOOPS, digest, run, until

ANY = "http://127.0.0.1:0"


class Rig:
    """Nodes, a client, and an upstream that answers with its name."""

    def __init__(self, client: aiohttp.ClientSession) -> None:
        self.client = client
        self.nodes: list[Node] = []
        self.runners: list[web.AppRunner] = []
        self.hold = asyncio.Event()
        self.held = 0

    async def runner(self, name: str) -> web.AppRunner:
        async def answer(request: web.Request) -> web.Response:
            if request.path.endswith("/slow"):
                self.held += 1
                await self.hold.wait()
            return web.Response(text=f"{name} {request.path_qs}")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        self.runners.append(runner)
        return runner

    async def upstream(self, name: str = "up") -> str:
        runner = await self.runner(name)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def start(self, config: Config, reread: Callable[[Config], Config] | None = None) -> Node:
        node = Node(config, reread or configuration.reload)
        self.nodes.append(node)
        await node.start()
        return node

    async def dmz(self, **flags: Any) -> Node:
        values: dict[str, Any] = {"external": (ANY,), "registration": (ANY,), "admin": ANY} | flags
        return await self.start(configuration.load(None, Flags(**values)))

    async def agent(self, dmz: Node, *services: str, **flags: Any) -> Node:
        url = registration_url(dmz)
        node = await self.start(
            configuration.load(None, Flags(connect=(url,), services=services, admin=ANY, **flags))
        )
        await until(lambda: not node.not_ready())
        return node

    async def get(self, url: str, path: str = "/", **headers: str) -> tuple[int, str]:
        async with self.client.get(url + path, headers=headers) as answer:
            return answer.status, await answer.text()

    async def end(self, node: Node) -> None:
        node.stop("the test is over")
        await node.shutdown()
        self.nodes.remove(node)


@contextlib.asynccontextmanager
async def rigged() -> AsyncIterator[Rig]:
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector) as client:
        rig = Rig(client)
        try:
            yield rig
        finally:
            for node in list(rig.nodes):
                await node.close()
            for runner in rig.runners:
                await runner.cleanup()


def with_rig(test: Callable[[Rig], Awaitable[None]], loop: str = "uvloop") -> None:
    async def main() -> None:
        async with rigged() as rig:
            await test(rig)

    run(main(), loop)


def external_url(node: Node, index: int = 0) -> str:
    return str(node.status()["external"][index]["url"])


def registration_url(node: Node) -> str:
    return str(node.status()["registration"][0]["url"])


def admin_url(node: Node) -> str:
    return str(node.status()["admin"]["url"])


# --- serving ------------------------------------------------------------------------------------


@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_passes_both_nodes(loop):
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        agent = await rig.agent(dmz, await rig.upstream(), tunnels=2)
        await until(lambda: dmz.parts.registered == 2)
        assert await rig.get(external_url(dmz), "/a?b") == (200, "up /a?b")
        status = dmz.status()
        assert status["ready"] is True
        assert status["external"][0]["exchanges"] == 1
        assert len(status["tunnels"]) == status["registration"][0]["tunnels"] == 2
        assert len(agent.status()["tunnels"]) == 2
        (service,) = agent.status()["services"]
        assert (service["exchanges"], service["active"]) == (1, 0)
        assert agent.status()["connect"][0]["tunnels"][0]["state"] == "up"

    with_rig(test, loop)


def test_one_node_can_be_both():
    """A DMZ node with a local service beside the delegated ones, by host."""

    async def test(rig: Rig) -> None:
        local, delegated = await rig.upstream("local"), await rig.upstream("delegated")
        dmz = await rig.dmz(services=(f"local.example={local}",))
        await rig.agent(dmz, f"green.example={delegated}")
        url = external_url(dmz)
        assert await rig.get(url, Host="local.example") == (200, "local /")
        assert await rig.get(url, Host="green.example") == (200, "delegated /")
        status, _ = await rig.get(url, Host="nobody.example")
        assert status == 404

    with_rig(test)


def test_a_tcp_service():
    async def test(rig: Rig) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1000):
                writer.write(data)
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        dmz = await rig.dmz(external=(ANY, "tcp://127.0.0.1:0/echo"))
        await rig.agent(dmz, f"echo=tcp://127.0.0.1:{port}")
        host, _, number = external_url(dmz, 1).removeprefix("tcp://").rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(number))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        writer.write_eof()
        assert await reader.read(-1) == b""
        writer.close()
        server.close()

    with_rig(test)


def test_a_service_whose_agent_is_away_is_known():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        dmz.config = replace(dmz.config, timeouts=replace(dmz.config.timeouts, agent_wait=20))
        agent = await rig.agent(dmz, f"x.example={await rig.upstream()}")
        await rig.end(agent)
        await until(lambda: dmz.parts.registered == 0)
        waiting = asyncio.create_task(rig.get(external_url(dmz), Host="x.example"))
        await until(lambda: dmz.status()["services"][0]["waiting"] == 1)
        await rig.agent(dmz, f"x.example={await rig.upstream('second')}")
        assert await waiting == (200, "second /")

    with_rig(test)


def test_users_and_their_rights():
    async def test(rig: Rig) -> None:
        config = configuration.load(None, Flags(external=(ANY,), registration=(ANY,), admin=ANY))
        orders = User(
            name="orders", tokens=(digest("t" * 16),), rights=Rights(services=(Match(host="o.example"),))
        )
        dmz = await rig.start(replace(config, users=(orders,)))
        url = registration_url(dmz)
        upstream = await rig.upstream()
        flags = Flags(connect=(url,), services=(f"o.example={upstream}", f"x.example={upstream}"), admin=ANY)
        config = configuration.load(None, flags)
        token = Secret("t" * 16)
        agent = await rig.start(replace(config, connect=(replace(config.connect[0], token=token),)))
        await until(lambda: not agent.not_ready())
        await until(lambda: agent.status()["connect"][0]["refused"])
        assert agent.status()["connect"][0]["refused"][0]["service"] == "x.example/"
        assert await rig.get(external_url(dmz), Host="o.example") == (200, "up /")
        assert (await rig.get(external_url(dmz), Host="x.example"))[0] == 404
        assert "t" * 16 not in str(dmz.status()) + str(agent.status())
        stranger = await rig.start(config)
        await until(lambda: stranger.status()["connect"][0]["tunnels"][0]["reason"])
        assert "401 unauthenticated" in stranger.status()["connect"][0]["tunnels"][0]["reason"]
        assert stranger.not_ready() == ["no tunnel is up"]

    with_rig(test)


# --- ports --------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_said_clearly():
    async def test(rig: Rig) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            config = configuration.load(None, Flags(external=(ANY, url), registration=(ANY,), admin=ANY))
            with pytest.raises(ListenError, match="another process listens there") as caught:
                await rig.start(config)
            assert "external-2" in str(caught.value)

    with_rig(test)


def test_a_unix_socket_as_upstream(tmp_path):
    async def test(rig: Rig) -> None:
        path = tmp_path / "up.sock"
        site = web.UnixSite(await rig.runner("unix"), path)
        await site.start()
        dmz = await rig.dmz(services=(f"unix:{path}",))
        assert await rig.get(external_url(dmz)) == (200, "unix /")

    with_rig(test)


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6")
def test_ipv6_and_names():
    async def test(rig: Rig) -> None:
        upstream = await rig.upstream()
        dmz = await rig.dmz(external=("http://[::1]:0", "http://localhost:0"), services=(upstream,))
        assert await rig.get(external_url(dmz, 0)) == (200, "up /")
        port = external_url(dmz, 1).rpartition(":")[2]
        assert await rig.get(f"http://127.0.0.1:{port}") == (200, "up /")

    with_rig(test)


# --- reload -------------------------------------------------------------------------------------


class Changing:
    """What `reload` reads: the configuration as the test wants it now."""

    def __init__(self) -> None:
        self.config: Config | None = None
        self.error: Exception | None = None

    def __call__(self, _: Config) -> Config:
        if self.error is not None:
            raise self.error
        assert self.config is not None
        return self.config


def test_a_reload_adds_and_removes_ports_and_keeps_the_rest():
    async def test(rig: Rig) -> None:
        first, second = await rig.upstream("first"), await rig.upstream("second")
        reread = Changing()
        flags = Flags(external=(ANY,), registration=(ANY,), admin=ANY, services=(f"/x={first}",))
        dmz = await rig.start(configuration.load(None, flags), reread)
        agent = await rig.agent(dmz, f"/d={first}")
        url, registration = external_url(dmz), registration_url(dmz)
        assert await rig.get(url, "/x") == (200, "first /x")

        more = replace(flags, external=(ANY, ANY), services=(f"/x={second}", f"/y={first}"))
        reread.config = configuration.load(None, more)
        await dmz.reload()
        assert external_url(dmz) == url
        assert registration_url(dmz) == registration
        for each in (url, external_url(dmz, 1)):
            assert await rig.get(each, "/x") == (200, "second /x")
            assert await rig.get(each, "/y") == (200, "first /y")
            assert await rig.get(each, "/d") == (200, "first /d")
        gone = external_url(dmz, 1)

        reread.config = configuration.load(None, flags)
        await dmz.reload()
        assert await rig.get(url, "/x") == (200, "first /x")
        with pytest.raises(aiohttp.ClientConnectionError):
            await rig.get(gone, "/x")
        assert agent.status()["connect"][0]["lost"] == 0
        assert dmz.reloads == {"ok": 2, "failed": 0}

    with_rig(test)


def test_a_renamed_port_keeps_its_socket():
    async def test(rig: Rig) -> None:
        reread = Changing()
        upstream = await rig.upstream()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            url = f"http://127.0.0.1:{free.getsockname()[1]}"
        flags = Flags(external=(url,), registration=(ANY,), admin=ANY, services=(upstream,))
        dmz = await rig.start(configuration.load(None, flags), reread)
        renamed = replace(dmz.config.external[0], name="other")
        reread.config = replace(dmz.config, external=(renamed,))
        stop = asyncio.Event()
        answers: list[tuple[int, str]] = []

        async def load() -> None:
            while not stop.is_set():
                answers.append(await rig.get(url))

        clients = [asyncio.create_task(load()) for _ in range(4)]
        await until(lambda: len(answers) > 20)
        await dmz.reload()
        seen = len(answers)
        await until(lambda: len(answers) > seen + 20)
        stop.set()
        await asyncio.gather(*clients)
        assert set(answers) == {(200, "up /")}
        assert dmz.status()["external"][0]["name"] == "other"

    with_rig(test)


def test_a_reload_with_an_error_changes_nothing():
    async def test(rig: Rig) -> None:
        reread = Changing()
        upstream = await rig.upstream()
        flags = Flags(external=(ANY,), registration=(ANY,), admin=ANY, services=(upstream,))
        dmz = await rig.start(configuration.load(None, flags), reread)
        before = [external_url(dmz), registration_url(dmz), admin_url(dmz)]
        reread.error = ConfigError([ConfigProblem("is wrong", key="services[0]")])
        async with rig.client.post(admin_url(dmz) + "/reload") as answer:
            assert answer.status == 422
            assert (await answer.json(content_type=None))["problems"] == [
                "command line: services[0]: is wrong"
            ]
        reread.error = None
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            url = f"http://127.0.0.1:{taken.getsockname()[1]}"
            reread.config = configuration.load(None, replace(flags, external=(ANY, ANY, url), services=()))
            with pytest.raises(ListenError):
                await dmz.reload()
        assert [external_url(dmz), registration_url(dmz), admin_url(dmz)] == before
        assert len(dmz.status()["external"]) == 1
        assert await rig.get(before[0]) == (200, "up /")
        assert dmz.reloads == {"ok": 0, "failed": 2}

    with_rig(test)


def test_an_agents_reload_changes_what_it_announces():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        upstream = await rig.upstream()
        reread = Changing()
        url = registration_url(dmz)
        flags = Flags(connect=(url,), services=(f"/a={upstream}",), admin=ANY)
        agent = await rig.start(configuration.load(None, flags), reread)
        await until(lambda: not agent.not_ready())
        assert (await rig.get(external_url(dmz), "/a"))[0] == 200
        reread.config = configuration.load(None, replace(flags, services=(f"/b={upstream}",)))
        await agent.reload()
        await until(lambda: [each["service"] for each in dmz.status()["services"]] == ["/b"])
        assert (await rig.get(external_url(dmz), "/b"))[0] == 200
        assert (await rig.get(external_url(dmz), "/a"))[0] == 404
        other = await rig.dmz()
        reread.config = configuration.load(None, replace(flags, connect=(registration_url(other),)))
        await agent.reload()
        await until(lambda: other.parts.registered == 2 and dmz.parts.registered == 0)

    with_rig(test)


# --- the end ------------------------------------------------------------------------------------


def test_a_drain_lets_what_runs_finish_on_both_sides():
    async def test(rig: Rig) -> None:
        for ending in ("agent", "dmz"):
            rig.hold.clear()
            rig.held = 0
            dmz = await rig.dmz()
            agent = await rig.agent(dmz, await rig.upstream())
            running = [asyncio.create_task(rig.get(external_url(dmz), "/slow")) for _ in range(3)]
            await until(lambda: rig.held == 3)
            node = agent if ending == "agent" else dmz
            node.drain("the test says so")
            await asyncio.wait_for(node.serve(), 1)
            shutdown = asyncio.create_task(node.shutdown())
            await until(lambda node=node: node.state == "draining")
            assert not shutdown.done()
            rig.hold.set()
            assert [await task for task in running] == [(200, "up /slow")] * 3
            await shutdown
            rig.nodes.remove(node)
            await rig.end(dmz if ending == "agent" else agent)

    with_rig(test)


def test_an_error_nobody_thought_of_ends_the_process(monkeypatch, caplog):
    """The loop closes, whatever the node was doing: a hanging process would be worse than a dead one."""

    async def serve(node: Node) -> None:
        await until(lambda: node.parts.registration)
        raise RuntimeError("nobody thought of this")

    monkeypatch.setattr(Node, "serve", serve)
    flags = Flags(
        external=(ANY,),
        registration=(ANY,),
        admin=ANY,
        connect=("http://127.0.0.1:9",),
        services=(ANY[:-1] + "9",),
    )
    config = configuration.load(None, flags)
    for loop in LOOPS:
        assert run(run_node(config), loop) == 1
    assert "nobody thought of this" in caplog.text


def test_the_deadline_ends_a_drain():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        await rig.agent(dmz, await rig.upstream())
        dmz.config = replace(dmz.config, timeouts=replace(dmz.config.timeouts, drain=50))
        running = asyncio.create_task(rig.get(external_url(dmz), "/slow"))
        await until(lambda: rig.held == 1)
        dmz.drain("the test says so")
        await dmz.shutdown()
        rig.nodes.remove(dmz)
        with pytest.raises(aiohttp.ClientError):
            await running
        rig.hold.set()

    with_rig(test)


def test_stop_waits_for_nothing():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        await rig.agent(dmz, await rig.upstream())
        running = asyncio.create_task(rig.get(external_url(dmz), "/slow"))
        await until(lambda: rig.held == 1)
        dmz.drain("first")
        shutdown = asyncio.create_task(dmz.shutdown())
        await until(lambda: dmz.state == "draining")
        dmz.stop("second")
        await shutdown
        rig.nodes.remove(dmz)
        with pytest.raises(aiohttp.ClientError):
            await running
        rig.hold.set()

    with_rig(test)


# --- the admin port -----------------------------------------------------------------------------


def test_health_readiness_status_and_metrics():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        url = admin_url(dmz)
        assert await rig.get(url, "/healthz") == (200, '{"alive": true}')
        assert (await rig.get(url, "/readyz"))[0] == 200
        await rig.agent(dmz, f"x.example={await rig.upstream()}", "db=tcp://127.0.0.1:9", tunnels=1)
        await rig.get(external_url(dmz), Host="x.example")
        async with rig.client.get(url + "/status") as answer:
            status = await answer.json()
        assert {each["service"] for each in status["services"]} == {"x.example/", "db"}
        code, text = await rig.get(url, "/metrics")
        assert code == 200
        served = 'port="external-1",service="x.example/"'
        assert f'broker_requests_total{{{served},status="200"}} 1.0' in text
        assert f'broker_request_duration_seconds_bucket{{le="+Inf",{served}}} 1.0' in text
        assert f'broker_hop_duration_seconds_count{{hop="upstream",{served}}} 1.0' in text
        assert 'broker_registration_tunnels{port="registration-1"} 1.0' in text
        assert 'broker_service_tunnels{registration="registration-1",service="x.example/"} 1.0' in text
        assert "process_resident_memory_bytes" in text
        assert (await rig.get(url, "/readyz", Host="probe.example"))[0] == 200
        assert (await rig.get(url, "/status", Host="rebound.example"))[0] == 403
        async with rig.client.get(url + "/nothing") as answer:
            assert (answer.status, answer.headers["Broker-Error"]) == (404, "no-service")
        async with rig.client.get(url + "/drain") as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")

    with_rig(test)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Content-Type": "application/json"}, True),
        ({"Host": "localhost:7001"}, True),
        ({"Host": "[::1]:7001"}, True),
        ({"Host": "evil.example"}, False),
        ({"Host": "evil.example:7001"}, False),
        ({"Host": "127.0.0.1.evil.example"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null", "Broker-Admin": "1"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Broker-Admin": "1"}, True),
        ({"Referer": "http://evil.example/"}, False),
    ],
)
def test_posts_of_other_sites_pages_are_refused(headers, allowed):
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        async with rig.client.post(admin_url(dmz) + "/drain", headers=headers) as answer:
            assert answer.status == (202 if allowed else 403)
        assert dmz.leaving is allowed

    with_rig(test)


def test_a_node_that_leaves_is_not_ready():
    async def test(rig: Rig) -> None:
        dmz = await rig.dmz()
        async with rig.client.post(admin_url(dmz) + "/drain") as answer:
            assert answer.status == 202
        code, text = await rig.get(admin_url(dmz), "/readyz")
        assert code == 503
        assert "draining" in text
        await asyncio.wait_for(dmz.serve(), 1)

    with_rig(test)


def test_the_service_manager_is_told(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        path = tmp_path / "notify"
        manager.bind(str(path))
        manager.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))

        async def test(rig: Rig) -> None:
            dmz = await rig.dmz()
            assert manager.recv(1000) == b"READY=1"
            await rig.end(dmz)
            assert manager.recv(1000) == b"STOPPING=1"

        with_rig(test)


def test_nothing_is_collected_per_request():
    assert node_module.GC_THRESHOLDS[0] > 10_000
