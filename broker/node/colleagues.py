"""The other workers of a node, as one worker sees them.

A request for a service that only another worker's tunnels lead to goes to that worker over a **relay**: a
tunnel over a Unix socket, with the same session protocol, one for each pair of workers and registration port.
What comes over a relay goes to an agent's tunnel or back, never to another relay.

The rest goes through the supervisor: claims of logins (ledger.py), and which services each worker reaches.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from _fastpath.connection import Headcount
from _fastpath.crowd import Crowd
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.tunnel import Tunnel
from broker.config import model
from broker.config.model import Match, RegistrationPort
from broker.node.board import Board
from broker.node.channel import Channel, ChannelLost
from broker.ports.penalties import SharedPenalties
from broker.tunnel.directory import Entry
from broker.tunnel.ledger import Claim, MemberKey, Verdict, pack_claim, parse_verdict
from broker.tunnel.messages import pack_service, parse_service
from broker.tunnel.registry import Registry

log = logging.getLogger("broker.node")

WINDOW = 262144  # a relay never leaves the machine
STREAMS = 65535
MEMORY = 256 * model.MIB
SILENCE_MS = 60_000  # the supervisor ends a worker that hangs; one that has died has closed its socket

Change = list[Any]  # what has happened (directory.py: on_reach), service, owner


@dataclass(slots=True, eq=False)
class Relay:
    worker: int
    tunnel: Tunnel
    services: set[Match] = field(default_factory=set)


class Colleagues:
    """`channel` leads to the supervisor."""

    def __init__(self, reactor: Reactor, index: int, board: Board, channel: Channel) -> None:
        self.index = index
        self._reactor = reactor
        self._board = board
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._registries: dict[str, Registry] = {}
        self._relays: dict[tuple[str, int], Relay] = {}
        self._changes: dict[str, list[Change]] = {}  # not told yet, by registration port
        self._tasks: set[asyncio.Task[None]] = set()
        self._penalties: dict[str, SharedPenalties] = {}

    # --- what the node's parts tell -------------------------------------------------------------

    def add(self, registry: Registry) -> None:
        """A registration port has opened."""
        self._registries[registry.name] = registry
        registry.arbiter = self

        def on_reach(what: str, service: Match, owner: str) -> None:
            if not self._changes:
                self._loop.call_soon(self._tell_changes)
            self._changes.setdefault(registry.name, []).append([what, pack_service(service), owner])

        registry.directory.on_reach = on_reach
        registry.directory.on_doubt = lambda service, relay: self._ask(registry.name, service, relay)

    def remove(self, registry: Registry) -> None:
        if self._registries.get(registry.name) is registry:
            del self._registries[registry.name]
        for (name, _), relay in list(self._relays.items()):
            if name == registry.name:
                relay.tunnel.close(0, "the registration port is closed")

    def on_table(self, name: str, table: RouteTable) -> None:
        """What comes over relays is routed as what comes from clients."""
        for (port, _), relay in self._relays.items():
            if port == name:
                relay.tunnel.swap(table)

    def counts(self, port: str) -> tuple[Headcount, Crowd]:
        """Connections of an external port, and those of each address."""
        return self._board.headcount(port, self.index), self._board.crowd(port, self.index)

    def penalties(self, port: RegistrationPort) -> SharedPenalties:
        """Those of a registration port that has opened."""

        def tell(what: str, network: str) -> None:
            self._channel.send({"do": "seen", "port": port.name, "what": what, "network": network})

        made = SharedPenalties(port.strangers.penalties, tell, counts=self.index == 0)
        self._penalties[port.name] = made
        return made

    # --- Arbiter --------------------------------------------------------------------------------

    def claim(self, claim: Claim, then: Callable[[Verdict], None]) -> None:
        task = self._loop.create_task(self._claim(claim, then))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _claim(self, claim: Claim, then: Callable[[Verdict], None]) -> None:
        try:
            answer, _ = await self._channel.ask({"do": "claim", **pack_claim(claim)})
        except ChannelLost:
            return  # this worker ends
        then(parse_verdict(answer))

    def left(self, port: str, key: MemberKey, generation: int) -> None:
        self._channel.send({"do": "left", "port": port, "key": list(key), "generation": generation})

    # --- what the supervisor tells --------------------------------------------------------------

    def link(self, port: str, worker: int, sock: socket.socket, *, dials: bool) -> None:
        """Here is one end of a socket pair; the other one is that worker's."""
        registry = self._registries.get(port)
        if registry is None:
            sock.close()
            return
        sock.setblocking(False)
        tunnel = Tunnel(
            self._reactor,
            sock.fileno(),
            dialled=dials,
            name=f"relay to worker {worker}",
            routes=registry.directory.table,
            local_window=WINDOW,
            peer_window=WINDOW,
            local_streams=STREAMS,
            peer_streams=STREAMS,
            silence=SILENCE_MS,
            tunnel_memory=MEMORY,
            on_control=lambda _tunnel, _payload: None,
            on_close=lambda tunnel, _code, reason: self._on_close(port, tunnel, reason),
            relay=True,
        )
        sock.detach()
        self._relays[port, worker] = Relay(worker, tunnel)
        self._tell(registry, worker, registry.directory.entries())

    def on_doubt(self, port: str, worker: int, packed: dict[str, str]) -> None:
        """Another worker was refused a request for a service and wants to know whether we reach it now."""
        registry = self._registries.get(port)
        service = parse_service(packed)
        entry = registry.directory.entry(service) if registry is not None else None
        if registry is not None and entry is not None:
            self._tell(registry, worker, [(service, entry)])

    def _ask(self, port: str, service: Match, relay: Tunnel) -> None:
        for (name, worker), each in self._relays.items():
            if name == port and each.tunnel is relay:
                told = {"do": "doubt", "port": port, "service": pack_service(service), "to": worker}
                self._channel.send(told)

    def _tell(self, registry: Registry, worker: int, entries: Iterable[tuple[Match, Entry]]) -> None:
        """One other worker is told what we reach, and what we know; after all that was told to everybody."""
        self._tell_changes()
        changes = [
            ["open" if entry.direct else "know", pack_service(service), entry.owner]
            for service, entry in entries
        ]
        self._channel.send({"do": "services", "port": registry.name, "changes": changes, "to": worker})

    def on_services(self, port: str, worker: int, changes: list[Change]) -> None:
        """What another worker reaches now, or no more."""
        relay, registry = self._relays.get((port, worker)), self._registries.get(port)
        if relay is None or registry is None:
            return
        for what, packed, owner in changes:
            service = parse_service(packed)
            if what == "open":
                relay.services.add(service)
                registry.directory.open(service, relay.tunnel, owner)
                registry.arrivals.arrived()
            elif what == "know":
                registry.directory.know(service, owner)
            elif service in relay.services:
                relay.services.discard(service)
                end = registry.directory.leave if what == "leave" else registry.directory.withdraw
                end(service, relay.tunnel)
        registry.directory.publish()

    def on_penalties(self, port: str, networks: list[tuple[str, float]]) -> None:
        """Networks whose logins are refused for so many seconds."""
        penalties = self._penalties.get(port)
        if penalties is not None:
            for network, wait in networks:
                penalties.impose(network, wait)

    @property
    def streams(self) -> int:
        return sum(relay.tunnel.streams for relay in self._relays.values())

    def goodbye(self, reason: str) -> None:
        """Nothing new over relays; what runs in them ends."""
        for relay in self._relays.values():
            relay.tunnel.goaway(0, reason)

    def close(self) -> None:
        for relay in list(self._relays.values()):
            relay.tunnel.close(0, "the worker ends")

    def _tell_changes(self) -> None:
        changes, self._changes = self._changes, {}
        for port, told in changes.items():
            self._channel.send({"do": "services", "port": port, "changes": told, "to": None})

    def _on_close(self, port: str, tunnel: Tunnel, reason: str) -> None:
        found = next((key for key, relay in self._relays.items() if relay.tunnel is tunnel), None)
        if found is None:
            return
        relay = self._relays.pop(found)
        log.info("the relay to worker %d is over: %s", relay.worker, reason)
        registry = self._registries.get(port)
        if registry is not None:
            for service in relay.services:
                registry.directory.leave(service, tunnel)
            registry.directory.publish()
