"""Limits of what runs at once: who is refused, quickly, and that cancelling does not get around them."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.message import Head
from tests.harness.nodes import World
from tests.harness.origin import Connection, Origin
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_equal, wait_until


def hold(origin: Origin, gate: threading.Event) -> None:
    def script(connection: Connection, _head: Head) -> None:
        connection.wait(gate)
        connection.answer()

    origin.on("/held", script)


@pytest.mark.quick
@pytest.mark.parametrize("where", ["port", "service"])
def test_requests_of_one_service(world: World, where: str) -> None:
    limits = {"limits": {"in_flight": 4}}
    gate = threading.Event()

    def offered(origin: Origin) -> list[dict[str, object]]:
        return [
            {"match": "slow.example", "upstream": origin.url, **(limits if where == "service" else {})},
            {"match": "quick.example", "upstream": origin.url},
        ]

    pair = world.pair(services=offered)
    if where == "port":
        config = dict(pair.dmz.config)
        config["external"][0] |= limits
        pair.dmz.write(config)
        assert pair.dmz.admin_post("/reload").status == 200
    hold(pair.origin, gate)
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(pair.fetch, "/held", host="slow.example") for _ in range(4)]
        wait_equal(lambda: len(pair.origin.requests_for("/held")), 4)
        started = time.monotonic()
        answer = pair.fetch("/", host="slow.example")
        assert_problem(answer, 503, "overloaded", "never-sent")
        assert "Retry-After" in answer.headers
        assert time.monotonic() - started < 3, "it was not made to wait (agent_wait)"
        assert pair.fetch("/", host="quick.example").status == 200, "others are not concerned"
        gate.set()
        assert {each.result().status for each in held} == {200}
    assert pair.fetch("/", host="slow.example").status == 200


def test_the_last_streams_are_for_those_who_have_none(world: World) -> None:
    """One service whose upstream hangs takes seven eighths of the tunnel's streams, and no more."""
    gate = threading.Event()
    pair = world.pair(
        agent={"limits": {"streams": 16}},
        services=lambda origin: [
            {"match": "greedy.example", "upstream": origin.url},
            {"match": "modest.example", "upstream": origin.url},
        ],
    )
    hold(pair.origin, gate)
    with ThreadPoolExecutor(20) as pool:
        asked = [pool.submit(pair.fetch, "/held", host="greedy.example") for _ in range(20)]
        wait_equal(lambda: len(pair.origin.requests_for("/held")), 14)
        assert pair.fetch("/", host="modest.example").status == 200
        assert_problem(pair.fetch("/", host="greedy.example"), 503, "overloaded", "never-sent")
        wait_equal(lambda: sum(each.done() for each in asked), 6, "the others were refused")
        gate.set()
        statuses = sorted(each.result().status for each in asked)
    assert statuses == [200] * 14 + [503] * 6


def test_asking_and_cancelling_does_not_raise_concurrency(world: World) -> None:
    """CVE-2023-44487 in HTTP/1.1: a cancelled request counts until the upstream has let go of it."""
    gate = threading.Event()
    at_once = 0
    most = 0
    lock = threading.Lock()

    def script(connection: Connection, _head: Head) -> bool:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        connection.wait(gate)  # it does not notice that nobody waits
        with lock:
            at_once -= 1
        connection.close()
        return True

    pair = world.pair(
        services=lambda origin: [{"match": "/", "upstream": origin.url, "limits": {"in_flight": 5}}]
    )
    pair.origin.on("/work", script)
    for number in range(60):
        client = pair.client()
        client.send_request(target="/work")
        if number < 5:
            wait_until(lambda: len(pair.origin.requests_for("/work")) > number, "it arrived")  # noqa: B023
        else:
            assert client.read_response().status == 503
        client.reset()
    assert most == 5
    gate.set()
    wait_until(lambda: pair.fetch("/").status == 200, "there is room again")
    wait_equal(lambda: pair.agent.status()["services"][0]["active"], 0)
