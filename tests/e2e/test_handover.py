"""A new process takes over from a running node: no request fails, whatever the moment."""

import json
import os
import re
import shutil
import signal
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.client import RawClient, connect
from tests.harness.message import Closed, Response
from tests.harness.nodes import DmzNode, World, everything, loopback
from tests.harness.process import family
from tests.harness.waiting import DEADLINE, wait_equal, wait_until

TAKEN_OVER = re.compile(r'"event": "handed-over", "pid": (\d+)')


@dataclass
class Load:
    """Clients that send one request after the other and count what goes wrong."""

    address: tuple[str, int]
    tls: ssl.SSLContext | None = None
    errors: list[str] = field(default_factory=list)
    done: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)

    def keep_alive(self) -> None:
        """Many requests on a connection, and another one when the node closes it in order."""
        client: RawClient | None = None
        while not self._stop.is_set():
            try:
                client = client or self.client()
                response = client.request()
                self._count(response.status)
                if not response.keeps_open:
                    client.close()
                    client = None
            except (OSError, Closed, AssertionError) as error:
                self.errors.append(f"keep-alive: {error!r}")
                client = None
        if client is not None:
            client.close()

    def one_each(self) -> None:
        """A connection for each request."""
        while not self._stop.is_set():
            try:
                with self.client() as client:
                    self._count(client.request("POST", body=b"x" * 1000).status)
            except (OSError, Closed, AssertionError) as error:
                self.errors.append(f"one each: {error!r}")

    def client(self) -> RawClient:
        return RawClient(self.address, tls=self.tls)

    def _count(self, status: int) -> None:
        self.done += 1
        if status != 200:
            self.errors.append(f"status {status}")

    def wait_for(self, more: int) -> None:
        goal = self.done + more
        wait_until(lambda: self.done >= goal or self.errors, "requests go on")
        assert not self.errors, self.errors[:5]


