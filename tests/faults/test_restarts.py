"""A DMZ node that has just started, and whose agents are on their way: their clients wait."""

import contextlib
import os
import signal
import socket

import pytest

from tests.faults.load import Load
from tests.harness.client import RawClient, connect
from tests.harness.nodes import DmzNode, World, loopback
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_equal

WORKERS = pytest.mark.parametrize("workers", [1, 2], ids=["one", "two"])


def new_node(world: World, workers: int, agent_wait: str = "60s") -> DmzNode:
    ports = [{"name": "web", "listen": loopback()}, {"name": "echo", "listen": loopback("tcp", rest="/echo")}]
    return world.dmz({"external": ports, "timeouts": {"agent_wait": agent_wait}, "workers": workers})


@pytest.mark.quick
@WORKERS
def test_requests_wait_for_agents_that_have_not_come_yet(world: World, workers: int) -> None:
    dmz = new_node(world, workers)
    origin = world.origin()
    clients = [dmz.client() for _ in range(8)]
    for number, client in enumerate(clients):
        client.send_request("POST" if number % 2 else "GET", "/", body=b"x" if number % 2 else None)
    stranger = dmz.client(host="unknown.example")
    stranger.send_request()
    with socket.create_server(("127.0.0.1", 0)) as echo, connect(dmz.external_at(1)) as tcp:
        tcp.sendall(b"early")
        wait_equal(lambda: [port["active"] for port in dmz.status()["external"]], [9, 1], "all of them wait")
        upstream = f"tcp://127.0.0.1:{echo.getsockname()[1]}"
        services = [
            {"match": "test.example", "upstream": origin.url},
            {"name": "echo", "upstream": upstream},
        ]
        world.agent(dmz.registration_url(), services)
        assert [client.read_response().status for client in clients] == [200] * 8
        served, _ = echo.accept()
        with served:
            assert served.recv(100) == b"early"
        # Nobody else comes: what is unknown now is told so, long before agent_wait is over.
        assert_problem(stranger.read_response(), 404, "no-service", "never-sent")
        assert_problem(stranger.request(), 404, "no-service", "never-sent")
    for client in [*clients, stranger]:
        client.close()


@pytest.mark.quick
@WORKERS
def test_they_do_not_wait_for_ever(world: World, workers: int) -> None:
    """No agent comes within agent_wait, or none is waited for: nothing serves that."""
    dmz = new_node(world, workers, "200ms")
    assert_problem(dmz.fetch(), 404, "no-service", "never-sent")
    with connect(dmz.external_at(1)) as tcp, pytest.raises(ConnectionResetError):
        tcp.recv(1)
    dmz.write({**dmz.config, "timeouts": {"agent_wait": 0}})
    assert dmz.admin_post("/reload").status == 200
    assert_problem(dmz.fetch(), 404, "no-service", "never-sent")


@WORKERS
def test_a_node_is_restarted_and_no_client_of_its_agents_is_turned_away(world: World, workers: int) -> None:
    """Three services of three agents; from its first answer on, the new process has the right one."""
    dmz = new_node(world, workers, "30s")
    origin = world.origin()
    hosts = [f"{name}.example" for name in ("one", "two", "three")]
    for host in hosts:
        world.agent(dmz.registration_url(), [{"match": host, "upstream": origin.url}])
    dmz.wait_agents(3)
    for _ in range(2):
        dmz.stop()
        dmz.restart()
        with contextlib.ExitStack() as stack:
            loads = [stack.enter_context(Load(lambda: dmz.external, 2, host=host)) for host in hosts]
            for load in loads:
                load.more(20)
        for load in loads:
            load.assert_nothing_failed()


@pytest.mark.quick
def test_requests_of_all_workers_wait_for_their_only_agent(world: World) -> None:
    """It is killed with requests from both workers under way, one of which has come over a relay."""
    pair = world.pair({"workers": 2, "timeouts": {"agent_wait": "60s"}})
    for round_ in range(1, 4):
        clients = [pair.client() for _ in range(10)]
        for client in clients:
            client.send_request()
        assert {client.read_response().status for client in clients} == {200}
        pair.agent.process.kill()
        for client in clients:
            client.send_request()
        pair.agent.restart()
        answers = [client.read_response() for client in clients]
        assert {answer.status for answer in answers} == {200}, f"round {round_}"
        for client in clients:
            client.close()


def test_a_crashed_worker_s_successor_knows_what_the_others_know(world: World) -> None:
    """Services whose agents are away are known to it, too: their requests wait instead of being refused."""
    pair = world.pair({"workers": 2, "timeouts": {"agent_wait": "60s"}})
    assert pair.fetch().status == 200
    pair.agent.process.kill()
    wait_equal(lambda: len(pair.dmz.status()["tunnels"]), 0, "it has gone")
    for _ in range(2):
        victim = pair.dmz.status()["workers"][0]
        os.kill(victim["pid"], signal.SIGKILL)
        wait_equal(
            lambda: (now := pair.dmz.status()["workers"][0])["state"] == "up" and now["restarts"],
            victim["restarts"] + 1,
            "it is replaced",
        )
    clients: list[RawClient] = [pair.client() for _ in range(8)]
    for client in clients:
        client.send_request()
    wait_equal(lambda: pair.dmz.status()["external"][0]["active"], 8, "all of them wait")
    pair.agent.restart()
    assert {client.read_response().status for client in clients} == {200}
    for client in clients:
        client.close()
