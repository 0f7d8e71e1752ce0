"""What a running node consists of, and how another configuration changes it.

A change has two steps. `plan` does all that can fail, binding above all, and touches nothing that runs.
`commit` cannot fail: what stays is kept with its connections, what is new starts, what is gone drains.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from _fastpath.exchange import Lobby
from _fastpath.memory import set_memory_limit
from _fastpath.meter import Meters
from _fastpath.reactor import Reactor
from _fastpath.record import Journal
from _fastpath.route import RouteTable
from _fastpath.socket import set_congestion
from broker.config import model
from broker.config.model import Config, Listen
from broker.identity.gates import Gates
from broker.identity.login import Wants
from broker.identity.users import Users
from broker.node.handover import TELL_PAUSE_S, Key, Known
from broker.ports.external import ExternalPort
from broker.ports.registration import LoginSettings, RegistrationPort
from broker.ports.sockets import Inherited, bind, close_all, label
from broker.services.local import LocalServices, at_agent, at_port
from broker.services.resolver import Resolver
from broker.tunnel.directory import Directory
from broker.tunnel.messages import pack_service, parse_service
from broker.tunnel.registry import Registry
from broker.tunnel.uplink import Agent, TunnelSettings, Uplink

if TYPE_CHECKING:
    from broker.node.colleagues import Colleagues

log = logging.getLogger("broker.node")

WINDOW = 65536  # initial stream window; it grows with use
SILENCE_MS = 5000
TUNNEL_MEMORY = 64 * model.MIB  # all windows of one tunnel, at most
NO_ROUTES = RouteTable([])
CODE_REFUSED = 4  # end.pxd

SocketKey = tuple[str, int, str]
Sockets = dict[SocketKey, list[socket.socket]]


@dataclass(frozen=True, slots=True)
class Plan:
    """A configuration whose ports are bound."""

    config: Config
    sockets: Sockets
    fresh: list[socket.socket]  # bound for this plan: to be closed where it is dropped

    def drop(self) -> None:
        close_all(self.fresh)

    def for_agents_only(self) -> Plan:
        """The same without what clients see: the first half of a take-over."""
        return replace(self, config=replace(self.config, external=(), admin=None), fresh=[])


def socket_key(listen: Listen, what: str) -> SocketKey:
    """Ports of one address share their sockets over a reload; port 0 is another one for everybody."""
    return listen.host, listen.port, "" if listen.port else what


def ports_of(config: Config) -> list[tuple[Listen, str]]:
    ports: list[tuple[Listen, str]] = [(port, f"external port {port.name}") for port in config.external]
    ports += [(port, f"registration port {port.name}") for port in config.registration]
    if config.admin is not None:
        ports.append((config.admin, "the admin port"))
    return ports


def plan_for(config: Config, held: Sockets, inherited: Inherited, copies: int = 1) -> Plan:
    """Bind what is not held yet, external ports so many times. ListenError, and then nothing has changed."""
    plan = Plan(config, {}, [])
    try:
        for listen, what in ports_of(config):
            key = socket_key(listen, what)
            sockets = held.get(key)
            if sockets is None:
                several = copies if isinstance(listen, model.ExternalPort) else 1
                sockets = bind(listen, what, inherited, several)
                plan.fresh.extend(sockets)
            plan.sockets[key] = sockets
    except BaseException:
        plan.drop()
        raise
    return plan


def labelled(sockets: Sockets, listens: Iterable[tuple[Listen, str]]) -> list[tuple[str, socket.socket]]:
    return [
        (label(listen, what), sock) for listen, what in listens for sock in sockets[socket_key(listen, what)]
    ]


class Parts:
    def __init__(
        self,
        reactor: Reactor,
        node: str,
        on_change: Callable[[], None],
        journal: Journal | None = None,
    ) -> None:
        self._journal = journal
        self.external: dict[str, ExternalPort] = {}
        self.registration: dict[str, RegistrationPort] = {}
        self.registries: dict[str, Registry] = {}
        self.uplinks: dict[str, Uplink] = {}
        self.agent_services: dict[str, LocalServices] = {}  # by the URL that they are announced at
        self.resolver = Resolver()
        self.users = Users()
        self.gates = Gates(self.users)
        self.inherited = Inherited()
        self.colleagues: Colleagues | None = None  # where this is one of several workers
        self.logins_held = False  # another process accepts agents for us
        self._reactor = reactor
        self._node = node
        self._on_change = on_change
        self.agent = Agent.of_this_process()
        self._sockets: dict[SocketKey, list[socket.socket]] = {}
        self._listens: list[tuple[Listen, str]] = []
        self._retired: set[ExternalPort] = set()
        self._retired_registries: set[Registry] = set()
        self._retired_uplinks: set[Uplink] = set()

    # --- change ---------------------------------------------------------------------------------

    def plan(self, config: Config) -> Plan:
        """Bind what is not bound yet. ListenError, and then nothing has changed."""
        return plan_for(config, self._sockets, self.inherited)

    async def commit(self, plan: Plan) -> None:
        config = plan.config
        before, self._sockets = self._sockets, plan.sockets
        self._listens = ports_of(config)
        set_memory_limit(config.limits.memory)
        set_congestion(config.congestion)
        users = Users(config.users)
        users.follow(self.users)
        self.users = users
        self.gates = Gates(self.users)
        self._commit_registration(config)
        self._commit_external(config)
        await self._commit_uplinks(config)
        for key, sockets in before.items():
            if key not in plan.sockets:
                close_all(sockets)

    def listening(self) -> list[tuple[str, socket.socket]]:
        """All listening sockets, with what they are for."""
        return labelled(self._sockets, self._listens)

    def sockets(self, listen: Listen, what: str) -> list[socket.socket]:
        return self._sockets[socket_key(listen, what)]

    def _commit_registration(self, config: Config) -> None:
        before, self.registration = self.registration, {}
        registries, self.registries = self.registries, {}
        for port in config.registration:
            registry = registries.pop(port.name, None) or self._make_registry(port)
            registry.apply(
                self.users,
                Wants(port.auth, port.bearer),
                max_tunnels=port.limits.connections,
                max_streams=port.limits.streams,
            )
            self.registries[port.name] = registry
            sockets = self.sockets(port, f"registration port {port.name}")
            known = before.get(port.name)
            if known is not None and known.uses(sockets):
                known.configure(port, self._login_settings(port))
                self.registration[port.name] = before.pop(port.name)
        for gone in before.values():
            gone.stop()  # before another port accepts from the same sockets
        for port in config.registration:
            if port.name not in self.registration:
                sockets = self.sockets(port, f"registration port {port.name}")
                opened = RegistrationPort(
                    port,
                    sockets,
                    self._reactor,
                    self.registries[port.name],
                    self._login_settings(port),
                    self._on_change,
                    self.colleagues.penalties(port) if self.colleagues is not None else None,
                )
                if self.logins_held:
                    opened.hold()
                self.registration[port.name] = opened
        for registry in registries.values():
            self._retire_registry(registry, config.timeouts.drain / 1000)

    def _make_registry(self, port: model.RegistrationPort) -> Registry:
        def on_table(table: RouteTable) -> None:
            if self.colleagues is not None:
                self.colleagues.on_table(port.name, table)
            for external in self.external.values():
                if external.config.registration == port.name:
                    external.set_delegated(table)
            registry.arrivals.on_table()

        directory = Directory(
            self._reactor,
            on_table,
            lambda: registry.arrivals.await_table(),
            asyncio.get_running_loop().call_later,
        )
        registry = Registry(
            port.name,
            directory,
            self.users,
            max_tunnels=port.limits.connections,
            max_streams=port.limits.streams,
        )
        if self.colleagues is not None:
            self.colleagues.add(registry)
        return registry

    def _login_settings(self, port: model.RegistrationPort) -> LoginSettings:
        return LoginSettings(
            node=self._node,
            deadline_s=port.timeouts.head / 1000,
            # Agents open no streams in a DMZ node.
            tunnel=TunnelSettings(window=WINDOW, streams=0, silence_ms=SILENCE_MS, memory=TUNNEL_MEMORY),
        )

    def _commit_external(self, config: Config) -> None:
        before, self.external = self.external, {}
        for port in config.external:
            sockets = self.sockets(port, f"external port {port.name}")
            known = before.get(port.name)
            if known is not None and known.uses(sockets) and known.can_become(port):
                known.services.apply(at_port(config.services, port), self.gates)
                known.apply(port, self._delegated(port), self.gates)
                known.set_lobby(self._lobby(port))
                self.external[port.name] = before.pop(port.name)
                continue
            services = LocalServices(self._reactor, self.resolver)
            services.apply(at_port(config.services, port), self.gates)
            opened = ExternalPort(
                port, sockets, self._reactor, services, self._delegated(port), self.gates, self._journal
            )
            opened.set_lobby(self._lobby(port))
            if self.colleagues is not None:
                opened.share_limits(*self.colleagues.counts(port.name))
            self.external[port.name] = opened
        for gone in before.values():
            self._retire_external(gone, config.timeouts.drain / 1000)

    def _delegated(self, port: model.ExternalPort) -> RouteTable:
        registry = self.registries.get(port.registration or "")
        return registry.directory.table if registry is not None else NO_ROUTES

    def _lobby(self, port: model.ExternalPort) -> Lobby | None:
        registry = self.registries.get(port.registration or "")
        return registry.arrivals.lobby if registry is not None else None

    async def _commit_uplinks(self, config: Config) -> None:
        before, self.uplinks = self.uplinks, {}
        settings = TunnelSettings(
            window=WINDOW, streams=config.limits.streams, silence_ms=SILENCE_MS, memory=TUNNEL_MEMORY
        )
        timeout = config.timeouts.connect / 1000
        for connect in config.connect:
            services = self._services_at(connect.url)
            services.apply(at_agent(connect.services))
            uplink = before.pop(connect.url, None)
            if uplink is not None:
                await uplink.apply(connect, services.table, settings, timeout)
            else:
                uplink = Uplink(
                    self._reactor,
                    self.agent,
                    connect,
                    services.table,
                    settings,
                    timeout,
                    self._on_change,
                    services.meters,
                )
                uplink.start()
            self.uplinks[connect.url] = uplink
            uplink.set_down(services.down())
        for gone in before.values():
            await self._retire_uplink(gone, config.timeouts.drain / 1000)

    def _services_at(self, url: str) -> LocalServices:
        """What this node's agent offers at a registration port."""

        def on_health() -> None:
            if url in self.uplinks:
                self.uplinks[url].set_down(self.agent_services[url].down())

        if url not in self.agent_services:
            meters = Meters(url, self._journal)
            self.agent_services[url] = LocalServices(self._reactor, self.resolver, on_health, meters)
        return self.agent_services[url]

    # --- what a change leaves behind ------------------------------------------------------------

    def _retire_external(self, port: ExternalPort, drain_s: float) -> None:
        port.stop()
        self._retired.add(port)

        def end() -> None:
            port.abort()
            port.services.close()
            self._retired.discard(port)

        asyncio.get_running_loop().call_later(drain_s, end)

    def _retire_registry(self, registry: Registry, drain_s: float) -> None:
        registry.goaway("this registration port is closed")
        registry.arrivals.over()
        if self.colleagues is not None:
            self.colleagues.remove(registry)
        self._retired_registries.add(registry)

        def end() -> None:
            registry.close(CODE_REFUSED, "this registration port is closed")
            self._retired_registries.discard(registry)

        asyncio.get_running_loop().call_later(drain_s, end)

    async def _retire_uplink(self, uplink: Uplink, drain_s: float) -> None:
        await uplink.drain("the agent does not need this tunnel any more")
        services = self.agent_services.pop(uplink.url)
        self._retired_uplinks.add(uplink)

        def end() -> None:
            uplink.close(CODE_REFUSED, "the agent has left")
            services.close()
            self._retired_uplinks.discard(uplink)

        asyncio.get_running_loop().call_later(drain_s, end)

    # --- handing over (handover.py) -------------------------------------------------------------

    async def known(self) -> list[Known]:
        """Every service of agents, those included whose agents are away."""
        return [
            (name, pack_service(service), entry.owner)
            for name, registry in self.registries.items()
            for service, entry in registry.directory.entries()
        ]

    def learn(self, known: Iterable[Known]) -> None:
        """Services of a predecessor: until their agents come, requests wait for them."""
        for name, service, owner in known:
            registry = self.registries.get(name)
            if registry is not None:
                registry.directory.know(parse_service(service), owner)
        for registry in self.registries.values():
            registry.directory.publish()
            registry.arrivals.over()

    def member_keys(self) -> list[Key]:
        return [
            (name, *member.key) for name, registry in self.registries.items() for member in registry.members()
        ]

    def hold_logins(self) -> None:
        for port in self.registration.values():
            port.hold()

    def resume_logins(self) -> None:
        for port in self.registration.values():
            port.resume()

    async def redial(self) -> set[Key]:
        """Ask every agent to dial once more; those that were asked."""
        asked: set[Key] = set()
        for name, registry in self.registries.items():
            for member in registry.members():
                if not member.link.draining:
                    registry.ask_to_redial(member)
                    asked.add((name, *member.key))
                    await asyncio.sleep(TELL_PAUSE_S)
        return asked

    # --- the end --------------------------------------------------------------------------------

    async def drain(self, reason: str, *, handed_over: bool = False) -> None:
        """Take nothing new; what runs goes on. `handed_over`: another process accepts what waits."""
        for port in self.registration.values():
            port.stop()
        for external in self.external.values():
            external.stop(backlog=not handed_over)
        for uplink in self.uplinks.values():
            await uplink.drain(reason)
        for sockets in self._sockets.values():
            close_all(sockets)
        self._sockets = {}

    def say_goodbye(self, reason: str) -> None:
        """Ask the agents to go: nothing of ours runs in their tunnels any more."""
        for registry in self._all_registries():
            registry.goaway(reason)

    @property
    def connections(self) -> int:
        """Connections of clients."""
        return sum(port.connections for port in [*self.external.values(), *self._retired])

    @property
    def exchanges(self) -> int:
        return sum(port.exchanges for port in [*self.external.values(), *self._retired])

    @property
    def relayed(self) -> int:
        """Streams between this worker and others."""
        return self.colleagues.streams if self.colleagues is not None else 0

    @property
    def parting(self) -> int:
        """Dialled tunnels in which streams may still run."""
        return sum(len(uplink.parting) for uplink in self._all_uplinks())

    @property
    def registered(self) -> int:
        return sum(registry.tunnels for registry in self._all_registries())

    async def close(self, reason: str) -> None:
        """Cut what is left, and release everything; also what `drain` was not called for."""
        await self.drain(reason)
        for external in [*self.external.values(), *self._retired]:
            external.abort()
            external.services.close()
        for uplink in self._all_uplinks():
            uplink.close(CODE_REFUSED, reason)
        for services in self.agent_services.values():
            services.close()
        for registry in self._all_registries():
            registry.close(CODE_REFUSED, reason)
        if self.colleagues is not None:
            self.colleagues.close()
        await self.resolver.close()

    def _all_registries(self) -> list[Registry]:
        return [*self.registries.values(), *self._retired_registries]

    def _all_uplinks(self) -> list[Uplink]:
        return [*self.uplinks.values(), *self._retired_uplinks]
