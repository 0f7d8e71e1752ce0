"""A registration port under attack: silent crowds, guessed tokens, and honest agents that must not notice."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.client import RawClient
from tests.harness.nodes import DmzNode, Snippet, World
from tests.harness.peer import HandAgent, registration_head
from tests.harness.waiting import DEADLINE, Timer, wait_until

TOKEN = "broker_a-token-for-the-tests-of-abuse"
HASH = "sha256:" + hashlib.sha256(TOKEN.encode()).hexdigest()
SERVICE = [{"match": "a.example"}]
SILENT = 2_000
FAILED = 20_000
ATTACKERS = [f"127.0.0.{number}" for number in range(2, 12)]
PATIENCE_S = 10.0  # of an honest agent; on an idle machine it needs milliseconds


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(max(soft, 3 * SILENT), hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def node_with(world: World, workers: int | None = None, **strangers: Any) -> DmzNode:
    node = world.dmz({"workers": workers} if workers else None, start=False)
    config: Snippet = node.config
    config["registration"][0]["strangers"] = strangers
    config["users"] = [{"name": "orders", "tokens": [HASH], "may": {"services": ["a.example"]}}]
    node.write(config)
    node.start()
    return node


def port_of(node: DmzNode) -> dict[str, Any]:
    found = node.status()["registration"][0]
    assert isinstance(found, dict)
    return found


def honest_logins(node: DmzNode, count: int) -> float:
    """Log in as often, each at the first try; the longest that one took, in seconds."""
    longest = 0.0
    for _ in range(count):
        timer = Timer()
        with HandAgent(node.registration_at(), SERVICE, token=TOKEN):
            longest = max(longest, timer.seconds)
    return longest


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_silent_crowd_keeps_nobody_out(world: World, workers: int) -> None:
    """Its number is bounded for the node, not for each of its workers."""
    node = node_with(world, workers)
    with contextlib.ExitStack() as stack:
        for number in range(SILENT):
            source = (ATTACKERS[number % len(ATTACKERS)], 0)
            stack.enter_context(
                socket.create_connection(node.registration_at(), DEADLINE, source_address=source)
            )
            if number % 200 == 0:
                assert honest_logins(node, 1) < PATIENCE_S
        assert honest_logins(node, 50) < PATIENCE_S
        seen = port_of(node)
        assert seen["logins_pending"] <= 1024
        assert seen["crowded_out"] >= SILENT - 1024
        assert seen["logins"] == 60


def guess(node: DmzNode, source: str, count: int, answers: Counter[str]) -> None:
    head = registration_head("a", SERVICE, token="broker_a-guess-that-is-always-wrong")
    for _ in range(count):
        with (
            contextlib.suppress(OSError),
            socket.create_connection(node.registration_at(), DEADLINE, source_address=(source, 0)) as sock,
        ):
            sock.sendall(head)
            answers[sock.recv(4096)[9:12].decode()] += 1


@contextlib.contextmanager
def guessing(node: DmzNode, count: int, answers: Counter[str]) -> Iterator[list[threading.Thread]]:
    each = count // len(ATTACKERS)
    threads = [
        threading.Thread(target=guess, args=(node, source, each, answers), daemon=True)
        for source in ATTACKERS
    ]
    for thread in threads:
        thread.start()
    yield threads
    for thread in threads:
        thread.join()


@pytest.mark.timeout(180, method="signal")
def test_failed_logins_keep_nobody_waiting(world: World) -> None:
    """Each of them is looked at: penalties would make it too easy."""
    node = node_with(world, penalties={"failed": 0, "broken": 0, "slow": 0})
    answers: Counter[str] = Counter()
    longest, logins = 0.0, 0
    with guessing(node, FAILED, answers) as threads:
        while any(thread.is_alive() for thread in threads):
            longest = max(longest, honest_logins(node, 1))
            logins += 1
            threads[0].join(0.05)
    assert longest < PATIENCE_S
    assert answers["401"] > 0.99 * FAILED, "a few may meet a full backlog"
    seen = port_of(node)
    assert seen["logins"] == logins > 5
    assert seen["refusals"]["unauthenticated"] == answers["401"]
    wait_until(lambda: port_of(node)["logins_pending"] == 0, "nothing is left of them")
    assert TOKEN not in node.process.output and "always-wrong" not in node.process.output


def test_who_fails_too_often_is_turned_away(world: World) -> None:
    """And nobody else is."""
    node = node_with(world, penalties={"exempt": ["127.0.0.1"]})
    answers: Counter[str] = Counter()
    guess(node, ATTACKERS[0], 20, answers)
    looked_at = answers["401"]
    assert looked_at in (3, 4) and answers["429"] == 20 - looked_at, answers
    assert honest_logins(node, 3) < PATIENCE_S
    seen = port_of(node)
    assert (seen["turned_away"], seen["punished"]) == (20 - looked_at, 1)
    node.process.wait_for_line(rf"takes no connections from {ATTACKERS[0]} for [0-9]+ s")
    node.process.wait_for_line(r"too many logins from there have failed")
    with RawClient(node.registration_at()) as other:
        other.send(registration_head("a", SERVICE, token="broker_a-guess-that-is-always-wrong"))
        assert other.read_response().status == 401
    guess(node, ATTACKERS[1], 1, answers)
    assert answers["401"] == looked_at + 1
