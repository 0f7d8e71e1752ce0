"""Nodes that start, stop, die and come back, with requests under way."""

import signal
import threading
from typing import Any

import pytest

from tests.harness.client import RawClient, try_fetch
from tests.harness.message import Closed, Head
from tests.harness.nodes import Agent, DmzNode, Pair, World, everything, loopback
from tests.harness.origin import Connection, Origin
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_equal, wait_until


class Held:
    """Requests that the origin answers when the test says so."""

    def __init__(self, origin: Origin, target: str = "/held") -> None:
        self.origin = origin
        self.gate = threading.Event()
        self.target = origin.on(target, self._play)

    def _play(self, connection: Connection, head: Head) -> None:
        connection.read_body(head)
        connection.wait(self.gate)
        connection.answer(body=b"held")

    def begin(self, dmz: DmzNode, method: str = "GET", body: bytes | None = None) -> RawClient:
        """A client whose request has reached the origin."""
        before = len(self.origin.requests_for(self.target))
        client = dmz.client()
        client.send_request(method, self.target, body=body)
        wait_until(lambda: len(self.origin.requests_for(self.target)) > before, "the request is under way")
        return client


# --- agents that die ------------------------------------------------------------------------


@pytest.mark.quick
def test_an_agent_is_killed_with_requests_under_way(world: World) -> None:
    """A POST is never sent twice: tunnel-lost. A response under way is cut. The agent is back: all works."""
    pair = world.pair({"timeouts": {"agent_wait": "300ms"}})
    held = Held(pair.origin)
    post = held.begin(pair.dmz, "POST", b"pay 5")

    def half(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhalf of it")
        connection.wait(held.gate)
        return True

    pair.origin.on("/half", half)
    download = pair.client()
    download.send_request(target="/half")
    assert download.read_head().status == 200
    assert download.reader.exactly(10) == b"half of it"

    pair.agent.process.kill()
    assert_problem(post.read_response(), 502, "tunnel-lost", "maybe-sent")
    assert post.request(target="/", fields=[("Host", "a")]).status == 503, "its connection goes on"
    assert download.read_to_end() == b"", "the rest must not come from anywhere"
    response = pair.fetch("/")
    assert_problem(response, 503, "no-agent", "never-sent")

    pair.agent.restart()
    wait_until(lambda: pair.fetch("/").status == 200, "the service is back")
    held.gate.set()
    assert len(pair.origin.requests_for("/held")) == 1
    post.close()
    download.close()


@pytest.mark.quick
def test_a_get_is_sent_again_over_another_tunnel(world: World) -> None:
    """Two agents: one is killed with a GET and a POST under way; the GET is answered by the other."""
    dmz = world.dmz()
    origins = [world.origin("first"), world.origin("second")]
    agents: list[Agent] = [world.agent(dmz.registration_url(), [everything(origin)]) for origin in origins]
    dmz.wait_agents(2)
    held = [Held(origin) for origin in origins]
    clients = [dmz.client() for _ in range(4)]
    for client, method in zip(clients, ["GET", "GET", "POST", "POST"], strict=True):
        client.send_request(method, "/held", body=b"x" if method == "POST" else None)
    wait_until(lambda: all(len(origin.requests_for("/held")) == 2 for origin in origins), "both have two")
    agents[0].process.kill()
    wait_equal(lambda: methods(origins[1]).count("GET"), 2)
    for each in held:
        each.gate.set()
    responses = [client.read_response() for client in clients]
    assert [response.status for response in responses[:2]] == [200, 200]
    lost = [response for response in responses[2:] if response.status != 200]
    assert len(lost) == methods(origins[0]).count("POST")
    for response in lost:
        assert_problem(response, 502, "tunnel-lost", "maybe-sent")
    assert methods(origins[0]).count("POST") + methods(origins[1]).count("POST") == 2
    for client in clients:
        client.close()


def methods(origin: Origin) -> list[str]:
    return [head.method for head in origin.requests_for("/held")]


@pytest.mark.quick
def test_a_get_whose_only_agent_was_killed(world: World) -> None:
    """It waits like any other request; nobody comes: no-agent, and the truth about its first try."""
    pair = world.pair({"timeouts": {"agent_wait": "300ms"}})
    held = Held(pair.origin)
    client = held.begin(pair.dmz)
    pair.agent.process.kill()
    assert_problem(client.read_response(), 503, "no-agent", "maybe-sent")
    assert_problem(client.request(target="/"), 503, "no-agent", "never-sent")
    pair.agent.restart()
    wait_until(lambda: pair.fetch("/").status == 200, "the service is back")
    held.gate.set()
    client.close()


@pytest.mark.quick
def test_a_get_whose_only_agent_comes_back(world: World) -> None:
    pair = world.pair({"timeouts": {"agent_wait": "60s"}})
    held = Held(pair.origin)
    client = held.begin(pair.dmz)
    pair.agent.process.kill()
    pair.agent.restart()
    wait_equal(lambda: len(pair.origin.requests_for("/held")), 2)
    held.gate.set()
    assert client.read_response().body == b"held"
    client.close()


@pytest.mark.quick
def test_requests_wait_for_an_agent_that_is_away(world: World) -> None:
    """Known service, agent gone: the request waits, and goes through when the agent is back."""
    pair = world.pair({"timeouts": {"agent_wait": "60s"}})
    assert pair.fetch("/").status == 200
    pair.agent.process.kill()
    wait_equal(lambda: len(pair.dmz.status()["tunnels"]), 0)
    clients = [pair.client() for _ in range(10)]
    for number, client in enumerate(clients):
        client.send_request("POST" if number % 2 else "GET", "/", body=b"x" if number % 2 else None)
    wait_equal(lambda: waiting(pair.dmz), 10)
    clients.pop().reset()
    wait_equal(lambda: waiting(pair.dmz), 9, "who leaves waits no more")
    pair.agent.restart()
    for client in clients:
        assert client.read_response().status == 200
        client.close()


def waiting(dmz: DmzNode) -> int:
    return sum(service.get("waiting", 0) for service in dmz.status()["services"])


@pytest.mark.quick
def test_too_many_wait_for_an_agent(world: World) -> None:
    pair = world.pair({"timeouts": {"agent_wait": "60s"}, "limits": {"waiting": 2}})
    assert pair.fetch("/").status == 200
    pair.agent.process.kill()
    wait_equal(lambda: len(pair.dmz.status()["tunnels"]), 0)
    clients = [pair.client() for _ in range(2)]
    for client in clients:
        client.send_request()
    wait_equal(lambda: waiting(pair.dmz), 2)
    assert_problem(pair.fetch("/"), 503, "overloaded", "never-sent")
    for client in clients:
        client.reset()


@pytest.mark.quick
def test_an_agent_that_left_on_purpose(world: World) -> None:
    """Its services stay known: 503 for a while, not 404 at once."""
    pair = world.pair({"timeouts": {"agent_wait": "100ms"}})
    pair.agent.stop()
    wait_equal(lambda: len(pair.dmz.status()["tunnels"]), 0)
    assert_problem(pair.fetch("/"), 503, "no-agent", "never-sent")


# --- DMZ nodes that die ---------------------------------------------------------------------


@pytest.mark.quick
def test_a_dmz_node_is_killed_and_comes_back(world: World) -> None:
    """The agent returns by itself; what was under way at the origin is given up."""
    pair = world.pair(tunnels=2)
    held = Held(pair.origin)
    client = held.begin(pair.dmz)
    pair.dmz.process.kill()
    with pytest.raises((Closed, ConnectionResetError)):
        client.read_response()
    pair.dmz.restart()
    pair.dmz.wait_agents(2)
    assert pair.fetch("/").status == 200
    held.gate.set()
    client.close()


@pytest.mark.quick
def test_an_agent_that_starts_before_its_dmz_node(world: World) -> None:
    origin = world.origin()
    dmz = world.dmz(start=False)
    agent = world.agent(dmz.registration_url(), [everything(origin)], start=False)
    agent.start(ready=False)
    wait_until(lambda: try_fetch(agent.admin, "/healthz", host="127.0.0.1"), "the agent lives")
    assert not agent.ready(), "without a tunnel it is not ready"
    dmz.start()
    agent.wait_ready()
    assert dmz.fetch("/").status == 200


# --- ending on purpose ----------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("which", ["dmz", "agent"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_idle_node_ends_at_once(world: World, which: str, number: int) -> None:
    pair = world.pair()
    idle = pair.client()
    assert idle.request().status == 200
    node = getattr(pair, which)
    node.process.signal(number)
    node.process.expect_exit(0)
    idle.close()


@pytest.mark.quick
@pytest.mark.parametrize("which", ["dmz", "agent"])
def test_sigterm_lets_requests_finish(world: World, which: str) -> None:
    pair = world.pair()
    held = Held(pair.origin)
    client = held.begin(pair.dmz, "POST", b"order")
    node = getattr(pair, which)
    node.process.terminate()
    node.process.wait_for_line("draining")
    assert node.process.running
    held.gate.set()
    response = client.read_response()
    assert (response.status, response.body) == (200, b"held")
    node.process.expect_exit(0)
    client.close()


@pytest.mark.quick
def test_a_draining_dmz_node_accepts_nobody(world: World) -> None:
    pair = world.pair()
    held = Held(pair.origin)
    client = held.begin(pair.dmz)
    pair.dmz.process.terminate()
    pair.dmz.process.wait_for_line("draining")
    wait_until(lambda: refused(pair), "new connections are refused")
    held.gate.set()
    response = client.read_response()
    assert response.status == 200 and not response.keeps_open
    pair.dmz.process.expect_exit(0)
    client.close()


@pytest.mark.quick
@pytest.mark.parametrize("by", ["SIGTERM", "reload"])
def test_a_client_whose_answer_had_begun_asks_once_more(world: World, by: str) -> None:
    """Its head could not say "Connection: close" yet: the next request may be on its way, and is answered."""
    pair = world.pair()
    gate = threading.Event()

    def script(connection: Connection, _head: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n01234")
        connection.wait(gate)
        connection.send(b"56789")

    pair.origin.on("/begun", script)
    with pair.client() as client:
        client.send_request(target="/begun")
        head = client.read_head()
        assert "Connection" not in head.headers
        if by == "SIGTERM":
            pair.dmz.process.terminate()
            pair.dmz.process.wait_for_line("draining")
            wait_until(lambda: refused(pair), "new connections are refused")
        else:
            pair.dmz.write({**pair.dmz.config, "external": [{"name": "other", "listen": loopback()}]})
            assert pair.dmz.admin_post("/reload").status == 200
        gate.set()
        assert client.reader.exactly(10) == b"0123456789"
        response = client.request(target="/next")
        assert response.status == 200 and not response.keeps_open
    if by == "SIGTERM":
        pair.dmz.process.expect_exit(0)


def refused(pair: Pair) -> bool:
    try:
        RawClient(pair.address).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:
        return False  # it met the moment in which the port closed
    return False


@pytest.mark.quick
def test_a_draining_agent_takes_nothing_new(world: World) -> None:
    """While it finishes, another agent gets all new requests: none fails."""
    dmz = world.dmz()
    old, new = world.origin("old"), world.origin("new")
    leaving: Agent = world.agent(dmz.registration_url(), [everything(old)])
    held = Held(old)
    client = held.begin(dmz)
    world.agent(dmz.registration_url(), [everything(new)])
    dmz.wait_agents(2)
    leaving.process.terminate()
    leaving.process.wait_for_line("draining")
    wait_until(lambda: all_from(dmz, "new", 20), "all new requests go to the other agent")
    held.gate.set()
    assert client.read_response().status == 200
    leaving.process.expect_exit(0)
    client.close()


def all_from(dmz: DmzNode, name: str, count: int) -> bool:
    responses = [dmz.fetch("/") for _ in range(count)]
    assert all(response.status == 200 for response in responses)
    return all(f'"origin": "{name}"'.encode() in response.body for response in responses)


@pytest.mark.quick
@pytest.mark.parametrize("which", ["dmz", "agent"])
def test_the_drain_has_a_deadline(world: World, which: str) -> None:
    """Requests that don't finish are cut when it is over."""
    pair = world.pair({"timeouts": {"drain": "500ms"}}, {"timeouts": {"drain": "500ms"}})
    held = Held(pair.origin)
    client = held.begin(pair.dmz, "POST", b"x")
    node = getattr(pair, which)
    node.process.terminate()
    code = node.process.wait()
    assert code in (0, 1), node.process.output
    try:
        assert_problem(client.read_response(), 502, "tunnel-lost")
        assert which == "agent"
    except (Closed, ConnectionResetError):
        assert which == "dmz"
    held.gate.set()
    client.close()


@pytest.mark.quick
@pytest.mark.parametrize("which", ["dmz", "agent"])
def test_a_second_signal_stops_at_once(world: World, which: str) -> None:
    pair = world.pair()
    held = Held(pair.origin)
    client = held.begin(pair.dmz)
    node = getattr(pair, which)
    node.process.terminate()
    node.process.wait_for_line("draining")
    node.process.terminate()
    code = node.process.wait()
    assert code in (0, 1), f"exit code {code}\n{node.process.output}"
    held.gate.set()
    client.close()


@pytest.mark.quick
def test_drain_and_stop_by_the_admin_port(world: World) -> None:
    pair = world.pair()
    assert pair.agent.admin_post("/drain").status in (200, 202)
    pair.agent.process.expect_exit(0)
    assert pair.dmz.admin_post("/drain").status in (200, 202)
    pair.dmz.process.expect_exit(0)


# --- reload ---------------------------------------------------------------------------------


def reload(node: Any, config: dict[str, Any]) -> None:
    """By SIGHUP, and wait until it says that it has reloaded."""
    node.write(config)
    count = sum(node.status()["reloads"].values())
    node.process.signal(signal.SIGHUP)
    wait_until(lambda: sum(node.status()["reloads"].values()) > count, "the reload is done")


def only_tunnel(node: DmzNode) -> tuple[str, str]:
    """Where the only tunnel comes from, and since when it is there."""
    (tunnel,) = node.status()["tunnels"]
    return tunnel["peer"], tunnel["since"]


@pytest.mark.quick
def test_sighup_changes_services_and_limits_with_a_request_under_way(world: World) -> None:
    pair = world.pair()
    held = Held(pair.origin)
    kept = pair.client()
    assert kept.request().status == 200
    client = held.begin(pair.dmz)
    tunnel = only_tunnel(pair.dmz)
    local = world.origin("local")
    services = [{"match": "/local", "upstream": local.url}]
    reload(pair.dmz, {**pair.dmz.config, "services": services, "limits": {"uri": 100}})
    assert b'"origin": "local"' in pair.fetch("/local").body
    assert pair.fetch("/" + "u" * 200).status == 414
    assert b'"origin": "local"' in kept.request(target="/local").body, "an old connection sees the new table"
    held.gate.set()
    assert client.read_response().status == 200
    client.close()
    kept.close()
    assert only_tunnel(pair.dmz) == tunnel, "the tunnel stayed"


@pytest.mark.quick
def test_sighup_with_an_error_changes_nothing(world: World) -> None:
    pair = world.pair()
    good = pair.dmz.config
    reload(pair.dmz, {**good, "limits": {"uri": 100}, "surprise": 1})
    pair.dmz.process.wait_for_line("surprise")
    assert pair.fetch("/" + "u" * 200).status == 200
    pair.assert_alive()
    assert pair.dmz.status()["ready"]
    pair.dmz.path.write_text("external: [")
    pair.dmz.process.signal(signal.SIGHUP)
    wait_equal(lambda: sum(pair.dmz.status()["reloads"].values()), 2)
    pair.assert_alive()
    pair.dmz.write(good)


@pytest.mark.quick
def test_reload_opens_and_closes_ports(world: World) -> None:
    pair = world.pair()
    config = pair.dmz.config
    second = {"name": "second", "listen": loopback(), "registration": "green"}
    reload(pair.dmz, {**config, "external": [*config["external"], second]})
    assert try_fetch(pair.dmz.external_at(1), "/") is not None
    assert pair.fetch("/").status == 200
    address = pair.dmz.external_at(1)
    reload(pair.dmz, config)
    wait_until(lambda: try_fetch(address, "/") is None, "the port is closed")
    assert pair.fetch("/").status == 200
