"""The agent's side of one registration port, or of all that a name stands for: its tunnels there, what it
announces, what was refused."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

from _fastpath.meter import Meters
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.tunnel import Tunnel
from broker.config.model import Connect, Match, Proxy
from broker.observe.totals import AgentTotals
from broker.tls.client import ClientContext
from broker.tunnel.addresses import AddressInfo, Name, Spread, Target, is_literal, resolve
from broker.tunnel.dialler import Dialler, Link
from broker.tunnel.handshake import Registration, is_agent_name
from broker.tunnel.links import close_when_idle, tell
from broker.tunnel.messages import Control, Redial, Refused, RefusedService, announce_bytes, read_control

log = logging.getLogger("broker.tunnel")

MAX_REASONS = 32  # different failures that are told until a tunnel is up again
REFUSED_BURST = 20  # "refused" messages that are looked at per tunnel


@dataclass(frozen=True, slots=True)
class Agent:
    """What this process is to all DMZ nodes."""

    name: str
    instance: str

    @classmethod
    def of_this_process(cls) -> Agent:
        return cls(node_name(), secrets.token_hex(16))


def node_name() -> str:
    """The host's name, in the form that the protocol allows."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname())[:64].strip("._-")
    return name if is_agent_name(name) else "node"


@dataclass(frozen=True, slots=True)
class TunnelSettings:
    """What this side says and does in every tunnel, dialled or accepted."""

    window: int  # initial stream window that we grant
    streams: int  # streams that a peer may open
    silence_ms: int
    memory: int  # bytes that one tunnel's windows may grow to


