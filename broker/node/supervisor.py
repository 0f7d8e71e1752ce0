"""A node of several workers: the process that starts them, and is the node to everybody outside.

It has the configuration, the listening sockets, the admin port, the signals, and the ledger of logins. No
byte of a client passes through it. Workers are forked from a process that was forked first (spawner.py), get
their sockets and orders over a channel each, and are joined by relays (colleagues.py).

A change is made in two steps, as in one process: everything that can fail is done by everybody (prepare),
then all commit, or all drop it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import pickle
import socket
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from typing import TYPE_CHECKING, Any

from broker import __version__
from broker import config as configuration
from broker.config.model import Config
from broker.errors import BrokerError, RunError
from broker.identity.users import Users
from broker.node import systemd
from broker.node.board import Board
from broker.node.certificates import DAY_S, own_certificates
from broker.node.channel import MAX_SOCKETS, ChannelLost, Message, pair
from broker.node.crew import Crew, Place
from broker.node.handover import Key, Known, Predecessor, hand_over
from broker.node.parts import Plan, Sockets, labelled, plan_for, ports_of, socket_key
from broker.node.penalties import PenaltyBook
from broker.node.reception import Reception
from broker.node.steering import steer
from broker.node.systemd import notify
from broker.observe.past import Past
from broker.ports.certificates import tls_ports
from broker.ports.sockets import Inherited, bound_url, close_all, label, share
from broker.tls.tickets import Numbers
from broker.tunnel.ledger import Ledger, pack_verdict, parse_claim, parse_key
from broker.tunnel.uplink import node_name

if TYPE_CHECKING:
    from broker.ports.admin import AdminPort

log = logging.getLogger("broker.node")

ANSWER_S = 5.0  # for a worker's status
LOOK_S = 5.0  # workers are asked that often, scrapes or not
DRAIN_MORE_S = 2.0  # workers have a deadline of their own; beyond it they are killed


class Supervisor:
    """To be made, and used, inside the running event loop. The same controls as a Node."""

    def __init__(
        self,
        config: Config,
        spawner: socket.socket,
        board: Board,
        reread: Callable[[Config], Config] = configuration.reload,
        predecessor: Predecessor | None = None,
    ) -> None:
        self.config = config
        self.name = node_name()
        self.state = "starting"  # starting, serving, draining, stopped
        self.started_at = time.monotonic()
        self.reloads: Counter[str] = Counter(ok=0, failed=0)
        self.admin: AdminPort | None = None
        self.handed_over = False
        self._board = board
        self._reread = reread
        self._predecessor = predecessor
        self._running = config  # what the workers have: in a take-over at first the ports of agents alone
        self._sockets: Sockets = {}
        self._ledger = Ledger()
        self._penalties = PenaltyBook(self._tell_workers)
        self._tickets = Numbers()
        self._renewal: asyncio.TimerHandle | None = None
        self._links: set[tuple[str, int, int]] = set()
        self._crew = Crew(config.workers, spawner, self._start_worker, self._on_message, self._on_gone)
        self._reception = Reception(
            lambda: [place.index for place in self._crew.up], self._ledger.tunnels, self._pass_on
        )
        self._watchdog = systemd.Watchdog()
        self._reloading = asyncio.Lock()
        self._leave = asyncio.Event()
        self._now = asyncio.Event()
        self._was_ready = False
        self._past = Past()
        self._looking: asyncio.Task[None] | None = None
        self._last: dict[str, Any] = {}

    # --- life -----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Raises BrokerError. Whatever happens: call `close` in the end."""
        for warning in self.config.warnings:
            log.warning("%s", warning)
        self._watchdog.start()
        async with self._reloading:
            inherited = await self._predecessor.inherited() if self._predecessor else systemd.inherited()
            plan = plan_for(self.config, self._sockets, inherited, self.config.workers)
            for rest in inherited.close_rest():
                log.warning(
                    "a socket that was passed to this process belongs to no port and is closed: %s", rest
                )
            self._sockets = plan.sockets
            first = plan.for_agents_only() if self._predecessor is not None else plan
            self._running = first.config
            self._tickets.look(tls_ports(plan.config))
            self._penalties.configure(plan.config.registration)
            self._board.assign([port.name for port in self.config.external])
            await self._crew.start()
            self._link_all()
            self._serve_logins(first.config)
            if self._predecessor is not None:
                await self._succeed(self._predecessor, plan)
            await self._open_admin(plan)
        self.state = "serving"
        self._renewal = asyncio.get_running_loop().call_later(DAY_S, self._renew_tickets)
        if self._predecessor is not None:
            self._predecessor.serving()
        self._looking = asyncio.get_running_loop().create_task(self._keep_looking(), name="look")
        self._announce(plan)
        self._on_change()

    async def _succeed(self, predecessor: Predecessor, plan: Plan) -> None:
        """Agents first: clients stay with the predecessor until they have come."""
        for place in self._crew.up:
            place.send({"do": "learn", "known": predecessor.known})
        predecessor.ready()
        left = asyncio.create_task(self._leave.wait())
        turn = asyncio.create_task(predecessor.until_asked())
        await asyncio.wait({left, turn}, return_when=asyncio.FIRST_COMPLETED)
        left.cancel()
        turn.cancel()
        await self._prepare(plan)
        await self._commit(plan)

    async def serve(self) -> None:
        await self._leave.wait()

    async def shutdown(self) -> None:
        self.state = "draining"
        self._watchdog.stop()
        if not self.handed_over:
            notify("STOPPING=1")
        drain_s = self.config.timeouts.drain / 1000
        async with self._reloading:
            self._crew.stop_replacing()
            self._reception.serve([])
            for place in self._crew.up:
                place.send({"do": "drain", "why": "the node drains", "handed_over": self.handed_over})
            self._close_sockets()
        await self._until(lambda: all(place.idle for place in self._crew.up), drain_s)
        for place in self._crew.up:
            place.send({"do": "goodbye"})
        await self._until(lambda: not self._crew.up, drain_s + DRAIN_MORE_S)
        await self.close()
        log.info("stopped")

    async def close(self) -> None:
        if self.state == "stopped":
            return
        self.state = "stopped"
        if self._renewal is not None:
            self._renewal.cancel()
        self._watchdog.stop()
        if self._looking is not None:
            self._looking.cancel()
        self._reception.serve([])

        async def tell() -> None:
            for place in self._crew.places:
                place.send({"do": "stop", "why": "the node stops"})

        await self._crew.end(tell)
        self._close_sockets()
        if self.admin is not None:
            await self.admin.close()
            self.admin = None

    def reopen_log(self) -> None:
        """SIGUSR1: the access log, in which every worker writes, was moved away."""
        for place in self._crew.up:
            place.send({"do": "reopen"})

    def drain(self, why: str) -> None:
        if not self._leave.is_set():
            log.info("draining: %s", why)
            self._leave.set()

    def stop(self, why: str) -> None:
        if not self._now.is_set():
            log.info("stopping: %s", why)
            self._now.set()
            self._leave.set()

    @property
    def leaving(self) -> bool:
        return self._leave.is_set()

    async def _until(self, done: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not done() and not self._now.is_set() and time.monotonic() < deadline:
            try:
                async with asyncio.timeout(0.02):
                    await self._now.wait()
            except TimeoutError:
                continue

    def _close_sockets(self) -> None:
        for sockets in self._sockets.values():
            close_all(sockets)
        self._sockets = {}

    # --- reload ---------------------------------------------------------------------------------

    async def reload(self) -> None:
        """All workers, or none. Raises BrokerError, and then nothing has changed."""
        async with self._reloading:
            if self.leaving:
                raise BrokerError("the node is shutting down")
            systemd.notify_reloading()
            try:
                config = self._reread(self.config)
                plan = plan_for(config, self._sockets, Inherited(), self.config.workers)
                await self._prepare(plan)
            except BrokerError as error:
                self.reloads["failed"] += 1
                log.error("reload failed, nothing has changed: %s", error)
                raise
            finally:
                notify("READY=1")
            if config.workers != self.config.workers:
                log.warning(
                    "workers: %d stay; another number takes a restart, or `broker upgrade`",
                    self.config.workers,
                )
            before = self._sockets
            await self._commit(plan)
            await self._open_admin(plan)
            self._announce(plan, before)
            for key, sockets in before.items():
                if key not in plan.sockets:
                    close_all(sockets)
            self.reloads["ok"] += 1
            for warning in config.warnings:
                log.warning("%s", warning)
            log.info("reloaded %s", config.source or "the command line")
            self._on_change()

    async def _prepare(self, plan: Plan) -> None:
        """Everything that can fail, in every worker. RunError, and then it is dropped everywhere."""
        self._board.assign([port.name for port in plan.config.external])
        self._tickets.look(tls_ports(plan.config))
        places = self._crew.up
        try:
            async with asyncio.TaskGroup() as group:
                for place in places:
                    self._send_sockets(place, plan, self._running)
                    group.create_task(self._hand(place, "prepare", plan.config))
        except* (RunError, ChannelLost) as errors:
            plan.drop()
            await asyncio.gather(*(place.ask({"do": "drop"}) for place in places), return_exceptions=True)
            raise RunError(str(errors.exceptions[0])) from None

    async def _commit(self, plan: Plan) -> None:
        places = self._crew.up
        self.config = self._running = plan.config
        self._sockets = plan.sockets
        self._reception.serve([])
        self._penalties.configure(plan.config.registration)
        await asyncio.gather(*(place.ask({"do": "commit"}) for place in places), return_exceptions=True)
        self._link_all()
        self._serve_logins(plan.config)

    async def _hand(self, place: Place, what: str, config: Config) -> None:
        # To a process that was forked from this one; nothing that workers send is unpickled.
        about = {"do": what, "rows": self._board.rows, "tickets": self._tickets.current}
        await place.ask(about, blob=pickle.dumps(config))

    def _renew_tickets(self) -> None:
        """Once a day: other ticket keys, the same in all workers, and a look at what expires."""
        self._renewal = asyncio.get_running_loop().call_later(DAY_S, self._renew_tickets)
        self._tickets.renew()
        if self._tickets.used_up:
            log.warning("TLS sessions are resumed by one worker only from now on: `broker upgrade` mends it")
        self._tell_workers({"do": "renew", "tickets": self._tickets.current})

    def _tell_workers(self, message: Message) -> None:
        for place in self._crew.up:
            place.send(message)

    def _send_sockets(self, place: Place, plan: Plan, running: Config | None) -> None:
        """Those that the worker does not have yet: its share of each external port's."""
        has = {socket_key(*port) for port in ports_of(running)} if running is not None else set()
        parts: list[tuple[str, socket.socket]] = []
        for listen, what in ports_of(plan.config):
            key = socket_key(listen, what)
            known = key in has and self._sockets.get(key) is plan.sockets[key]
            if known or listen is plan.config.admin:
                continue
            shared = share(plan.sockets[key], place.index, len(self._crew.places))
            parts += [(label(listen, what), sock) for sock in shared]
        for start in range(0, len(parts), MAX_SOCKETS):
            part = parts[start : start + MAX_SOCKETS]
            place.send({"do": "sockets", "names": [name for name, _ in part]}, *(sock for _, sock in part))

    async def _open_admin(self, plan: Plan) -> None:
        config = plan.config.admin
        sockets = plan.sockets[socket_key(config, "the admin port")] if config is not None else None
        self.admin = await steer(self.admin, config, Users(plan.config.users), sockets, self)

    def _announce(self, plan: Plan, before: Sockets | None = None) -> None:
        for listen, what in ports_of(plan.config):
            key = socket_key(listen, what)
            if before is not None and before.get(key) is plan.sockets[key]:
                continue
            kind = "admin" if listen is plan.config.admin else what.split()[0]
            name = getattr(listen, "name", "")
            url = bound_url(listen, plan.sockets[key][0])
            fields = {"event": "listening", "kind": kind, "name": name, "url": url}
            log.info("listening %s", " ".join(filter(None, [kind, name, url])), extra={"fields": fields})

    # --- workers --------------------------------------------------------------------------------

    async def _start_worker(self, place: Place) -> None:
        async with self._starting():
            plan = Plan(self._running, self._sockets, [])
            self._send_sockets(place, plan, None)
            await self._hand(place, "start", self._running)
            place.up = True
            for order in self._penalties.orders():
                place.send(order)
            if self.state != "starting":
                self._link_all()

    def _starting(self) -> AbstractAsyncContextManager[None]:
        """A worker that replaces another one does not start in the middle of a reload."""
        return self._reloading if self.state != "starting" else nullcontext()

    def _link_all(self) -> None:
        """A relay for each pair of workers and registration port, where there is none yet."""
        up = self._crew.up
        for port in self._running.registration:
            for one in up:
                for other in up:
                    link = (port.name, one.index, other.index)
                    if one.index < other.index and link not in self._links:
                        self._links.add(link)
                        self._link(port.name, one, other)
        names = {port.name for port in self._running.registration}
        self._links = {link for link in self._links if link[0] in names}

    def _link(self, port: str, one: Place, other: Place) -> None:
        ends = pair()
        for place, peer, end in ((one, other, ends[0]), (other, one, ends[1])):
            with end:
                place.send({"do": "link", "port": port, "worker": peer.index, "dials": place is one}, end)

    def _on_gone(self, place: Place) -> None:
        self._forget(place)
        self._ledger.lost(place.index)
        self._penalties.lost(place.index)
        self._board.clear(place.index)
        self._links = {link for link in self._links if place.index not in link[1:]}
        self._on_change()

    def _forget(self, place: Place) -> None:
        lost_s = self._past.lost(place.index)
        if lost_s is not None and not place.parted and self.state == "serving":
            log.warning("what worker %d counted in its last %.1f s is lost", place.index, lost_s)

    def _on_message(self, place: Place, message: Message) -> None:
        what = message.get("do")
        if what == "claim":
            claim = parse_claim(message)
            verdict, evict = self._ledger.claim(place.index, claim)
            if evict is not None:
                order = {"do": "evict", "port": claim.port, "key": list(claim.key)}
                self._crew.places[evict].send(order)
            self._reception.arrived(place.index, claim.host)
            if place.channel is not None:
                place.channel.answer(message, pack_verdict(verdict))
            if self._predecessor is not None:
                self._predecessor.joined(self._ledger.keys())
        elif what == "left":
            self._ledger.left(place.index, message["port"], parse_key(message["key"]), message["generation"])
        elif what in ("services", "doubt"):
            told = {**message, "worker": place.index}
            for other in self._crew.up:
                if other is not place and message["to"] in (None, other.index):
                    other.send(told)
        elif what == "seen":
            self._penalties.on_message(place.index, message)
        elif what == "readiness":
            place.reasons = message["reasons"]
            self._on_change()
        elif what == "parting":
            place.parted = True
            self._past.seen(place.index, message["status"])
        elif what == "idle":
            place.idle = True

    # --- agents ---------------------------------------------------------------------------------

    def _serve_logins(self, config: Config) -> None:
        self._reception.serve(
            (port.name, self._sockets[socket_key(port, f"registration port {port.name}")])
            for port in config.registration
        )

    def _pass_on(self, worker: int, port: str, sock: socket.socket, address: tuple[str, int]) -> None:
        self._crew.places[worker].send({"do": "login", "port": port, "address": list(address)}, sock)

    # --- handing over (handover.py) -------------------------------------------------------------

    async def upgrade(self) -> int:
        """Let a new process take over; its process id. Raises BrokerError, and then nothing has changed."""
        async with self._reloading:
            if self.leaving or self.state != "serving":
                raise BrokerError(f"the node is {'draining' if self.leaving else self.state}")
            try:
                pid = await hand_over(self)
            except BrokerError as error:
                log.error("upgrade failed, nothing has changed: %s", error)
                raise
            self.handed_over = True
            self.admin = await steer(self.admin, None, Users(), None, self)
        self.drain(f"process {pid} has taken over")
        return pid

    def listening(self) -> list[tuple[str, socket.socket]]:
        return labelled(self._sockets, ports_of(self.config))

    async def known(self) -> list[Known]:
        answers = await self._ask_all({"do": "known"})
        found = {str(each): tuple(each) for answer in answers for each in answer["known"]}
        return list(found.values())

    def hold_logins(self) -> None:
        self._reception.hold()

    def resume_logins(self) -> None:
        self._reception.resume()

    async def redial(self) -> set[Key]:
        answers = await self._ask_all({"do": "redial"})
        return {tuple(key) for answer in answers for key in answer["keys"]}

    async def _ask_all(self, message: Message) -> list[Message]:
        """The answers of all that give one."""
        asked = (place.ask(message, timeout_s=ANSWER_S) for place in self._crew.up)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        return [answer for answer in answers if isinstance(answer, dict)]

    # --- state ----------------------------------------------------------------------------------

    def not_ready(self) -> list[str]:
        """Why the node cannot serve now; nothing where at least one worker can."""
        if self.state != "serving":
            return [f"the node is {self.state}"]
        if self.leaving:
            return ["the node is draining"]
        reasons = [place.reasons for place in self._crew.places]
        return [] if [] in reasons else list(dict.fromkeys(each for some in reasons for each in some))

    async def _look(self) -> None:
        """What the workers count; of one that has no answer now, what it said last."""

        async def ask(place: Place) -> None:
            with suppress(ChannelLost, RunError):
                answer = await place.ask({"do": "status"}, timeout_s=ANSWER_S)
                if place.up:
                    self._past.seen(place.index, answer["status"])

        await asyncio.gather(*map(ask, self._crew.up))

    async def _keep_looking(self) -> None:
        """So that little is lost with a worker that is killed."""
        while True:
            await asyncio.sleep(LOOK_S)
            await self._look()

    async def report(self) -> dict[str, Any]:
        await self._look()
        reasons = self.not_ready()
        merged = self._past.merged()
        if merged:  # else all have just died: what was last known, and what is true of this process
            self._last = merged | {"certificates": merged["certificates"] + own_certificates(self.admin)}
        self._last |= {
            "node": self.name,
            "version": __version__,
            "pid": os.getpid(),
            "uptime_s": round(time.monotonic() - self.started_at, 3),
            "ready": not reasons,
            "reasons": reasons,
            "state": self.state,
            "source": str(self.config.source) if self.config.source else None,
            "admin": {"url": self.admin.url} if self.admin is not None else None,
            "reloads": dict(self.reloads),
            "workers": [place.status() for place in self._crew.places],
        }
        return self._last

    def _on_change(self) -> None:
        ready = not self.not_ready()
        if ready and not self._was_ready:
            log.info("ready", extra={"fields": {"event": "ready"}})
            notify("READY=1")
        self._was_ready = ready
