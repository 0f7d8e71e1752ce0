"""Several workers: one node to everybody outside, and a dead one takes only its own requests with it."""

import os
import signal
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.e2e.test_handover import gone, hand_over, last_ends, load
from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import DmzNode, Pair, World, everything, loopback
from tests.harness.origin import Connection, pattern, sha256
from tests.harness.peer import HandAgent
from tests.harness.waiting import DEADLINE, wait_equal, wait_until

TWO = {"workers": 2}


def workers(dmz: DmzNode) -> list[dict[str, Any]]:
    found = dmz.status()["workers"]
    assert isinstance(found, list)
    return found


def pids(dmz: DmzNode) -> list[int]:
    return [worker["pid"] for worker in workers(dmz)]


def served_by(dmz: DmzNode) -> list[int]:
    """Connections that are open at each worker's end, by the kernel's count of descriptors."""
    return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids(dmz)]


def close(clients: list[RawClient]) -> None:
    for client in clients:
        client.close()


def on_each_worker(dmz: DmzNode, make: Callable[[], RawClient]) -> list[RawClient]:
    """Clients until every worker has at least one: the kernel spreads connections by a hash."""
    before = served_by(dmz)
    clients: list[RawClient] = []

    def all_have_one() -> bool:
        clients.append(make())
        assert clients[-1].request().status == 200
        now = served_by(dmz)
        return all(b < n for b, n in zip(before, now, strict=True))

    wait_until(all_have_one, "every worker has a client")
    return clients


def test_one_tunnel_serves_the_clients_of_all_workers(world: World) -> None:
    pair = world.pair({"workers": 3})
    clients = on_each_worker(pair.dmz, pair.client)
    body = os.urandom(300_000)
    for client in clients:
        assert client.request("POST", "/echo", body=body).status == 200
        assert client.request("GET", "/size/1000000").status in (200, 404)
    status = pair.dmz.status()
    assert status["external"][0]["connections"] == len(clients)
    assert status["external"][0]["exchanges"] >= 3 * len(clients)
    assert len(status["tunnels"]) == 1 and len(status["workers"]) == 3
    assert status["registration"][0]["tunnels"] == 1
    service = status["services"][0]
    assert service["tunnels"] == 1
    assert service["exchanges"] == status["external"][0]["exchanges"], "an exchange is counted once"
    for client in clients:
        client.close()


def test_few_tunnels_are_spread_over_the_workers(world: World) -> None:
    pair = world.pair(TWO, tunnels=2)
    pair.dmz.wait_agents(2)
    os.kill(pids(pair.dmz)[0], signal.SIGKILL)
    wait_until(lambda: workers(pair.dmz)[0]["restarts"] == 1, "it is replaced")
    pair.dmz.wait_agents(2)
    assert pair.agent.status()["connect"][0]["lost"] == 1, "each worker had one"


def test_a_killed_worker_takes_only_its_own_requests_and_is_replaced(world: World) -> None:
    pair = world.pair(TWO, tunnels=2)
    pair.dmz.wait_agents(2)
    clients = on_each_worker(pair.dmz, pair.client)
    victim, survivor = pids(pair.dmz)
    stop = threading.Event()
    outcome: list[list[object]] = [[] for _ in clients]

    def work(client: RawClient, seen: list[object]) -> None:
        try:
            while not stop.is_set():
                seen.append(client.request().status)
        except Exception as error:
            seen.append(error)

    threads = [
        threading.Thread(target=work, args=(client, seen))
        for client, seen in zip(clients, outcome, strict=True)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: all(len(seen) > 20 for seen in outcome), "requests run")
    os.kill(victim, signal.SIGKILL)
    replaced = wait_until(lambda: (now := pids(pair.dmz))[0] not in (0, victim) and now, "another worker")
    assert replaced[1] == survivor
    wait_until(lambda: workers(pair.dmz)[0]["state"] == "up", "it serves")
    assert workers(pair.dmz)[0]["restarts"] == 1
    counts = [len(seen) for seen in outcome]
    wait_until(
        lambda: any(len(seen) > count + 20 for seen, count in zip(outcome, counts, strict=True)),
        "the survivor's requests go on",
    )
    stop.set()
    for thread in threads:
        thread.join()
    lost = [seen for seen in outcome if not isinstance(seen[-1], int)]
    kept = [seen for seen in outcome if isinstance(seen[-1], int)]
    assert kept and lost
    assert all(status == 200 for seen in kept for status in seen), kept
    assert all(status == 200 for seen in lost for status in seen[:-1])
    close(clients)
    close(on_each_worker(pair.dmz, pair.client))
    wait_equal(lambda: pair.dmz.status()["external"][0]["connections"], 0, "all have gone")