class Uplink:
    """One entry of `connect`: as many Diallers as it has tunnels, for each address of its name.

    A name that has no answer yet, or two families of addresses of which none was reached, has one Dialler, a
    scout for all of them.
    """

    def __init__(
        self,
        reactor: Reactor,
        agent: Agent,
        connect: Connect,
        routes: RouteTable,
        settings: TunnelSettings,
        connect_timeout_s: float,
        on_change: Callable[[], None],
        meters: Meters | None = None,
    ) -> None:
        self.connect = connect
        self.refused: dict[str, RefusedService] = {}
        self.lost = 0
        self.totals = AgentTotals()
        self.diallers: list[Dialler] = []
        self.connect_timeout_s = connect_timeout_s
        self.tls = context_of(connect)
        self._reactor = reactor
        self._agent = agent
        self._routes = routes
        self._settings = settings
        self._on_change = on_change
        self._meters = meters  # where streams are recorded that are refused here
        self._reasons: set[str] = set()
        self._all = _announced(connect)
        self._down: frozenset[Match] = frozenset()
        self._services = self._all
        self._registered: dict[int, tuple[Match, ...]] = {}  # by index: with what the last login was made
        self._parting: set[Tunnel] = set()  # of diallers that are gone, or say good-bye
        self._name: Name | None = None  # where the addresses are found here and not by a proxy
        self._spread = Spread()
        self._fitting: asyncio.Handle | None = None
        self._leaving: set[asyncio.Task[None]] = set()
        self._over = False

    # --- life -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._follow_name()
        self._fit()

    async def apply(
        self, connect: Connect, routes: RouteTable, settings: TunnelSettings, connect_timeout_s: float
    ) -> None:
        """A reload: the same port, perhaps other services, another token, more tunnels or fewer."""
        self.connect = connect
        self.connect_timeout_s = connect_timeout_s
        self.tls = context_of(connect)
        self._settings = settings
        self._routes = routes
        for tunnel in [*self.tunnels(), *self._parting]:
            tunnel.swap(routes)
        self._all = _announced(connect)
        self._announce()
        self._follow_name()
        for dialler in self._fit():
            await self._part(dialler, "this tunnel is not needed any more")

    def set_down(self, down: frozenset[Match]) -> None:
        """These services have no upstream that works: the DMZ node is told to send nothing for them."""
        self._down = down
        self._announce()

    def _announce(self) -> None:
        """Tell the DMZ node what there is now, where that has changed."""
        services = tuple(service for service in self._all if service not in self._down)
        if services == self._services:
            return
        self._services = services
        self.refused.clear()
        for tunnel in [*self.tunnels(), *self._parting]:
            tell(tunnel, self._announcement())

    def _announcement(self) -> bytes:
        return announce_bytes(self._services, [service for service in self._all if service in self._down])

    async def drain(self, reason: str) -> None:
        """Dial no more, take no new streams; those that run go on until `close`."""
        self._over = True
        if self._name is not None:
            self._name.stop()
        for dialler in self.diallers:
            await self._part(dialler, reason)
        self.diallers.clear()
        await asyncio.gather(*self._leaving)
        for tunnel in self._parting:
            if not tunnel.draining:
                tunnel.goaway(0, reason)

    async def stop(self) -> None:
        await self.drain("the agent stops")
        self.close(0, "the agent stops")

    def close(self, code: int, reason: str) -> None:
        """Close the tunnels that were drained, whatever still runs in them."""
        for tunnel in list(self._parting):
            tunnel.close(code, reason)

    async def _part(self, dialler: Dialler, reason: str) -> None:
        await dialler.stop()
        if dialler.tunnel is not None:
            self._parting.add(dialler.tunnel)
            dialler.tunnel.goaway(0, reason)

    # --- which addresses ------------------------------------------------------------------------

    def _follow_name(self) -> None:
        wanted = self.connect.proxy is None and not is_literal(self.connect.host)
        if not wanted and self._name is not None:
            self._name.stop()
            self._name = None
        elif wanted and self._name is None:
            self._name = Name(self.connect.host, self.connect.port, self._fit_soon)

    async def resolve(self, target: Target | None) -> list[AddressInfo]:
        """What a Dialler may connect to. Raises OSError."""
        name = self._name
        if name is None:
            return await resolve(*self.address)
        if not name.infos or target is None:
            await name.ask()
            name.start()
            target = next(iter(self._spread.targets(name.infos)), None)
        everything = list(name.infos.values())
        mixed = len({known.family for known in name.infos}) > 1
        if target not in name.infos or (mixed and not self.ready):
            return everything
        return [name.infos[target]]

    def _fit_soon(self) -> None:
        if self._fitting is None and not self._over:
            self._fitting = asyncio.get_running_loop().call_soon(self._fit_now)

    def _fit_now(self) -> None:
        self._fitting = None
        for dialler in self._fit():
            task = asyncio.get_running_loop().create_task(
                self._part(dialler, "its address is not needed any more")
            )
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
        self._on_change()

    def _fit(self) -> list[Dialler]:
        """Start the Diallers that are missing; returns those that are too many, and dropped already."""
        if self._over:
            return []
        targets: list[Target | None] = [None]
        count = self.connect.tunnels
        if self._name is not None:
            targets = list(self._spread.targets(self._name.infos))
            if not targets:
                targets, count = [None], 1
        for dialler in self.diallers:
            dialler.target = dialler.target or targets[0]  # what was a scout
        kept: list[Dialler] = []
        for target in targets:
            ours = [dialler for dialler in self.diallers if dialler.target == target]
            kept += sorted(ours, key=lambda dialler: not dialler.up)[:count]
            for _ in range(count - len(ours)):
                fresh = Dialler(self, self._free_index(), target)
                self.diallers.append(fresh)
                kept.append(fresh)
                fresh.start()
        surplus = [dialler for dialler in self.diallers if dialler not in kept]
        self.diallers = [dialler for dialler in self.diallers if dialler in kept]
        return surplus

    def _free_index(self) -> int:
        taken = {dialler.index for dialler in self.diallers}
        return next(index for index in itertools.count() if index not in taken)

    # --- state ----------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        # While a DMZ node hands over to another process, the tunnels to the old one serve.
        return any(dialler.state == "up" for dialler in self.diallers) or any(
            not tunnel.draining for tunnel in self._parting
        )

    @property
    def parting(self) -> set[Tunnel]:
        """Tunnels that no dialler has any more: they serve until they are idle, or the peer ends them."""
        return self._parting

    def tunnels(self) -> list[Tunnel]:
        return [dialler.tunnel for dialler in self.diallers if dialler.tunnel is not None]

    @property
    def agent(self) -> tuple[None, str]:
        return None, self._agent.name

    def alive(self) -> set[Tunnel]:
        """All that are not closed."""
        return {*self.tunnels(), *self._parting}

    # --- what a Dialler needs -------------------------------------------------------------------

    @property
    def url(self) -> str:
        return self.connect.url

    @property
    def address(self) -> tuple[str, int]:
        return self.connect.host, self.connect.port

    @property
    def authority(self) -> str:
        return self.connect.authority

    @property
    def proxy(self) -> Proxy | None:
        return self.connect.proxy

    @property
    def bearer(self) -> bool:
        return self.connect.bearer

    def registration(self, index: int) -> Registration:
        self._registered[index] = self._services
        return Registration(
            agent=self._agent.name,
            instance=self._agent.instance,
            index=index,
            window=self._settings.window,
            streams=self._settings.streams,
            services=self._services,
            token=self.connect.token.reveal() if self.connect.token is not None else None,
        )

    def make_tunnel(self, dialler: Dialler, link: Link) -> Tunnel:
        budget = REFUSED_BURST

        def on_control(tunnel: Tunnel, payload: bytes) -> None:
            nonlocal budget
            budget -= 1
            if budget >= 0 and isinstance(self._on_control(payload), Redial) and tunnel not in self._parting:
                self._parting.add(tunnel)
                dialler.on_redial(tunnel)
                self._on_change()

        def on_goaway(tunnel: Tunnel) -> None:
            self._parting.add(tunnel)
            close_when_idle(tunnel, "all streams have ended")
            dialler.on_goaway(tunnel)
            self._on_change()

        def on_close(tunnel: Tunnel, code: int, reason: str) -> None:
            self.lost += tunnel not in self._parting
            self.totals.ended(self.agent, tunnel.counters())
            self._parting.discard(tunnel)
            dialler.on_close(tunnel, code, reason)
            self._on_change()

        # The socket object keeps the descriptor until the core has taken it over.
        tunnel = Tunnel(
            self._reactor,
            link.sock.fileno(),
            dialled=True,
            name=f"{self.url} {dialler.index}",
            routes=self._routes,
            meters=self._meters,
            local_window=self._settings.window,
            peer_window=link.acceptance.window,
            local_streams=self._settings.streams,
            peer_streams=link.acceptance.streams,
            silence=link.acceptance.silence_ms,
            tunnel_memory=self._settings.memory,
            on_control=on_control,
            on_close=on_close,
            on_goaway=on_goaway,
            leftover=link.leftover,
            tls=link.tls,
        )
        link.sock.detach()
        if self._down or self._registered.get(dialler.index) != self._services:
            tell(tunnel, self._announcement())
        return tunnel

    def is_news(self, reason: str) -> bool:
        """Whether this failure was not told since a tunnel was last up."""
        if reason in self._reasons or len(self._reasons) >= MAX_REASONS:
            return False
        self._reasons.add(reason)
        return True

    def on_up(self, dialler: Dialler, link: Link) -> None:
        self._reasons.clear()
        if self._name is not None and link.target in self._name.infos:
            dialler.target = link.target
            self._spread.family = link.target.family
            self._fit_soon()
        self._on_change()

    def _on_control(self, payload: bytes) -> Control | None:
        try:
            message = read_control(payload)
        except ValueError as error:
            log.warning("%s sent a control message that makes no sense: %s", self.url, error)
            return None
        if not isinstance(message, Refused):
            return message
        ours = {str(service) for service in self._services}
        for service in message.services:
            if service.service not in ours:
                continue
            if self.refused.get(service.service) != service:
                log.warning(
                    "%s refuses the service %s: %s (%s)",
                    self.url,
                    service.service,
                    service.reason,
                    service.code,
                )
            self.refused[service.service] = service
        return message


def context_of(connect: Connect) -> ClientContext | None:
    """Reads the files."""
    return ClientContext(connect.tls, connect.host) if connect.tls is not None else None


def _announced(connect: Connect) -> tuple[Match, ...]:
    return tuple(dict.fromkeys(service.match for service in connect.services))