@contextmanager
def load(address: tuple[str, int], clients: int = 2, tls: ssl.SSLContext | None = None) -> Iterator[Load]:
    running = Load(address, tls)
    threads = [
        threading.Thread(target=work)
        for work in (running.keep_alive, running.one_each)
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    try:
        yield running
    finally:
        running._stop.set()
        for thread in threads:
            thread.join()
    assert not running.errors, running.errors[:5]


def successors(dmz: DmzNode) -> list[int]:
    """Process ids of those that have taken over, in their order."""
    return [int(found[1]) for line in list(dmz.process.stderr) if (found := TAKEN_OVER.search(line))]


def hand_over(dmz: DmzNode, pid: int) -> int:
    """Ask the process by its signal; the successor's id."""
    before = len(successors(dmz))
    os.kill(pid, signal.SIGUSR2)
    wait_until(lambda: len(successors(dmz)) > before, f"a successor of {pid}\n{dmz.process.output}")
    return successors(dmz)[-1]


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def last_ends(dmz: DmzNode) -> Iterator[list[int]]:
    """The successors are no children of this process: whichever is the last is ended here."""
    pids = [dmz.process.pid]
    try:
        yield pids
    finally:
        last = (successors(dmz) or pids)[-1]
        if not gone(last):
            os.kill(last, signal.SIGTERM)
        wait_until(lambda: gone(last), f"{last} has ended\n{dmz.process.output}", 2 * DEADLINE)


def test_several_in_a_row_under_load_without_a_failure(world: World) -> None:
    pair = world.pair(tunnels=2)
    with last_ends(pair.dmz) as pids, load(pair.address) as running:
        for _ in range(3):
            running.wait_for(50)
            pids.append(hand_over(pair.dmz, pids[-1]))
            running.wait_for(50)
            old = pids[-2]
            wait_until(lambda: gone(old), f"{old} has ended", 2 * DEADLINE)  # noqa: B023
        wait_equal(lambda: pair.dmz.status()["pid"], pids[-1], "who answers at the admin port")
    pair.dmz.process.assert_clean()


@pytest.mark.parametrize("workers", [1, 2])
def test_over_tls_at_both_ports(world: World, tmp_path: Path, workers: int) -> None:
    """Certificates of clients and agents, too: the new process has read them all before it takes over."""
    authority = Authority(tmp_path)
    files = authority.issue("test.example", "localhost", days=90)
    tls = {"certificates": [files.snippet()], "client": {"mode": "require", "ca": str(authority.ca)}}
    external = {"name": "web", "listen": loopback("https"), "tls": tls}
    registration = {"name": "green", "listen": loopback("https", "localhost"), "tls": tls}
    dmz = world.dmz({"external": [external], "registration": [registration], "workers": workers})
    own = {"ca": str(authority.ca), **authority.issue("agent.example", days=90).snippet()}
    agent = world.agent([], [everything(world.origin())], start=False)
    entry = {"url": dmz.registration_url(), "tunnels": 2, "tls": own}
    agent.write({**agent.config, "connect": [entry]})
    agent.start()
    context = ssl.create_default_context(cafile=str(authority.ca))
    client = authority.issue("client.example", days=90)
    context.load_cert_chain(client.cert, client.key)
    with last_ends(dmz) as pids, load(dmz.external, 1, context) as running:
        for _ in range(2):
            running.wait_for(30)
            pids.append(hand_over(dmz, pids[-1]))
            running.wait_for(30)
    dmz.process.assert_clean()


def test_two_asked_for_at_once_are_one_after_the_other(world: World) -> None:
    """The second one is made by whom the first one has brought, or refused; and none while a node drains."""
    pair = world.pair()
    answers: list[int] = []

    def ask() -> None:
        try:
            answers.append(pair.dmz.admin_post("/upgrade").status)
        except (OSError, Closed):
            answers.append(0)  # the process that was asked has given its admin port away

    with last_ends(pair.dmz), load(pair.address, clients=1) as running:
        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        running.wait_for(30)
        assert 200 in answers
        assert set(answers) <= {200, 409, 0}
    pair.dmz.process.assert_clean()


def test_a_successor_that_dies_while_it_starts_changes_nothing(world: World) -> None:
    pair = world.pair()
    pid = pair.dmz.process.pid
    before = set(family(pid))
    answers: list[Response] = []
    with load(pair.address, clients=1) as running:
        asking = threading.Thread(target=lambda: answers.append(pair.dmz.admin_post("/upgrade")))
        asking.start()
        wait_until(lambda: set(family(pid)) - before, "the successor is there")
        for successor in set(family(pid)) - before:
            os.kill(successor, signal.SIGKILL)
        asking.join()
        assert answers[0].status == 409, answers[0].body
        running.wait_for(30)
        assert pair.dmz.status()["pid"] == pid
    with last_ends(pair.dmz) as pids:
        pids.append(hand_over(pair.dmz, pid))
        wait_equal(lambda: pair.dmz.status()["pid"], pids[-1], "who answers at the admin port")


def test_tcp_connections_and_long_responses_finish_in_the_old_process(world: World) -> None:
    origin = world.origin()
    echo = socket.create_server(("127.0.0.1", 0))
    port = echo.getsockname()[1]
    listen = loopback("tcp", rest="/echo")
    dmz = world.dmz({"external": [{"name": "echo", "listen": listen, "registration": "green"}]})
    agent = world.agent(
        dmz.registration_url(), [everything(origin), {"name": "echo", "upstream": f"tcp://127.0.0.1:{port}"}]
    )
    assert agent.ready()
    with last_ends(dmz) as pids, echo:
        client = connect((dmz.external_at(0)[0], dmz.external_at(0)[1]))
        served, _ = echo.accept()
        client.sendall(b"before")
        assert served.recv(100) == b"before"
        new = hand_over(dmz, pids[0])
        client.sendall(b"after")
        assert served.recv(100) == b"after"
        served.sendall(b"answer")
        assert client.recv(100) == b"answer"
        assert not gone(pids[0])
        wait_equal(lambda: dmz.status()["pid"], new, "who answers at the admin port")
        with connect(dmz.external_at(0)) as second:  # the new process has the port, and the agent
            again, _ = echo.accept()
            second.sendall(b"second")
            assert again.recv(100) == b"second"
            again.close()
        client.close()
        served.close()
        wait_until(lambda: gone(pids[0]), "the old process has ended", 2 * DEADLINE)


def test_a_successor_that_cannot_start_changes_nothing(world: World) -> None:
    pair = world.pair()
    good = pair.dmz.config
    address = pair.address
    pair.dmz.write({**good, "external": [{"listen": "nonsense://127.0.0.1:1"}]})
    with load(address, clients=1) as running:
        refused = pair.dmz.admin_post("/upgrade")
        assert refused.status == 409
        detail = json.loads(refused.body)["detail"]
        assert "external[0].listen" in detail, detail
        # A port that cannot be bound is found out later, by the node itself.
        with socket.create_server(("127.0.0.1", 0)) as taken:
            extra = {"listen": f"http://127.0.0.1:{taken.getsockname()[1]}"}
            pair.dmz.write({**good, "external": [*good["external"], extra]})
            detail = json.loads(pair.dmz.admin_post("/upgrade").body)["detail"]
            assert "another process listens there" in detail, detail
        running.wait_for(20)
    pair.dmz.write(good)
    assert pair.dmz.status()["pid"] == pair.dmz.process.pid
    assert pair.dmz.status()["state"] == "serving"
    # Agents are still let in.
    pair.agent.stop()
    pair.agent.start()
    assert pair.fetch().status == 200


def test_the_new_process_has_the_new_configuration(world: World) -> None:
    pair = world.pair()
    second = loopback()
    changed = {**pair.dmz.config, "external": [*pair.dmz.config["external"], {"name": "b", "listen": second}]}
    pair.dmz.write(changed)
    with last_ends(pair.dmz):
        answer = pair.dmz.admin_post("/upgrade")
        assert answer.status == 200, answer.body
        new = json.loads(answer.body)["pid"]
        wait_equal(lambda: pair.dmz.status()["pid"], new, "who answers at the admin port")
        with RawClient(pair.dmz.external_at(1)) as client:
            assert client.request().status == 200


def test_an_agent_hands_over_too(world: World) -> None:
    pair = world.pair()
    with last_ends(pair.agent) as pids, load(pair.address, clients=1) as running:  # type: ignore[arg-type]
        running.wait_for(20)
        hand_over(pair.agent, pids[0])  # type: ignore[arg-type]
        running.wait_for(20)
        wait_until(lambda: gone(pids[0]), "the old agent has ended", 2 * DEADLINE)


def test_the_service_manager_is_told(world: World, tmp_path: Path) -> None:
    path = tmp_path / "notify"
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(str(path))
    heard: list[str] = []

    def listen() -> None:
        while (message := told.recv(4096)) != b"end":
            heard.extend(message.decode().split("\n"))

    def wait_told(what: str) -> None:
        wait_until(lambda: what in heard, f"{what} is told")
        del heard[: heard.index(what) + 1]

    dmz = world.dmz(start=False)
    dmz.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
    thread = threading.Thread(target=listen)
    thread.start()
    try:
        dmz.start()
        for what in ("READY=1", "WATCHDOG=1", "WATCHDOG=1"):
            wait_told(what)
        os.kill(dmz.process.pid, signal.SIGHUP)
        wait_told("RELOADING=1")
        assert heard[0].startswith("MONOTONIC_USEC=")
        wait_told("READY=1")
        with last_ends(dmz) as pids:
            pids.append(hand_over(dmz, pids[0]))
            wait_told(f"MAINPID={pids[1]}")
            wait_until(lambda: gone(pids[0]), "the old process has ended")
            assert "STOPPING=1" not in heard
            heard.clear()
            wait_told("WATCHDOG=1")  # of the new one
        wait_told("STOPPING=1")
    finally:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", str(path))
        thread.join()
        told.close()


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="there is no systemd here")
def test_systemd_socket_activate(world: World) -> None:
    origin = world.origin()
    dmz = world.dmz(start=False)
    ports = [dmz.external, dmz.registration_at(), dmz.admin]
    listens = [f"--listen={host}:{port}" for host, port in ports]
    run = [sys.executable, "-m", "broker", "serve", str(dmz.path)]
    env = [f"--setenv={name}" for name in ("PYTHONPATH", "PYTHONUNBUFFERED")]
    args = ["systemd-socket-activate", *listens, *env, *run]
    dmz.launch(f"import os; os.execvp({args[0]!r}, {args!r})")
    agent = world.agent(dmz.registration_url(), [everything(origin)])
    assert agent.ready()
    assert dmz.fetch().status == 200


@pytest.mark.parametrize("by", ["name", "address"])
def test_sockets_from_a_service_manager(world: World, by: str) -> None:
    """What systemd does, by a small launcher: bind, put them at descriptor 3 and on, and execute."""
    origin = world.origin()
    dmz = world.dmz(start=False)
    external, registration = dmz.external, dmz.registration_at()
    names = "web:green:admin" if by == "name" else "x:y:z"
    launcher = f"""
import os, socket, sys
os.closerange(3, 20)
for place, (host, port) in enumerate([{external}, {registration}, {dmz.admin}], 3):
    sock = socket.create_server((host, port))
    assert sock.fileno() == place
    os.set_inheritable(place, True)
    sock.detach()
os.environ.update(LISTEN_FDS="3", LISTEN_PID=str(os.getpid()), LISTEN_FDNAMES="{names}")
os.execv(sys.executable, [sys.executable, "-m", "broker", "serve", {str(dmz.path)!r}])
"""
    dmz.launch(launcher)
    agent = world.agent(dmz.registration_url(), [everything(origin)])
    assert agent.ready()
    assert dmz.fetch().status == 200
    with last_ends(dmz) as pids:
        hand_over(dmz, pids[0])  # the sockets go on to the next one
        assert dmz.fetch().status == 200
