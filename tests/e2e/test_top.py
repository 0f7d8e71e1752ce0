"""`broker top` in a terminal, and without one."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from broker.config.tokens import new_token, token_hash
from tests.harness.client import fetch
from tests.harness.nodes import World, loopback
from tests.harness.process import run_broker
from tests.harness.terminal import Terminal
from tests.harness.waiting import wait_until


def test_live_in_a_terminal(world: World) -> None:
    """Agents come, requests are counted, the node goes and comes back, the window changes."""
    pair = world.pair(services=lambda origin: [{"match": "a.example", "upstream": origin.url}])
    admin = pair.dmz.config["admin"]["listen"]
    with Terminal("top", "--admin", admin, "--interval", "0.2", env={"NO_COLOR": "1"}) as top:
        top.wait("a.example/")
        top.wait("serving, ready")

        def busy() -> object:
            fetch(pair.address, "/x", host="a.example")
            fetch(pair.address, "/x", host="nobody.example")
            found = re.search(r"([0-9.]+) req/s  ([0-9.]+) failures/s", top.screen)
            return found and float(found[1]) > 0 and float(found[2]) > 0

        wait_until(busy, "the rates are above 0")
        top.type("6")
        top.wait("no-service")
        top.type("2")
        top.wait("rtt")
        late = world.agent(pair.dmz.registration_url(), [{"match": "b.example", "upstream": pair.origin.url}])
        top.wait("1 to 2 of 2")
        late.stop()
        top.wait("1 to 1 of 1")
        top.resize(60, 12)
        wait_until(
            lambda: "rtt" in top.screen and max(map(len, top.screen.splitlines())) <= 60,
            f"a table that fits the narrow window: {top.screen!r}",
        )
        pair.dmz.process.kill()
        top.wait("no answer for")
        pair.dmz.start()
        top.wait("serving, ready")
        assert not re.search(rb"\x1b\[[0-9;]*3[0-7]m", top.raw), "NO_COLOR"
        top.type("q")
        top.expect_exit(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_puts_the_terminal_back(world: World, number: int) -> None:
    node = world.dmz()
    with Terminal("top", "--admin", node.config["admin"]["listen"]) as top:
        top.wait("serving, ready")
        top.signal(number)
        top.expect_exit(0)


def test_a_node_that_does_not_answer_keeps_nobody(world: World) -> None:
    """It is asked for 10 s; who quits goes at once."""
    node = world.dmz()
    with Terminal("top", "--admin", node.config["admin"]["listen"], "--interval", "0.2") as top:
        top.wait("serving, ready")
        node.process.signal(signal.SIGSTOP)
        try:
            top.wait("no answer for")
            first = silence(top)
            # Soon after the first failure it asks again, and waits.
            wait_until(lambda: silence(top) >= first + 2 or None, "it is asking again")
            begun = time.monotonic()
            top.type("q")
            top.expect_exit(0)
            assert time.monotonic() - begun < 4
        finally:
            node.process.signal(signal.SIGCONT)


def silence(top: Terminal) -> int:
    """Seconds without an answer, as it shows them."""
    found = re.search(r"no answer for (\d+)", top.screen)
    return int(found[1]) if found else 0


def test_a_terminal_that_has_no_size(world: World) -> None:
    """As that of a serial line, or of a container before somebody looks."""
    node = world.dmz()
    with Terminal("top", "--admin", node.config["admin"]["listen"], width=0, height=0) as top:
        top.wait("serving, ready")
        assert max(map(len, top.screen.splitlines())) <= 80
        top.type("q")
        top.expect_exit(0)


def test_without_a_terminal(world: World, tmp_path: Path) -> None:
    token = new_token()
    file = tmp_path / "ops.token"
    file.write_text(token.reveal())
    file.chmod(0o600)
    users = [{"name": "ops", "tokens": [token_hash(token)], "may": {"admin": "read", "services": ["*"]}}]
    admin = {"listen": loopback(), "auth": "token"}
    node = world.dmz(
        {"admin": admin, "users": users, "services": [{"match": "a.example", "upstream": loopback()}]}
    )
    fetch(node.external, "/x", host="a.example")
    at = ["--admin", admin["listen"], "--interval", "0.2", "--token-file", str(file)]
    code, said, complained = run_broker("top", *at)
    assert (code, complained) == (0, "")
    assert "\x1b" not in said and "a.example/" in said and "fail/s" in said
    code, said, _ = run_broker("top", *at, "--json")
    found = json.loads(said)
    assert code == 0 and found["node"] and found["seconds"] >= 0.2
    assert found["totals"]["requests_s"] == 0
    (service,) = found["services"]
    assert service["service"] == "a.example/" and service["requests"] == service["failures"] == 3  # tries
    assert found["failures"][0]["code"] == "upstream-unreachable"
    code, said, complained = run_broker("top", "--admin", admin["listen"])
    assert (code, said) == (1, "") and "--token-file" in complained
    code, _, complained = run_broker("top", *at, "--view", "tunnels", "--sort", "nothing")
    assert code == 2 and "no column of tunnels; known: agent," in complained
