"""One worker of several: a Node that gets its configuration, sockets and orders from the supervisor."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import pickle
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import uvloop

from broker.config.model import Config, Strangers
from broker.errors import EXIT_DONE, EXIT_FAILED, BrokerError
from broker.node.board import Board
from broker.node.channel import Channel, Message
from broker.node.colleagues import Colleagues
from broker.node.node import Node
from broker.node.parts import Plan
from broker.observe import logs
from broker.observe.journal import Prepared
from broker.observe.logs import LogOptions
from broker.ports.sockets import Inherited
from broker.tls import tickets
from broker.tunnel.ledger import parse_key

log = logging.getLogger("broker.node")

LAST_WORD_S = 2.0  # for the supervisor to take it


def share_of(config: Config, index: int, count: int) -> Config:
    """What one of `count` workers does of it.

    It has no admin port, dials its share of the tunnels, and lets in its share of those that wait: agents
    that have not logged in yet, requests whose agents are away. Both are spread evenly over the workers.
    """
    connect = []
    for each in config.connect:
        tunnels = len(range(index, each.tunnels, count))
        if tunnels:
            connect.append(dataclasses.replace(each, tunnels=tunnels))
    registration = [
        dataclasses.replace(port, strangers=_share_of_strangers(port.strangers, count))
        for port in config.registration
    ]
    external = [
        dataclasses.replace(
            port, limits=dataclasses.replace(port.limits, waiting=_share(port.limits.waiting, count))
        )
        for port in config.external
    ]
    return dataclasses.replace(
        config,
        admin=None,
        connect=tuple(connect),
        registration=tuple(registration),
        external=tuple(external),
        warnings=(),
    )


def _share(number: int, count: int) -> int:
    """Rounded up: a limit of one still lets one in, at every worker."""
    return -(-number // count)


def _share_of_strangers(strangers: Strangers, count: int) -> Strangers:
    return dataclasses.replace(
        strangers,
        early=_share(strangers.early, count),
        most=_share(strangers.most, count),
        per_address=_share(strangers.per_address, count),
    )


def work(board: Board, count: int, log_options: LogOptions) -> Callable[[int, socket.socket], int]:
    """What the spawner runs in each worker."""

    def run(index: int, channel: socket.socket) -> int:
        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
            os.environ.pop(name, None)
        logs.set_up(log_options)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(Worker(index, count, board).run(channel))

    return run


class Worker:
    def __init__(self, index: int, count: int, board: Board) -> None:
        self._index = index
        self._count = count
        self._board = board
        self._sockets: list[tuple[str, socket.socket]] = []  # that came for the next plan
        self._plan: Plan | None = None
        self._records = Prepared()  # with the plan
        self._started = asyncio.Event()
        self._goodbye = asyncio.Event()  # no worker has clients any more
        self._tasks: set[asyncio.Task[None]] = set()
        self._node: Node
        self._channel: Channel
        self._colleagues: Colleagues

    async def run(self, channel: socket.socket) -> int:
        self._channel = Channel(channel, self._on_message, self._on_end)
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self._drain, "SIGTERM")
        await self._started.wait()
        try:
            if not self._channel.open:
                return EXIT_FAILED
            await self._node.serve()
            await self._node.shutdown()
            await self._channel.flushed(LAST_WORD_S)
        except Exception:
            log.exception("worker %d failed; this is a mistake in the program", self._index)
            return EXIT_FAILED
        finally:
            await self._node.close()
        return EXIT_DONE

    def _drain(self, why: str) -> None:
        """This worker alone: the others take what comes from now on."""
        if self._started.is_set():
            self._colleagues.goodbye(why)
            self._node.drain(why)

    async def _wait_for_others(self, deadline: float) -> None:
        """Their last clients may need the agents that are registered here."""
        self._channel.send({"do": "idle"})
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._goodbye.wait()

    def _on_end(self) -> None:
        """The supervisor has gone: nobody would ever end this process. Ports are closed at once."""
        if not self._started.is_set():
            os._exit(EXIT_FAILED)
        self._goodbye.set()
        self._drain("the supervisor has ended")

    # --- orders -----------------------------------------------------------------------------------

    def _on_message(self, message: Message, sockets: list[socket.socket], blob: bytes) -> None:
        what = message["do"]
        if what in ("drain", "stop") and not self._started.is_set():
            os._exit(EXIT_DONE)  # the node ends while this worker begins: there is nothing to end in order
        if what in ("start", "prepare", "commit", "drop", "status", "redial", "known", "ping"):
            task = asyncio.get_running_loop().create_task(self._answer(message, blob), name=what)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif what == "sockets":
            for sock in sockets:
                sock.setblocking(False)
            self._sockets += zip(message["names"], sockets, strict=True)
        elif what == "link":
            self._colleagues.link(message["port"], message["worker"], sockets[0], dials=message["dials"])
        elif what == "services":
            self._colleagues.on_services(message["port"], message["worker"], message["changes"])
        elif what == "doubt":
            self._colleagues.on_doubt(message["port"], message["worker"], message["service"])
        elif what == "login":
            self._login(message, sockets[0])
        elif what == "evict":
            registry = self._node.parts.registries.get(message["port"])
            if registry is not None:
                registry.evict(parse_key(message["key"]))
        elif what == "learn":
            self._node.parts.learn([(port, service, user) for port, service, user in message["known"]])
        elif what == "drain":
            self._node.handed_over = message["handed_over"]
            self._node.last_word = self._wait_for_others
            self._node.drain(message["why"])
        elif what == "renew":
            tickets.assign(message["tickets"])
            if self._started.is_set() and self._node.daily is not None:
                self._node.daily.look()
        elif what == "penalties":
            self._colleagues.on_penalties(message["port"], message["networks"])
        elif what == "reopen":
            self._node.reopen_log()
        elif what == "goodbye":
            self._goodbye.set()
        elif what == "stop":
            self._goodbye.set()
            self._node.stop(message["why"])

    async def _answer(self, message: Message, blob: bytes) -> None:
        act: Callable[[Message, bytes], Awaitable[Message]] = getattr(self, f"_{message['do']}")
        try:
            answer = await act(message, blob)
        except BrokerError as error:
            answer = {"failed": str(error)}
        except Exception as error:
            log.exception("worker %d failed to %s", self._index, message["do"])
            answer = {"failed": f"worker {self._index} failed: {type(error).__name__}: {error}"}
        self._channel.answer(message, answer)

    async def _start(self, message: Message, blob: bytes) -> Message:
        config = self._take(message, blob)
        self._node = Node(config, inherited=self._inherited())
        self._node.parts.logins_held = True  # the supervisor accepts them
        self._colleagues = Colleagues(self._node.reactor, self._index, self._board, self._channel)
        self._node.parts.colleagues = self._colleagues
        self._node.on_readiness = self._tell_readiness
        self._node.on_parting = self._say_last_word
        try:
            await self._node.start()
        except BaseException:
            await self._node.close()
            raise
        self._started.set()
        return {}

    def _take(self, message: Message, blob: bytes) -> Config:
        self._board.rows = message["rows"]
        tickets.assign(message["tickets"])
        # From the supervisor, which is this very program; a worker sends no pickles.
        config = pickle.loads(blob)
        assert isinstance(config, Config)
        return share_of(config, self._index, self._count)

    def _inherited(self) -> Inherited:
        sockets, self._sockets = self._sockets, []
        return Inherited(sockets)

    async def _prepare(self, message: Message, blob: bytes) -> Message:
        config = self._take(message, blob)
        inherited = self._inherited()
        if self._node.leaving:  # it has given its ports away; whoever replaces it gets the new configuration
            inherited.close_rest()
            return {}
        self._node.parts.inherited = inherited
        records = self._node.recorder.prepare(config)
        try:
            self._plan = self._node.parts.plan(config)
        except BaseException:
            records.discard()
            raise
        self._records = records
        self._node.parts.inherited.close_rest()
        return {}

    async def _commit(self, _message: Message, _blob: bytes) -> Message:
        plan, self._plan = self._plan, None
        if plan is not None and self._node.leaving:
            plan.drop()
            self._records.discard()
        elif plan is not None:
            await self._node.become(plan, self._records)
        return {}

    async def _drop(self, _message: Message, _blob: bytes) -> Message:
        plan, self._plan = self._plan, None
        if plan is not None:
            plan.drop()
            self._records.discard()
        return {}

    async def _status(self, _message: Message, _blob: bytes) -> Message:
        return {"status": self._node.status()}

    async def _redial(self, _message: Message, _blob: bytes) -> Message:
        return {"keys": [list(key) for key in await self._node.parts.redial()]}

    async def _known(self, _message: Message, _blob: bytes) -> Message:
        return {"known": await self._node.parts.known()}

    async def _ping(self, _message: Message, _blob: bytes) -> Message:
        return {}

    def _login(self, message: Message, sock: socket.socket) -> None:
        port = self._node.parts.registration.get(message["port"])
        if port is None:
            sock.close()
            return
        host, number = message["address"]
        port.take(sock, (host, number))

    def _say_last_word(self) -> None:
        self._channel.send({"do": "parting", "status": self._node.status()})

    def _tell_readiness(self, reasons: list[str]) -> None:
        self._channel.send({"do": "readiness", "reasons": reasons})
