"""The running node: `start`, `serve`, `shutdown`, and `reload` in between.

    start      bind everything, make the parts, begin to dial; an error here leaves nothing behind
    serve      wait until somebody asks for the end
    shutdown   take nothing new, let what runs finish until the deadline, then cut what is left

`broker serve` and `broker connect` make the same Node: its configuration says what it is.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from _fastpath.answers import set_answers
from _fastpath.reactor import Reactor
from broker import config as configuration
from broker.config.model import Config
from broker.errors import ANSWERS, BrokerError, RunError
from broker.node import systemd
from broker.node.certificates import DAY_S, DailyLook
from broker.node.handover import Predecessor, hand_over
from broker.node.parts import Parts, Plan
from broker.node.status import node_status
from broker.node.steering import steer
from broker.node.systemd import notify
from broker.observe.journal import Prepared, Recorder
from broker.ports.sockets import Inherited
from broker.tunnel.uplink import node_name

if TYPE_CHECKING:
    from broker.ports.admin import AdminPort

log = logging.getLogger("broker.node")

FIRST_NAMES_S = 3.0  # start does not wait longer for the names of upstreams
TUNNEL_S = 10.0  # a successor that dials has a tunnel by then, or is none
LOOK_S = 0.02  # how often a drain looks whether all is done
GOODBYE_S = 1.0  # for agents to close tunnels in which nothing runs any more
# Young objects before a collection: the core's objects are not counted, and nothing in Python is
# made per request, so that this is reached by logins and scrapes only.
GC_THRESHOLDS = (50_000, 50, 100)


class Node:
    """To be made, and used, inside the running event loop."""

    def __init__(
        self,
        config: Config,
        reread: Callable[[Config], Config] = configuration.reload,
        predecessor: Predecessor | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        self.config = config
        self.name = node_name()
        self.state = "starting"  # starting, serving, draining, stopped
        self.started_at = time.monotonic()
        self.reloads: Counter[str] = Counter(ok=0, failed=0)
        self.reactor = Reactor(asyncio.get_running_loop())
        self.recorder = Recorder(self.name)
        self.parts = Parts(self.reactor, self.name, self._on_change, self.recorder.journal)
        self.admin: AdminPort | None = None
        self._reread = reread
        self._reloading = asyncio.Lock()
        self._leave = asyncio.Event()  # drain, then end
        self._now = asyncio.Event()  # end without waiting any longer
        self._was_ready = False
        self._predecessor = predecessor
        self._watchdog = systemd.Watchdog()
        self.handed_over = False  # a successor accepts what waits
        self.on_readiness: Callable[[list[str]], None] | None = None  # told why it is not ready, if so
        self.last_word: Callable[[float], Awaitable[None]] | None = None  # may wait, when no clients are left
        self.on_parting: Callable[[], None] | None = None  # told when all is done, and just before the end
        self._inherited = inherited
        self.daily: DailyLook | None = None

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises BrokerError (a port that cannot be bound). Whatever happens: call `close` in the end."""
        set_answers(ANSWERS)
        for warning in self.config.warnings:
            log.warning("%s", warning)
        self._watchdog.start()
        async with self._reloading:
            records = self.recorder.prepare(self.config)
            plan = await self._first_plan()
            self.recorder.apply(records)
            self.reactor.start()
            if self._predecessor is not None:
                await self._succeed(self._predecessor, plan)
            await self._commit(plan)
        await self.parts.resolver.first_answers(FIRST_NAMES_S)
        self.state = "serving"
        if self._predecessor is not None:
            self._predecessor.serving()
        self.daily = DailyLook(self.parts, DAY_S if self.parts.colleagues is None else None)
        self._on_change()
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    async def _first_plan(self) -> Plan:
        if self._inherited is not None:
            self.parts.inherited = self._inherited
        elif self._predecessor is not None:
            self.parts.inherited = await self._predecessor.inherited()
        else:
            self.parts.inherited = systemd.inherited()
        plan = self.parts.plan(self.config)
        for rest in self.parts.inherited.close_rest():
            log.warning("a socket that was passed to this process belongs to no port and is closed: %s", rest)
        return plan

    async def _succeed(self, predecessor: Predecessor, plan: Plan) -> None:
        """Agents first: clients stay with the predecessor until they have come."""
        await self._commit(plan.for_agents_only())
        self.parts.learn(predecessor.known)
        if self.parts.uplinks:
            await self._until(self._any_uplink, time.monotonic() + TUNNEL_S)
            if not self._any_uplink():
                raise RunError(f"no tunnel was up within {TUNNEL_S:.0f} s")
        predecessor.ready()
        left = asyncio.create_task(self._leave.wait())
        turn = asyncio.create_task(predecessor.until_asked())
        await asyncio.wait({left, turn}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        turn.cancel()

    async def serve(self) -> None:
        """Return when the node is to end: call `shutdown` then."""
        await self._leave.wait()

    async def shutdown(self) -> None:
        self.state = "draining"
        self._watchdog.stop()
        if not self.handed_over:
            notify("STOPPING=1")
        deadline = time.monotonic() + self.config.timeouts.drain / 1000
        async with self._reloading:
            await self.parts.drain("the node is shutting down", handed_over=self.handed_over)
        await self._until(lambda: self.parts.connections == 0 and self.parts.parting == 0, deadline)
        if self.last_word is not None:
            await self.last_word(deadline)
        await self._until(lambda: self.parts.relayed == 0, deadline)
        self.parts.say_goodbye("the node is shutting down")
        await self._until(lambda: self.parts.registered == 0, min(deadline, time.monotonic() + GOODBYE_S))
        if self.parts.exchanges:
            log.warning("%d exchanges are cut", self.parts.exchanges)
        if self.on_parting is not None:
            self.on_parting()
        await self.close()
        log.info("stopped")

    async def close(self) -> None:
        """Cut and release everything, in whatever state the node is; again does no harm.

        An event loop with a reactor that was not closed does not close either.
        """
        if self.state == "stopped":
            return
        self.state = "stopped"
        self._watchdog.stop()
        if self.daily is not None:
            self.daily.cancel()
        try:
            await self.parts.close("the node is shutting down")
            if self.admin is not None:
                await self.admin.close()
                self.admin = None
            self.recorder.close()
        finally:
            await asyncio.sleep(0)  # tunnels report their end through the loop
            self.reactor.close()

    def reopen_log(self) -> None:
        """SIGUSR1: the access log was moved away."""
        self.recorder.reopen()

    def drain(self, why: str) -> None:
        """Ask for the end, after what runs has finished."""
        if not self._leave.is_set():
            log.info("draining: %s", why)
            self._leave.set()

    def stop(self, why: str) -> None:
        """Ask for the end at once."""
        if not self._now.is_set():
            log.info("stopping: %s", why)
            self._now.set()
            self._leave.set()

    @property
    def leaving(self) -> bool:
        return self._leave.is_set()

    async def _until(self, done: Callable[[], bool], deadline: float) -> None:
        while not done() and not self._now.is_set():
            left = deadline - time.monotonic()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(min(LOOK_S, left)):
                    await self._now.wait()
            except TimeoutError:
                continue

    async def upgrade(self) -> int:
        """Let a new process, of the program as it is on disk now, take over; its process id.

        Raises BrokerError, and then nothing has changed.
        """
        async with self._reloading:
            if self.leaving or self.state != "serving":
                raise BrokerError(f"the node is {'draining' if self.leaving else self.state}")
            try:
                pid = await hand_over(self.parts)
            except BrokerError as error:
                log.error("upgrade failed, nothing has changed: %s", error)
                raise
            self.handed_over = True
            self.admin = await steer(self.admin, None, self.parts.users, None, self)
        self.drain(f"process {pid} has taken over")
        return pid

    # --- reload ---------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the configuration again and become it. Raises BrokerError, and then nothing has changed."""
        async with self._reloading:
            if self.leaving:
                raise BrokerError("the node is shutting down")
            systemd.notify_reloading()
            try:
                config = self._reread(self.config)
                records = self.recorder.prepare(config)
                try:
                    plan = self.parts.plan(config)
                except BaseException:
                    records.discard()
                    raise
            except BrokerError as error:
                self.reloads["failed"] += 1
                log.error("reload failed, nothing has changed: %s", error)
                raise
            finally:
                notify("READY=1")
            await self.become(plan, records)
            self.reloads["ok"] += 1
            for warning in config.warnings:
                log.warning("%s", warning)
            log.info("reloaded %s", config.source or "the command line")

    async def become(self, plan: Plan, records: Prepared) -> None:
        """What was planned holds from now on, with what the recorder has prepared."""
        self.config = plan.config
        self.recorder.apply(records)
        await self._commit(plan)
        self._on_change()

    async def _commit(self, plan: Plan) -> None:
        before = {id(port) for port in self._ports()}
        admin = plan.config.admin
        await self.parts.commit(plan)
        sockets = self.parts.sockets(admin, "the admin port") if admin is not None else None
        self.admin = await steer(self.admin, admin, self.parts.users, sockets, self)
        for port in self._ports() if self.on_readiness is None else ():  # else a supervisor says it
            if id(port) not in before:
                self._announce(port)

    def _ports(self) -> list[Any]:
        ports = [*self.parts.external.values(), *self.parts.registration.values()]
        return [*ports, self.admin] if self.admin is not None else ports

    def _announce(self, port: Any) -> None:
        kind = type(port).__name__.removesuffix("Port").lower()
        name = getattr(port, "name", "")
        fields = {"event": "listening", "kind": kind, "name": name, "url": port.url}
        log.info("listening %s", " ".join(filter(None, [kind, name, port.url])), extra={"fields": fields})

    # --- state ----------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Why the node cannot serve now; nothing where it can."""
        if self.state != "serving":
            return [f"the node is {self.state}"]
        if self.leaving:
            return ["the node is draining"]
        if self.parts.uplinks and not self._any_uplink():
            return ["no tunnel is up"]
        return []

    def _any_uplink(self) -> bool:
        return any(uplink.ready for uplink in self.parts.uplinks.values())

    def status(self) -> dict[str, Any]:
        return node_status(self)

    async def report(self) -> dict[str, Any]:
        return self.status()

    def _on_change(self) -> None:
        """A tunnel came or went, or the state changed: tell the service manager once it is worth it."""
        if self._predecessor is not None:
            self._predecessor.joined(self.parts.member_keys())
        reasons = self.not_ready()
        ready = not reasons
        if self.on_readiness is not None:
            self.on_readiness(reasons)
        if ready and not self._was_ready and self.on_readiness is None:
            log.info("ready", extra={"fields": {"event": "ready"}})
            notify("READY=1")
        self._was_ready = ready
