"""The services that agents announced at one registration port, and the routing table made of them.

The table changes only when a service appears or is forgotten, not when an agent comes or goes: a service
whose agents are away stays known, so that its requests wait for them. How many may do so is bounded.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from _fastpath.group import Group
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.tunnel import Tunnel
from broker.config.model import Match
from broker.identity.patterns import SERVER_PREFIX, wider_hosts, wider_paths

MAX_AWAY = 4096  # services that stay known while all their agents are away
MAX_TUNNELS = 50_000  # of one service
MAX_KNOWN = 50_000  # services of all agents of one registration port
# What a table takes to build beyond this is followed by a pause of so many times that, lest a thousand
# agents that come back, each with services of its own, keep the loop busy with tables.
REBUILD_FREE_S = 0.002
REBUILD_PAUSE = 4.0


Cut = tuple[int, str]  # a code of end.pxd, and why


@dataclass(slots=True, eq=False)
class Entry:
    """One known service: whose it is, and the tunnels that lead to it now."""

    group: Group
    owner: str
    tunnels: set[Tunnel] = field(default_factory=set)  # of agents, and relays to workers that have some

    @property
    def direct(self) -> bool:
        return any(not tunnel.relay for tunnel in self.tunnels)


class Directory:
    """Changes are collected and become visible with `publish`, which ends in `on_table`.

    `on_delay`: that is put off, so that a table follows in which there may be services of agents that
    have been told that they are registered.
    """

    def __init__(
        self,
        reactor: Reactor,
        on_table: Callable[[RouteTable], None],
        on_delay: Callable[[], None],
        call_later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self.table = RouteTable([])
        self._reactor = reactor
        self._on_table = on_table
        self._on_delay = on_delay
        self._call_later = call_later
        self._entries: dict[Match, Entry] = {}
        self._hosts: Counter[str] = Counter()  # of the entries
        self._away: dict[Match, None] = {}  # without a tunnel, the longest away first
        self._changed = False
        self._waiting = False  # a publish is planned
        # (what, service, owner) of our own tunnels: "open", even if it was; "leave", "withdraw": the last;
        # and "know" of services that are known without one.
        self.on_reach: Callable[[str, Match, str], None] | None = None
        # A worker behind a relay has refused a request for the service: ask it whether it still reaches it.
        self.on_doubt: Callable[[Match, Tunnel], None] | None = None
        self._not_before = 0.0

    def owner(self, service: Match) -> str | None:
        """The user whose agents lead to the service now; None where there is none."""
        entry = self._entries.get(service)
        return entry.owner if entry is not None and entry.tunnels else None

    def rival(self, service: Match, user: str) -> Match | None:
        """What another user has now that covers the service; None: nothing, or his own is nearer."""
        for pattern in self._wider(service):
            owner = self.owner(pattern)
            if owner is not None:
                return pattern if owner != user else None
        return None

    def _wider(self, service: Match) -> Iterator[Match]:
        """Known patterns that cover the service, itself too, the narrowest first."""
        if service.name.startswith(SERVER_PREFIX):
            hosts = wider_hosts(service.name.removeprefix(SERVER_PREFIX))
            yield from (Match(name=SERVER_PREFIX + (host or "*")) for host in hosts)
        elif service.name:
            yield service
        else:
            for host in wider_hosts(service.host):
                if host in self._hosts:
                    yield from (Match(host=host, path=path) for path in wider_paths(service.path))

    def entry(self, service: Match) -> Entry | None:
        return self._entries.get(service)

    def has_room(self, service: Match) -> bool:
        entry = self._entries.get(service)
        return len(self._entries) < MAX_KNOWN if entry is None else len(entry.tunnels) < MAX_TUNNELS

    def open(self, service: Match, tunnel: Tunnel, owner: str) -> None:
        """The tunnel leads to the service from now on; requests that waited for it go at once."""
        entry = self._entries.get(service)
        if entry is None:
            entry = self._remember(service, owner)
        if not entry.tunnels:
            entry.owner = owner
            self._away.pop(service, None)
        entry.tunnels.add(tunnel)
        entry.group.add(tunnel)
        if not tunnel.relay:
            self._tell("open", service, entry)

    def know(self, service: Match, owner: str) -> None:
        """The service is known from before; its agents are away, and requests wait for them."""
        if service not in self._entries and len(self._away) < MAX_AWAY:
            entry = self._remember(service, owner)
            self._away[service] = None
            self._tell("know", service, entry)

    def withdraw(self, service: Match, tunnel: Tunnel, cut: Cut | None = None) -> None:
        """The agent is there, but has the service no more: where it was the last, nothing is waited for.

        Streams that run go on, or end with the code and for the reason of `cut`.
        """
        group = self._entries[service].group
        if not self._detach(service, tunnel, "withdraw"):
            self._forget(service)
        if cut is not None:
            group.cut(tunnel, *cut)

    def leave(self, service: Match, tunnel: Tunnel) -> None:
        """The agent went away: the service stays known, and its requests wait for a while."""
        if not self._detach(service, tunnel, "leave"):
            self._away[service] = None
            if len(self._away) > MAX_AWAY:
                self._forget(next(iter(self._away)))

    def publish(self) -> None:
        """Hand the table on where it has changed: at once, or soon where building it takes long."""
        if not self._changed or self._waiting:
            return
        pause = self._not_before - time.monotonic()
        if pause > 0:
            self._waiting = True
            self._on_delay()
            self._call_later(pause, self._publish_late)
            return
        started = time.thread_time()  # other processes may have had the processor meanwhile
        self._changed = False
        self.table = self._build()
        self._on_table(self.table)
        taken = time.thread_time() - started
        self._not_before = time.monotonic() + REBUILD_PAUSE * max(taken - REBUILD_FREE_S, 0)

    def entries(self) -> list[tuple[Match, Entry]]:
        return sorted(self._entries.items(), key=lambda item: str(item[0]))

    def _publish_late(self) -> None:
        self._waiting = False
        self.publish()

    def _detach(self, service: Match, tunnel: Tunnel, what: str) -> int:
        """How many tunnels still lead to the service."""
        entry = self._entries[service]
        entry.tunnels.discard(tunnel)
        entry.group.remove(tunnel)
        if not tunnel.relay and not entry.direct:
            self._tell(what, service, entry)
        return len(entry.tunnels)

    def _tell(self, what: str, service: Match, entry: Entry) -> None:
        if self.on_reach is not None:
            self.on_reach(what, service, entry.owner)

    def _doubt(self, service: Match, relay: Tunnel) -> None:
        if self.on_doubt is not None:
            self.on_doubt(service, relay)

    def _remember(self, service: Match, owner: str) -> Entry:
        entry = Entry(Group(self._reactor, str(service), lambda relay: self._doubt(service, relay)), owner)
        self._entries[service] = entry
        self._hosts[service.host] += 1
        self._changed = True
        return entry

    def _forget(self, service: Match) -> None:
        del self._entries[service]
        self._hosts[service.host] -= 1
        if not self._hosts[service.host]:
            del self._hosts[service.host]
        self._away.pop(service, None)
        self._changed = True

    def _build(self) -> RouteTable:
        routes = [(key.host, key.path, entry.group) for key, entry in self._entries.items() if not key.name]
        names = {key.name: entry.group for key, entry in self._entries.items() if key.name}
        return RouteTable(routes, names=names)
