"""Links that hang, crawl, lie and break, and processes that stand still: who notices, and what it costs."""

import contextlib
import signal
import threading
import time

import pytest

from tests.faults.conftest import Proxies
from tests.faults.proxy import FaultProxy
from tests.harness.client import RawClient
from tests.harness.nodes import Agent, DmzNode, World, everything
from tests.harness.origin import pattern, sha256
from tests.harness.peer import HandAgent
from tests.harness.waiting import Timer, wait_equal, wait_until

SILENCE_S = 5.0
NOTICED_S = 6.0
SLACK_S = 4.0  # this machine does other things, too


def tunnels(node: DmzNode | Agent) -> int:
    return len(node.status()["tunnels"])


def pair_over(world: World, proxies: Proxies, tunnels: int = 1) -> tuple[DmzNode, Agent, FaultProxy]:
    dmz = world.dmz({"timeouts": {"agent_wait": "20s"}})
    proxy = proxies.before(dmz)
    agent = world.agent(proxy.url, [everything(world.origin())], tunnels)
    dmz.wait_agents(tunnels)
    return dmz, agent, proxy


def assert_in_time(timer: Timer) -> None:
    assert SILENCE_S - 2 < timer.seconds < NOTICED_S + SLACK_S, f"noticed after {timer.seconds:.1f} s"


def test_a_pulled_cable_is_noticed_at_both_ends_and_mended(world: World, proxies: Proxies) -> None:
    dmz, agent, proxy = pair_over(world, proxies)
    proxy.hang()
    timer = Timer()
    wait_equal(lambda: (tunnels(dmz), tunnels(agent)), (0, 0), "both ends notice")
    assert_in_time(timer)
    proxy.cut()
    proxy.heal()
    assert dmz.fetch("/").status == 200, "it waited for the agent"


@pytest.mark.parametrize("which", ["dmz", "agent"])
def test_a_frozen_process_is_noticed(world: World, which: str) -> None:
    """SIGSTOP: its kernel goes on to answer. Requests go to the other agent; what it had is sent again."""
    dmz = world.dmz()
    origins = [world.origin("first"), world.origin("second")]
    agents = [world.agent(dmz.registration_url(), [everything(origin)]) for origin in origins]
    dmz.wait_agents(2)
    frozen = dmz if which == "dmz" else agents[0]
    frozen.process.signal(signal.SIGSTOP)
    timer = Timer()
    try:
        if which == "dmz":
            wait_equal(lambda: [tunnels(agent) for agent in agents], [0, 0], "the agents notice")
            assert_in_time(timer)
        else:
            clients = [dmz.client() for _ in range(6)]
            for client in clients:
                client.send_request("GET", "/")
            answers = [client.read_response() for client in clients]
            assert [answer.status for answer in answers] == [200] * 6
            assert all(b'"second"' in answer.body for answer in answers)
            wait_equal(lambda: tunnels(dmz), 1)
            assert_in_time(timer)
            for client in clients:
                client.close()
    finally:
        frozen.process.signal(signal.SIGCONT)
    dmz.wait_agents(2)


def test_a_full_link_that_becomes_narrow_is_alive(world: World, proxies: Proxies) -> None:
    """An upload has grown its window, then the link carries 8 KB/s: far more is under way than that is in
    the silence. The agent has nothing to grant for long, and answers to PINGs are stuck: nobody is dead."""
    dmz, agent, proxy = pair_over(world, proxies)
    piece = pattern(1 << 20)
    ending = threading.Event()

    def upload() -> None:
        with dmz.client(timeout=1) as client:
            client.send(b"POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000000\r\n\r\n")
            while not ending.is_set():
                with contextlib.suppress(TimeoutError):
                    client.send(piece)

    proxy.up.delay = proxy.down.delay = 0.03
    thread = threading.Thread(target=upload, daemon=True)
    thread.start()
    wait_until(lambda: proxy.moved[1] > 24 << 20, "the upload flows", 60)
    proxy.throttle(8_000)
    since = Timer()
    while since.seconds < 1.8 * SILENCE_S:
        assert (tunnels(dmz), tunnels(agent)) == (1, 1), f"after {since.seconds:.1f} s"
        time.sleep(0.1)
    assert agent.status()["connect"][0]["lost"] == 0
    assert dmz.status()["registration"][0]["lost"] == 0
    ending.set()
    proxy.throttle(None)
    thread.join()


def test_a_corrupted_link_costs_its_tunnel_and_no_more(world: World, proxies: Proxies) -> None:
    """A turned bit is a broken rule, or another body: the second is for TLS to notice. The nodes go on."""
    dmz, agent, proxy = pair_over(world, proxies)
    for _ in range(4):
        for weather in (proxy.up, proxy.down):
            weather.corrupt = True
            wait_until(lambda: weather.corrupt is False, "it has happened")  # noqa: B023
        wait_equal(lambda: (tunnels(dmz), tunnels(agent)), (1, 1), "the tunnel is there again")
    proxy.cut()
    wait_until(lambda: dmz.fetch("/").status == 200, "all is well")
    for node in (dmz, agent):
        assert node.process.running
        node.process.assert_clean()


@pytest.mark.quick
@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_half_closed_link_is_over(world: World, proxies: Proxies, direction: str) -> None:
    dmz, agent, proxy = pair_over(world, proxies)
    lost = dmz.status()["registration"][0]["logins"]
    getattr(proxy, direction).half_close = True
    wait_until(lambda: proxy.links == 0, "both ends have closed")
    proxy.heal()
    wait_until(lambda: dmz.status()["registration"][0]["logins"] > lost, "it dials again")
    assert dmz.fetch("/").status == 200
    wait_equal(lambda: tunnels(agent), 1)


@pytest.mark.quick
def test_links_that_are_cut_again_and_again(world: World, proxies: Proxies) -> None:
    """Every idempotent request is answered whole, over whatever tunnel is left."""
    dmz, _, proxy = pair_over(world, proxies, tunnels=4)
    ending = threading.Event()

    def cutter() -> None:
        while not ending.wait(0.15):
            proxy.cut(1)

    thread = threading.Thread(target=cutter)
    thread.start()
    body = pattern(12_000)
    try:
        for _ in range(100):
            with RawClient(dmz.external, timeout=30) as client:
                answer = client.request("PUT", "/put", body=body)
            assert answer.status == 200
            assert sha256(body).encode() in answer.body
    finally:
        ending.set()
        thread.join()


@pytest.mark.quick
def test_a_slow_link_delays_and_loses_nothing(world: World, proxies: Proxies) -> None:
    dmz, _, proxy = pair_over(world, proxies)
    proxy.up.delay = proxy.down.delay = 0.1
    with dmz.client() as client:
        timer = Timer()
        assert client.request().status == 200
        assert timer.seconds > 0.2
        body = pattern(1 << 20)
        answer = client.request("POST", "/up", body=body)
        assert sha256(body).encode() in answer.body


@pytest.mark.quick
def test_a_new_login_ends_the_old_tunnel_at_once(world: World) -> None:
    """An agent that has lost its link comes back before the DMZ node could notice."""
    dmz = world.dmz()
    same = {"instance": "ab" * 16, "index": 0}
    with HandAgent(dmz.registration_at(), [{"match": "/"}], **same) as old, dmz.client() as client:
        client.send_request("GET", "/")
        old.accept()
        with HandAgent(dmz.registration_at(), [{"match": "/"}], **same) as new:
            timer = Timer()
            assert old.expect_death()[0] == 4
            assert timer.seconds < SILENCE_S - 1
            new.reply(new.accept()[0], b"again")
            assert client.read_response().body == b"again"
