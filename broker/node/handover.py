"""Handing over to a successor without a gap: both ends of it.

    old process                                new process (started by the old one, from what is on disk now)
    listening sockets, known services   ──▶    reads its configuration, binds, opens its registration ports
                                        ◀──    ready; or why not, and the old one goes on as it was
    accepts no more agents, asks those
    that it has to dial once more       ──▶
                                        ◀──    who has registered, until all have or MOVE_S is over
    take over                           ──▶    opens its external ports and its admin port
                                        ◀──    serving
    accepts no more clients, drains, says good-bye to its agents, ends

Clients wait in the backlog of the sockets, which both processes have; at no time does nobody accept them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

from broker import __version__
from broker.errors import RunError
from broker.node.channel import HEADER, MAX_SOCKETS, Channel, ChannelLost, Message, pair
from broker.node.systemd import notify
from broker.ports.sockets import Inherited

log = logging.getLogger("broker.node")

VARIABLE = "BROKER_HANDOVER"  # the descriptor that leads to the predecessor
READY_S = 30.0  # for the successor to start
MOVE_S = 5.0  # for agents to register with the successor, beyond the time over which they are asked
SERVING_S = 10.0
TELL_PAUSE_S = 0.002  # between agents that are asked: as many logins a second can be served

Known = tuple[str, dict[str, str], str]  # registration port, service (messages.py), user
Key = tuple[Any, ...]  # registration port, user, agent, instance, index


class Old(Protocol):
    """What hands over: a node, or the supervisor of several workers."""

    def listening(self) -> list[tuple[str, socket.socket]]: ...
    async def known(self) -> list[Known]: ...
    def hold_logins(self) -> None: ...
    def resume_logins(self) -> None: ...
    async def redial(self) -> set[Key]: ...


async def hand_over(old: Old) -> int:
    """Start a successor and let it take over; its process id. RunError: nothing has changed.

    After it the caller drains.
    """
    if os.getpid() == 1:
        raise RunError(
            "the node is process 1 of its container, which ends with it: start a second container instead"
        )
    successor = Successor()
    held = False
    try:
        await successor.start(old.listening(), await old.known())
        held = True
        old.hold_logins()
        await successor.wait_for(await old.redial())
        await successor.take_over()
    except (ChannelLost, RunError) as error:
        if held:
            old.resume_logins()
        raise RunError(f"no successor has taken over: {await successor.give_up(error)}") from None
    except BaseException as error:
        await successor.give_up(error)
        raise
    log.info(
        "process %d, version %s, has taken over", successor.pid, successor.version,
        extra={"fields": {"event": "handed-over", "pid": successor.pid}},
    )  # fmt: skip
    notify(f"MAINPID={successor.pid}")
    return successor.pid


class Successor:
    """The new process, as the old one sees it."""

    def __init__(self) -> None:
        ours, theirs = pair()
        self.version = ""
        self._joined: set[Key] = set()
        self._news = asyncio.Event()
        self._failure = ""
        self._channel = Channel(ours, self._on_message, self._news.set)
        environment = {name: value for name, value in os.environ.items() if name != "WATCHDOG_PID"}
        environment[VARIABLE] = str(theirs.fileno())
        try:
            self._process = subprocess.Popen(
                [sys.executable, *sys.orig_argv[1:]], pass_fds=[theirs.fileno()], env=environment
            )
        except OSError as error:
            self._channel.close()
            raise RunError(f"{sys.executable} cannot be started: {error.strerror}") from None
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    async def start(self, sockets: Sequence[tuple[str, socket.socket]], known: list[Known]) -> None:
        for start in range(0, len(sockets), MAX_SOCKETS):
            part = sockets[start : start + MAX_SOCKETS]
            names = [name for name, _ in part]
            self._channel.send({"do": "sockets", "names": names}, [sock for _, sock in part])
        answer, _ = await self._channel.ask({"do": "start", "known": known}, timeout_s=READY_S)
        if "failed" in answer:
            raise RunError(str(answer["failed"]))
        self.version = str(answer.get("version", ""))

    async def wait_for(self, keys: set[Key]) -> None:
        """Until all of these have registered with the successor, or time is up."""
        try:
            async with asyncio.timeout(MOVE_S):
                while not keys <= self._joined and self._channel.open:
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            log.warning("%d tunnels have not come to the new process in time", len(keys - self._joined))

    async def take_over(self) -> None:
        await self._channel.ask({"do": "take-over"}, timeout_s=SERVING_S)

    async def give_up(self, error: BaseException) -> str:
        """End the process, which must not stay; returns why it was of no use."""
        self._channel.close()
        if isinstance(error, ChannelLost) and not self._failure:
            try:  # it has ended by itself, or hangs
                code = await asyncio.to_thread(self._process.wait, 1.0)
                return f"the new process ended with exit code {code}; the log says why"
            except subprocess.TimeoutExpired:
                pass
        self._process.kill()
        await asyncio.to_thread(self._process.wait)
        return self._failure or str(error)

    def _on_message(self, message: Message, _sockets: list[socket.socket], _blob: bytes) -> None:
        if message.get("do") == "joined":
            self._joined.update(tuple(key) for key in message["keys"])
            self._news.set()
        elif message.get("do") == "failed":
            self._failure = str(message.get("why"))


class Predecessor:
    """The old process, as the new one sees it."""

    def __init__(self, sock: socket.socket) -> None:
        self.known: list[Known] = []
        self._sockets: list[tuple[str, socket.socket]] = []
        self._told: set[Key] = set()
        self._started = asyncio.Event()
        self._asked = asyncio.Event()
        self._questions: dict[str, Message] = {}
        self._channel = Channel(sock, self._on_message, self._on_end)

    @classmethod
    def from_environment(cls) -> Predecessor | None:
        """To be called inside the running event loop, once."""
        sock = _socket_from_environment()
        return cls(sock) if sock is not None else None

    async def inherited(self) -> Inherited:
        await self._started.wait()
        return Inherited(self._sockets)

    def ready(self) -> None:
        """Agents may register here."""
        self._answer("start", {"ready": True, "pid": os.getpid(), "version": __version__})

    def fail(self, why: str) -> None:
        self._channel.send({"do": "failed", "why": why})

    def joined(self, keys: Iterable[Key]) -> None:
        fresh = set(keys) - self._told
        if fresh:
            self._told |= fresh
            self._channel.send({"do": "joined", "keys": [list(key) for key in fresh]})

    async def until_asked(self) -> None:
        """Until it is our turn: the predecessor says so, or has gone."""
        await self._asked.wait()

    def serving(self) -> None:
        self._answer("take-over", {"serving": True})

    def _answer(self, question: str, message: Message) -> None:
        if question in self._questions:
            self._channel.answer(self._questions.pop(question), message)

    def _on_message(self, message: Message, sockets: list[socket.socket], _blob: bytes) -> None:
        what = message.get("do")
        if what == "sockets":
            for sock in sockets:
                sock.setblocking(False)
            self._sockets += zip(message["names"], sockets, strict=True)
        elif what == "start":
            self.known = [(port, service, user) for port, service, user in message["known"]]
            self._questions["start"] = message
            self._started.set()
        elif what == "take-over":
            self._questions["take-over"] = message
            self._asked.set()

    def _on_end(self) -> None:
        self._started.set()
        self._asked.set()


def _socket_from_environment() -> socket.socket | None:
    text = os.environ.pop(VARIABLE, "")
    try:
        sock = socket.socket(fileno=int(text)) if text else None
    except (OSError, ValueError):
        return None
    if sock is not None:
        sock.set_inheritable(False)
    return sock


def report_failure(why: str) -> None:
    """Tell the predecessor, where there is one, before this process ends without having started."""
    sock = _socket_from_environment()
    if sock is None:
        return
    data = json.dumps({"do": "failed", "why": why}).encode()
    with sock:
        sock.setblocking(True)
        sock.settimeout(1.0)
        try:
            sock.sendall(HEADER.pack(len(data), 0, 0) + data)
        except OSError:
            return  # the exit code has to do
