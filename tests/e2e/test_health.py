"""Several upstreams of one service: who gets what, who is left out, and who comes back."""

import json
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.harness.message import Head
from tests.harness.nodes import Agent, DmzNode, Pair, World
from tests.harness.origin import Connection, Origin
from tests.harness.ports import free_port
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_equal, wait_until

QUICK = {"interval": "100ms", "timeout": "2s", "rise": 1, "fall": 1}


def asked(node: DmzNode, times: int) -> Counter[str]:
    """Which origins answered so many requests, one after another."""
    return Counter(json.loads(node.fetch("/").body)["origin"] for _ in range(times))


def backends(agent: Agent) -> dict[str, dict[str, Any]]:
    (service,) = agent.status()["services"]
    return {each["address"]: each for each in service["backends"]}


def address(origin: Origin) -> str:
    return origin.url.removeprefix("http://")


def group(world: World, upstream: list[Any], **service: Any) -> tuple[DmzNode, Agent]:
    dmz = world.dmz({"timeouts": {"agent_wait": "100ms"}})
    return dmz, world.agent(dmz.registration_url(), [{"match": "/", "upstream": upstream, **service}])


@pytest.mark.quick
def test_equals_take_turns_and_weights_count(world: World) -> None:
    one, two = world.origin("one"), world.origin("two")
    dmz, agent = group(world, [one.url, {"url": two.url, "weight": 3}])
    assert set(asked(dmz, 10)) == {"one", "two"}

    gate = threading.Event()

    def held(connection: Connection, _head: Head) -> None:
        connection.wait(gate)
        connection.answer()

    for origin in (one, two):
        origin.on("/held", held)
    with ThreadPoolExecutor(40) as pool:
        waiting = [pool.submit(dmz.fetch, "/held") for _ in range(40)]
        wait_equal(lambda: sum(len(each.requests_for("/held")) for each in (one, two)), 40)
        seen = backends(agent)
        gate.set()
        assert {each.result().status for each in waiting} == {200}
    # The least loaded for its weight: at 40 at once, 10 and 30.
    assert (seen[address(one)]["active"], seen[address(two)]["active"]) == (10, 30)


def test_what_refuses_is_left_out_and_comes_back(world: World) -> None:
    one, two = world.origin("one"), world.origin("two")
    port = two.port
    dmz, agent = group(world, [one.url, two.url])
    two.close()
    assert asked(dmz, 20) == {"one": 20}, "requests that were refused went to the other one"
    state = backends(agent)[f"127.0.0.1:{port}"]
    assert state["ejected"]
    assert state["ejections"] == 1
    assert state["failures"] == 1, "it was not tried again by requests"
    back = world.origin("back", port=port)
    wait_until(lambda: not backends(agent)[address(back)]["ejected"], "it is let in again")
    assert set(asked(dmz, 10)) == {"one", "back"}
    assert any("left out after failures" in line for line in agent.process.stderr)
    assert any("takes requests again" in line for line in agent.process.stderr)


def test_what_hangs_up_three_times_is_left_out(world: World) -> None:
    one, two = world.origin("one"), world.origin("two")

    def hang_up(connection: Connection, _head: Head) -> bool:
        connection.close()
        return True

    two.on("/", hang_up)
    dmz, _ = group(world, [one.url, two.url])
    statuses = Counter(dmz.fetch("/", "POST", body=b"x").status for _ in range(30))
    assert statuses[502] == 3
    assert statuses[200] == 27


def test_the_only_upstream_is_never_left_out(world: World) -> None:
    one = world.origin("one")
    port = one.port
    dmz, _ = group(world, [one.url])
    one.close()
    for _ in range(5):
        assert_problem(dmz.fetch("/"), 502, "upstream-unreachable", "never-sent")
    world.origin("again", port=port)
    assert asked(dmz, 3) == {"again": 3}


@pytest.mark.quick
def test_checks_and_withdrawal(world: World) -> None:
    one, two = world.origin("one"), world.origin("two")
    sick: set[str] = set()

    def check(origin: Origin) -> None:
        def answer(connection: Connection, _head: Head) -> None:
            connection.answer(503 if origin.name in sick else 200)

        origin.on("/healthz", answer)

    check(one)
    check(two)
    dmz, agent = group(world, [one.url, two.url], health={"path": "/healthz", **QUICK})
    assert set(asked(dmz, 10)) == {"one", "two"}
    assert "Host: broker" not in str(one.requests_for("/healthz")[0].headers)

    sick.add("two")
    wait_until(lambda: not backends(agent)[address(two)]["healthy"], "the sick one is noticed")
    assert backends(agent)[address(two)]["problem"] == "it answers 503"
    assert asked(dmz, 10) == {"one": 10}

    sick.add("one")
    wait_until(lambda: dmz.fetch("/").status == 503, "the service is withdrawn")
    assert_problem(dmz.fetch("/"), 503, "no-agent", "never-sent")
    assert len(dmz.status()["tunnels"]) == 1, "the agent is still there"

    second = world.origin("other")
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": second.url}], name="agent-2")
    assert asked(dmz, 5) == {"other": 5}, "another agent takes its requests"

    sick.clear()
    wait_until(lambda: set(asked(dmz, 6)) >= {"one", "two"}, "both are back")


def test_a_service_that_is_down_when_its_agent_logs_in(world: World) -> None:
    one = world.origin("one")
    port = one.port
    one.close()
    dmz, _ = group(world, [f"http://127.0.0.1:{port}"], health={"check": "tcp", **QUICK})
    wait_until(lambda: dmz.fetch("/").status == 503, "known, but nobody has it")
    world.origin("one-2", port=port)
    wait_until(lambda: dmz.fetch("/").status == 200, "it came up")


def test_a_local_service_without_an_upstream_fails_at_once(world: World) -> None:
    gone = f"http://127.0.0.1:{free_port()}"
    dmz = world.dmz({"services": [{"match": "/", "upstream": gone, "health": QUICK}]})
    wait_until(lambda: "is withdrawn" in dmz.process.output, "the check has failed")
    assert_problem(dmz.fetch("/"), 502, "upstream-unreachable", "never-sent")


def test_a_reload_changes_upstreams_and_keeps_what_stays(world: World) -> None:
    pair: Pair = world.pair()
    assert pair.fetch("/").status == 200
    other = world.origin("other")
    config = dict(pair.agent.config)
    config["services"] = [{"match": "/", "upstream": [pair.origin.url, {"url": other.url, "weight": 2}]}]
    pair.agent.write(config)
    pair.agent.admin_post("/reload")
    wait_equal(lambda: backends(pair.agent)[address(other)]["weight"], 2)
    before = backends(pair.agent)[address(pair.origin)]
    assert before["exchanges"] == 1, "the one that stays has its state"
    assert set(asked(pair.dmz, 9)) == {"origin", "other"}
    config["services"] = [{"match": "/", "upstream": other.url}]
    pair.agent.write(config)
    pair.agent.admin_post("/reload")
    wait_equal(lambda: list(backends(pair.agent)), [address(other)])
    wait_equal(lambda: pair.origin.open_connections, 0, "its idle connections are closed")
    assert asked(pair.dmz, 3) == {"other": 3}
