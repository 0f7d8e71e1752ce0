"""Agents that are replaced, nodes that reload, descriptors that run out, while clients ask without pause."""

import resource
import signal
from typing import Any

import pytest

from tests.faults.load import Load
from tests.harness.client import RawClient, try_fetch
from tests.harness.nodes import Agent, DmzNode, World, everything, loopback
from tests.harness.waiting import wait_equal, wait_until


def agent_of(world: World, dmz: DmzNode, tunnels: int = 2) -> Agent:
    return world.agent(dmz.registration_url(), [everything(world.origins[0])], tunnels)


@pytest.mark.quick
def test_agents_are_replaced_one_by_one(world: World) -> None:
    dmz = world.dmz()
    world.origin()
    agents = [agent_of(world, dmz) for _ in range(2)]
    dmz.wait_agents(4)
    with Load(lambda: dmz.external) as load:
        for agent in agents:
            agent_of(world, dmz)
            dmz.wait_agents(6)
            load.more()
            agent.stop()
            dmz.wait_agents(4)
            load.more()
    load.assert_nothing_failed()
    load.assert_delivered_once(world.origins)


@pytest.mark.quick
@pytest.mark.parametrize("overlap", [True, False], ids=["new-first", "old-first"])
def test_the_only_agent_is_replaced(world: World, overlap: bool) -> None:
    """The new one comes before the old one goes, or after: then requests wait for it."""
    dmz = world.dmz({"timeouts": {"agent_wait": "30s"}})
    world.origin()
    old = agent_of(world, dmz)
    with Load(lambda: dmz.external) as load:
        for _ in range(2):
            if overlap:
                new = agent_of(world, dmz)
                dmz.wait_agents(4)
            old.stop()
            if not overlap:
                new = agent_of(world, dmz)
            dmz.wait_agents(2)
            load.more()
            old = new
    load.assert_nothing_failed()
    load.assert_delivered_once(world.origins)


def reload(node: Any, config: dict[str, Any], works: bool = True) -> None:
    node.write(config)
    before = node.status()["reloads"]
    node.process.signal(signal.SIGHUP)
    kind = "ok" if works else "failed"
    wait_until(lambda: node.status()["reloads"][kind] > before[kind], "the reload is done")


@pytest.mark.quick
def test_everything_is_reloaded_under_load(world: World) -> None:
    """Ports, services, users, limits, timeouts, in both nodes; files with errors in between."""
    token = world.directory / "token"
    token.write_text("the-token-of-the-agent\n")
    hashed = "sha256:" + __import__("hashlib").sha256(b"the-token-of-the-agent").hexdigest()
    other = "sha256:" + "0" * 64
    user = {"name": "team", "tokens": [hashed], "may": {"services": ["*"], "tcp": ["*"]}}
    dmz = world.dmz({"users": [user]})
    origin = world.origin()
    agent = world.agent(
        dmz.registration_url(),
        [everything(origin)],
        2,
        {"connect": [{"url": dmz.registration_url(), "tunnels": 2, "token_file": str(token)}]},
    )
    dmz.wait_agents(2)
    base, green = dmz.config, agent.config
    second = {"name": "second", "listen": loopback(), "registration": "green"}
    blue = {"name": "blue", "listen": loopback()}
    dmz_files = [
        {**base, "external": [*base["external"], second]},
        {
            **base,
            "registration": [*base["registration"], blue],
            "external": [{**base["external"][0], "registration": "green"}, second],
        },
        {
            **base,
            "services": [{"match": "/local", "upstream": origin.url}],
            "limits": {"uri": 4096, "headers": 60},
        },
        {
            **base,
            "users": [
                {**user, "tokens": [other, hashed]},
                {"name": "more", "tokens": ["sha256:" + "1" * 64], "may": {}},
            ],
        },
        {**base, "timeouts": {"idle": "20s", "first_byte": "30s"}},
        base,
    ]
    agent_files = [
        {**green, "services": [*green["services"], {"match": "extra.example", "upstream": origin.url}]},
        {**green, "connect": [{**green["connect"][0], "tunnels": 4}]},
        {**green, "connect": [{**green["connect"][0], "tunnels": 1}], "timeouts": {"connect": "2s"}},
        green,
    ]
    with Load(lambda: dmz.external) as load:
        for config in dmz_files:
            reload(dmz, config)
            load.more(20)
            reload(dmz, {**config, "surprise": True}, works=False)
            load.more(10)
        for config in agent_files:
            reload(agent, config)
            load.more(20)
            reload(agent, {**config, "services": 7}, works=False)
            load.more(10)
        assert "surprise" in dmz.process.output and "services" in agent.process.output
    load.assert_nothing_failed()
    load.assert_delivered_once(world.origins)


@pytest.mark.quick
@pytest.mark.parametrize("which", ["dmz", "agent"])
def test_descriptors_run_out(world: World, which: str) -> None:
    """Accepting or dialling pauses, nothing spins or ends, and all is well when there are some again."""
    pair = world.pair()
    node = getattr(pair, which)
    assert pair.fetch("/").status == 200
    idle = [pair.client() for _ in range(20)]
    for client in idle:
        assert client.request().status == 200
    limits = resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, (node.process.descriptors() - 4, limits[1]))
    more = [RawClient(pair.address, timeout=40) for _ in range(20)]
    for client in more:
        client.send_request()
    for client in idle[: 5 if which == "dmz" else 1]:
        response = client.request()
        assert response.status in (200, 502, 503), response
        assert which == "agent" or response.status == 200
    node.process.wait_idle()
    resource.prlimit(node.process.pid, resource.RLIMIT_NOFILE, limits)
    for client in more:
        assert client.read_response().status in ((200,) if which == "dmz" else (200, 502, 503))
        client.close()
    for client in idle:
        client.close()
    pair.assert_alive()


@pytest.mark.quick
def test_a_dmz_node_is_killed_and_agents_serve_through_the_other(world: World) -> None:
    """Two DMZ nodes: what was in flight at the one is lost, nothing else; it is dialled again later."""
    nodes = [world.dmz(name=name) for name in ("first", "second")]
    origin = world.origin()
    agent = world.agent([node.registration_url() for node in nodes], [everything(origin)], 2)
    for node in nodes:
        node.wait_agents(2)
    with Load(lambda: nodes[1].external) as load:
        nodes[0].process.kill()
        load.more(100)
        assert try_fetch(nodes[0].external, "/") is None
        nodes[0].restart()
        nodes[0].wait_agents(2)
        assert nodes[0].fetch("/").status == 200
        load.more()
    load.assert_nothing_failed()
    wait_equal(lambda: len(agent.status()["tunnels"]), 4)