def test_limits_hold_for_all_workers_together(world: World) -> None:
    origin = world.origin()
    dmz = world.dmz(TWO, start=False)
    config = dmz.config
    config["external"][0]["limits"] = {"connections": 6}
    config["registration"][0]["limits"] = {"connections": 2}
    dmz.write(config)
    dmz.start()
    world.agent(dmz.registration_url(), [everything(origin)], tunnels=1)
    clients = [dmz.client() for _ in range(6)]
    assert [client.request().status for client in clients] == [200] * 6
    with dmz.client() as seventh:
        assert seventh.request().status == 503
    clients.pop().close()

    def another() -> bool:
        with dmz.client() as client:
            return client.request().status == 200

    wait_until(another, "room again")
    world.agent(dmz.registration_url(), [everything(origin)], tunnels=1)
    third = world.agent(dmz.registration_url(), [everything(origin)], tunnels=1, start=False)
    third.start(ready=False)
    third.process.wait_for_line("all the tunnels that it may have")
    for client in clients:
        client.close()


def test_the_limit_per_address_holds_for_all_workers_together(world: World) -> None:
    """Also when a worker has died with some of them."""
    dmz = world.dmz({**TWO, "limits": {"connections_per_address": 4}}, start=False)
    dmz.write({**dmz.config, "services": [everything(world.origin())]})
    dmz.start()

    def statuses(count: int) -> list[int]:
        clients = [dmz.client() for _ in range(count)]
        found = [client.request().status for client in clients]
        close(clients)
        return found

    wait_equal(lambda: sorted(statuses(12)), [200] * 4 + [503] * 8, "four of twelve")
    wait_equal(lambda: dmz.status()["external"][0]["connections"], 0, "they have gone")
    kept = [dmz.client() for _ in range(4)]
    assert [client.request().status for client in kept] == [200] * 4
    other = socket.create_connection(dmz.external, source_address=("127.0.0.9", 0))
    other.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert other.recv(100).startswith(b"HTTP/1.1 200")
    other.close()
    for worker in dmz.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    wait_until(lambda: all(each["restarts"] for each in dmz.status()["workers"]), "all workers are others")
    close(kept)
    wait_equal(lambda: sorted(statuses(12)), [200] * 4 + [503] * 8, "four of twelve again")


def test_a_service_belongs_to_one_user_whatever_the_worker(world: World) -> None:
    from broker.config.tokens import new_token, token_hash

    tokens = {name: new_token() for name in ("one", "two")}
    users = [
        {"name": name, "tokens": [token_hash(token)], "may": {"services": ["*"], "tunnels": 2}}
        for name, token in tokens.items()
    ]
    for name, token in tokens.items():
        (world.directory / f"{name}.token").write_text(token.reveal())
    origin = world.origin()
    dmz = world.dmz({"workers": 3, "users": users})

    def agent(name: str, tunnels: int, ready: bool = True) -> Any:
        extra = {"admin": {"listen": loopback()}}
        made = world.agent(dmz.registration_url(), [everything(origin)], tunnels, extra, start=False)
        made.config["connect"][0]["token_file"] = f"{name}.token"
        made.write(made.config)
        return made.start(ready)

    agent("one", 2)
    dmz.wait_agents(2)
    agent("two", 1, ready=False).process.wait_for_line("taken by another user")
    agent("one", 1, ready=False).process.wait_for_line("has the 2 tunnels that are allowed")
    assert len(dmz.status()["tunnels"]) == 2


def test_a_new_login_evicts_the_old_one_in_another_worker(world: World) -> None:
    dmz = world.dmz(TWO)
    services = [{"match": "/"}]
    first = HandAgent(dmz.registration_at(), services, instance="ab" * 16)
    # The second connection goes to the worker that has none of this host.
    second = HandAgent(dmz.registration_at(), services, instance="ab" * 16)
    with first, second, dmz.client() as client:
        assert "replaced" in first.expect_death()[1]
        client.send_request()
        stream, head, _ = second.accept()
        assert head.startswith(b"GET / ")
        second.reply(stream, b"hello")
        assert client.read_response().body == b"hello"
        assert len(dmz.status()["tunnels"]) == 1


