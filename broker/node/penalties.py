"""Penalties of a node with several workers: counted by the supervisor, enforced by every worker.

A network's logins come to all workers. Were each to count by itself, guessing would be cheaper by their
number, and an agent that is logged in at one of them would not protect its neighbours at the others.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from broker.config.model import RegistrationPort
from broker.observe.limited import Limiter
from broker.ports.penalties import Kind, Penalties
from broker.ports.registration import punished

log = logging.getLogger("broker.node")

Message = dict[str, Any]
KINDS: dict[str, Kind] = {"failed": "failed", "broken": "broken", "slow": "slow"}


class PenaltyBook:
    """`tell` brings a message to every worker."""

    def __init__(self, tell: Callable[[Message], None]) -> None:
        self._tell = tell
        self._limiter = Limiter()
        self._ports: dict[str, Penalties] = {}
        self._tunnels: dict[int, Counter[tuple[str, str]]] = {}  # by worker: of a port and a network

    def configure(self, ports: Iterable[RegistrationPort]) -> None:
        """These are the ports from now on; those that stay keep what they know."""
        before, self._ports = self._ports, {}
        for port in ports:
            settings = port.strangers.penalties
            known = before.get(port.name) or Penalties(settings)
            known.settings = settings
            self._ports[port.name] = known

    def on_message(self, worker: int, message: Message) -> None:
        """What a worker has seen: a failure, or a tunnel that has come or gone."""
        port, network, what = message["port"], message["network"], message["what"]
        penalties = self._ports.get(port)
        if penalties is None:
            return
        tunnels = self._tunnels.setdefault(worker, Counter())
        if what in KINDS:
            wait = penalties.punish(network, KINDS[what])
            if wait:
                self._tell(order(port, [(network, wait)]))
                held = self._limiter.passes((port, network))
                if held is not None:
                    log.warning("%s", punished(port, network, wait))
        elif what == "arrived":
            tunnels[port, network] += 1
            if penalties.wait(network):
                self._tell(order(port, [(network, 0.0)]))
            penalties.arrived(network)
        elif what == "left" and tunnels[port, network]:
            tunnels[port, network] -= 1
            penalties.left(network)

    def lost(self, worker: int) -> None:
        """It has ended, with all its tunnels."""
        for (port, network), count in self._tunnels.pop(worker, Counter()).items():
            for _ in range(count if port in self._ports else 0):
                self._ports[port].left(network)

    def orders(self) -> list[Message]:
        """For a new worker: all that is enforced."""
        return [order(port, penalties.enforced()) for port, penalties in self._ports.items()]


def order(port: str, networks: Iterable[tuple[str, float]]) -> Message:
    return {"do": "penalties", "port": port, "networks": [list(each) for each in networks]}
