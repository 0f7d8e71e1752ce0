"""What a soak does to nodes and links: one fault after the other, so that one agent is always left alone."""

import contextlib
import os
import random
import signal
import time
from collections import Counter

from tests.faults.proxy import FaultProxy
from tests.faults.soak.clients import Outages
from tests.harness.message import Closed
from tests.harness.nodes import Agent, DmzNode, Node
from tests.harness.process import family, rss
from tests.harness.waiting import wait_until

GONE_S = 90.0  # a drain takes timeouts.drain, 30 s, at most


class Chaos:
    def __init__(
        self, dmz: DmzNode, agents: list[Agent], proxies: list[FaultProxy], outages: Outages, seed: int
    ) -> None:
        self.dmz, self.agents, self.proxies = dmz, agents, proxies
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self._outages = outages
        self._base = dmz.config
        # After a hand-over a node is a process that this one has not started.
        self._pids = {node.name: node.process.pid for node in (dmz, *agents)}
        self._leaving: set[int] = set()
        self._faults = [
            *(self.kill, self.freeze, self.replace, self.upgrade, self.reload_agent),
            *(self.cut, self.cut, self.hang, self.narrow, self.delay, self.half_close),
            *(self.reload_dmz, self.upgrade_dmz, self.upgrade_dmz, self.freeze_dmz),
            *(self.kill_worker, self.freeze_worker, self.end_worker, self.kill_dmz, self.restart_dmz),
        ]

    def one(self) -> None:
        fault = self.random.choice(self._faults)
        index = self.random.randrange(len(self.agents))
        fault(self.agents[index], self.proxies[index])
        self.done[fault.__name__] += 1

    def pause(self, least: float, most: float) -> None:
        time.sleep(self.random.uniform(least, most))

    def discard(self) -> None:
        """Whoever has taken over is no child of this process: nobody else would end it."""
        for first in {*self._pids.values(), *self._leaving}:
            for pid in family(first):
                send(pid, signal.SIGKILL)

    def end(self) -> None:
        """Every process that is left, in order, whoever has started it."""
        for proxy in self.proxies:
            proxy.heal()
        for node in (*self.agents, self.dmz):
            self._end(node)
        for pid in self._leaving:
            wait_gone(pid)

    def memory(self) -> int:
        """Resident bytes of the DMZ node as it is now."""
        return sum(rss(pid) for pid in family(self._pids[self.dmz.name]))

    # --- agents and their links -----------------------------------------------------------------

    def kill(self, agent: Agent, _proxy: FaultProxy) -> None:
        self._signal(agent, signal.SIGKILL)
        wait_gone(self._pids[agent.name])
        self.pause(0, 3)
        self._start(agent)

    def freeze(self, agent: Agent, _proxy: FaultProxy) -> None:
        self._signal(agent, signal.SIGSTOP)
        self.pause(0.5, 8)
        self._signal(agent, signal.SIGCONT)

    def replace(self, agent: Agent, _proxy: FaultProxy) -> None:
        self._end(agent)
        self._start(agent)

    def upgrade(self, agent: Agent, _proxy: FaultProxy) -> None:
        self._hand_over(agent)

    def cut(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.cut(self.random.choice([1, None]))

    def hang(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.hang()
        self.pause(0.5, 8)
        proxy.heal()

    def narrow(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.throttle(self.random.choice([20_000, 200_000, 1_000_000]))
        self.pause(1, 6)
        proxy.heal()

    def delay(self, _agent: Agent, proxy: FaultProxy) -> None:
        proxy.up.delay = proxy.down.delay = self.random.uniform(0.01, 0.3)
        self.pause(1, 5)
        proxy.heal()

    def half_close(self, _agent: Agent, proxy: FaultProxy) -> None:
        weather = self.random.choice([proxy.up, proxy.down])
        weather.half_close = True
        self.pause(0.1, 1)
        proxy.heal()

    def reload_agent(self, agent: Agent, _proxy: FaultProxy) -> None:
        link = {**agent.config["connect"][0], "tunnels": self.random.randrange(1, 5)}
        self._reload(agent, {**agent.config, "connect": [link]})

    # --- the DMZ node ---------------------------------------------------------------------------

    def reload_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._reload(self.dmz, {**self._base, "limits": {"headers": self.random.randrange(50, 200)}})

    def upgrade_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._hand_over(self.dmz)

    def freeze_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        """All of it, for long enough that agents may take it for dead."""
        pids = [self._pids[self.dmz.name], *self._workers()]
        for pid in pids:
            send(pid, signal.SIGSTOP)
        self.pause(0.5, 8)
        for pid in pids:
            send(pid, signal.SIGCONT)

    def freeze_worker(self, _agent: Agent, _proxy: FaultProxy) -> None:
        pids = self._workers()
        if pids:
            pid = self.random.choice(pids)
            send(pid, signal.SIGSTOP)
            self.pause(0.5, 8)
            send(pid, signal.SIGCONT)

    def kill_worker(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._lose_worker(signal.SIGKILL)

    def end_worker(self, _agent: Agent, _proxy: FaultProxy) -> None:
        """In order: it drains, and another one takes its place. Nothing fails."""
        for pid in self._workers()[:1]:
            send(pid, signal.SIGTERM)
            self._leaving.add(pid)

    def kill_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._outages.begin()
        workers = self._workers()
        self._signal(self.dmz, signal.SIGKILL)
        self._start_again(workers)

    def restart_dmz(self, _agent: Agent, _proxy: FaultProxy) -> None:
        self._outages.begin()
        self._end(self.dmz)
        self._start_again([])

    def _start_again(self, before: list[int]) -> None:
        """As a service manager does: once nothing is left of the old one."""
        for pid in [self._pids[self.dmz.name], *before]:
            wait_gone(pid)
        self._start(self.dmz)
        self._outages.end()

    def _lose_worker(self, number: int) -> None:
        pids = self._workers()
        if pids:
            self._outages.begin()
            send(self.random.choice(pids), number)
            self.pause(0.5, 1)
            self._outages.end()

    def _workers(self) -> list[int]:
        try:
            return [each["pid"] for each in self.dmz.status().get("workers", ()) if each["pid"]]
        except OSError:
            return []  # the node is down

    # --- both -----------------------------------------------------------------------------------

    def _signal(self, node: DmzNode | Agent, number: int) -> None:
        send(self._pids[node.name], number)

    def _start(self, node: DmzNode | Agent) -> None:
        node.start()
        self._pids[node.name] = node.process.pid

    def _end(self, node: DmzNode | Agent) -> None:
        self._signal(node, signal.SIGTERM)
        wait_gone(self._pids[node.name])

    def _hand_over(self, node: DmzNode | Agent) -> None:
        before = self._pids[node.name]
        answer = node.admin_post("/upgrade")
        assert answer.status == 200, f"{node.name}: {answer.body!r}"
        self._leaving.add(before)
        self._pids[node.name] = wait_until(
            lambda: (pid := _pid_of(node)) != before and pid, f"{node.name} is another process"
        )

    def _reload(self, node: DmzNode | Agent, config: dict[str, object]) -> None:
        node.write(config)
        answer = node.admin_post("/reload")
        assert answer.status == 200, f"{node.name}: {answer.body!r}"


def send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def wait_gone(pid: int) -> None:
    wait_until(lambda: gone(pid), f"process {pid} has ended", GONE_S)


def gone(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def _pid_of(node: Node) -> int | None:
    """Who answers at the admin port; nobody, just when it changes hands."""
    try:
        return int(node.status()["pid"])
    except (OSError, Closed):
        return None