def test_bodies_pass_relays_under_flow_control(world: World) -> None:
    """Both ways, larger than any window, and a reader that is slow holds its sender back."""
    pair = world.pair(TWO)
    body = pattern(8 << 20)

    def download(connection: Connection, _: Head) -> None:
        connection.answer(body=body)

    pair.origin.on("/large", download)
    for client in on_each_worker(pair.dmz, pair.client):
        with client:
            echoed = client.request("PUT", "/echo", body=body)
            assert echoed.status == 200
            response = client.request("GET", "/large", digest=True)
            assert (response.size, response.digest) == (len(body), sha256(body))
    slow = on_each_worker(pair.dmz, lambda: pair.client(receive_buffer=4096))
    for client in slow:
        client.send_request("GET", "/large")
    wait_equal(lambda: pair.dmz.status()["external"][0]["active"], len(slow), "they stand still")
    assert pair.dmz.status()["memory"]["buffer_bytes"] < len(slow) * (4 << 20)
    for client in slow:
        assert client.read_response(digest=True).digest == sha256(body)
        client.close()


def test_hand_over_with_workers(world: World) -> None:
    pair = world.pair(TWO, tunnels=2)
    with last_ends(pair.dmz) as seen, load(pair.address) as running:
        for _ in range(2):
            running.wait_for(50)
            seen.append(hand_over(pair.dmz, seen[-1]))
            running.wait_for(50)
            wait_until(lambda: gone(seen[-2]), "the old supervisor has ended", 2 * DEADLINE)
        wait_equal(lambda: pair.dmz.status()["pid"], seen[-1], "who answers at the admin port")
    pair.dmz.process.assert_clean()


def test_the_end_of_the_supervisor_ends_all(world: World) -> None:
    pair = world.pair(TWO)
    family = pids(pair.dmz)
    pair.dmz.process.kill()
    for pid in family:
        wait_until(lambda: gone(pid), "a worker has ended")  # noqa: B023
    pair.dmz.start()
    pair.dmz.wait_agents(1)
    assert pair.fetch().status == 200


def test_a_second_node_on_the_same_port_is_refused(world: World) -> None:
    dmz = world.dmz(TWO)
    second = world.dmz({**TWO, "external": [{"name": "web", "listen": dmz.config["external"][0]["listen"]}]},
                       start=False)  # fmt: skip
    second.start(ready=False)
    second.process.expect_exit(1)
    assert any("another process listens there" in line for line in second.process.stderr)
    second.processes.clear()


def test_reload_is_all_or_nothing(world: World) -> None:
    pair = world.pair(TWO)
    good = pair.dmz.config
    second = loopback()
    with pair.client() as held:
        assert held.request().status == 200
        pair.dmz.write({**good, "external": [*good["external"], {"name": "b", "listen": second}]})
        assert pair.dmz.admin_post("/reload").status == 200
        close(on_each_worker(pair.dmz, lambda: RawClient(pair.dmz.external_at(1))))
        pair.dmz.write({**good, "external": [{"listen": "nonsense"}]})
        assert pair.dmz.admin_post("/reload").status == 422
        assert held.request().status == 200
        pair.dmz.write(good)
        assert pair.dmz.admin_post("/reload").status == 200
        assert held.request().status == 200
    status = pair.dmz.status()
    assert [port["name"] for port in status["external"]] == ["web"]
    assert status["reloads"] == {"ok": 2, "failed": 1}


def test_a_reload_while_a_worker_drains(world: World) -> None:
    """It has given its ports away already, and takes no part; its request ends."""
    gate = threading.Event()
    origin = world.origin()

    def slow(connection: Connection, _head: Head) -> None:
        connection.wait(gate)
        connection.answer(200, b"done")

    target = origin.on("/slow", slow)
    dmz = world.dmz({**TWO, "services": [everything(origin)]})
    with dmz.client() as client:
        client.send_request(target=target)
        wait_until(lambda: origin.received(b"/slow"), "the request is under way")
        before = pids(dmz)
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        dmz.process.wait_for_line("draining: SIGTERM")
        wait_until(lambda: len([pid for pid in before if gone(pid)]) == 1, "one has nothing to do and ends")
        dmz.write({**dmz.config, "limits": {"uri": 100}})
        answer = dmz.admin_post("/reload")
        assert answer.status == 200, answer.body
        gate.set()
        assert client.read_response().body == b"done"
    wait_until(lambda: all(gone(pid) for pid in before), "both are others")
    wait_equal(lambda: dmz.fetch("/" + "u" * 200).status, 414, "all workers have read it")


def test_drain_waits_for_what_runs_in_any_worker(world: World) -> None:
    pair: Pair = world.pair(TWO)
    clients = on_each_worker(pair.dmz, pair.client)
    for client in clients:
        client.send(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
    wait_equal(lambda: pair.dmz.status()["external"][0]["active"], len(clients), "requests run")
    pair.dmz.process.terminate()
    pair.dmz.process.wait_for_line("draining")
    for client in clients:
        client.send(b"cd")
        assert client.read_response("POST").status == 200
        client.close()
    pair.dmz.process.expect_exit(0)
