"""The workers of a node, as its supervisor has them: started, watched, replaced."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from broker.errors import RunError
from broker.node.channel import Channel, ChannelLost, Message, pair
from broker.node.spawner import MAX_MESSAGE

log = logging.getLogger("broker.node")

START_S = 30.0
SHORT_LIFE_S = 2.0  # a worker that dies so young is not replaced at once: it would die again
PAUSE_S = 1.0
PING_S = 2.0
HANGS_S = 20.0  # a worker that does not answer for so long is ended, and replaced
END_S = 5.0  # for workers to end that were told to


class Place:
    """The place of one worker, with whoever has it now."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.channel: Channel | None = None
        self.pid = 0
        self.up = False  # started, and not gone
        self.since = 0.0
        self.restarts = 0
        self.reasons: list[str] = []  # why it is not ready
        self.idle = False  # drains, and has no clients any more
        self.parted = False  # it ends in order, and has said its last word
        self.ended = asyncio.Event()
        self.ended.set()

    async def ask(self, message: Message, blob: bytes = b"", timeout_s: float = START_S) -> Message:
        """The answer. RunError where it says that it failed, ChannelLost where there is none."""
        if self.channel is None:
            raise ChannelLost(f"worker {self.index} has ended")
        answer, _ = await self.channel.ask(message, blob=blob, timeout_s=timeout_s)
        if "failed" in answer:
            raise RunError(str(answer["failed"]))
        return answer

    def send(self, message: Message, *sockets: socket.socket) -> None:
        if self.channel is not None:
            self.channel.send(message, sockets)

    def status(self) -> dict[str, Any]:
        return {
            "index": self.index,
            "pid": self.pid,
            "state": "up" if self.up else "starting",
            "uptime_s": round(time.monotonic() - self.since, 3),
            "restarts": self.restarts,
        }


class Crew:
    """`start(place)` brings a fresh worker to work, `on_message` gets what it says, `on_gone` hears of it."""

    def __init__(
        self,
        count: int,
        spawner: socket.socket,
        start: Callable[[Place], Awaitable[None]],
        on_message: Callable[[Place, Message], None],
        on_gone: Callable[[Place], None],
    ) -> None:
        self.places = [Place(index) for index in range(count)]
        self._spawner = spawner
        self._start = start
        self._on_message = on_message
        self._on_gone = on_gone
        self._loop = asyncio.get_running_loop()
        self._replacing = True
        self._tasks: set[asyncio.Task[None]] = set()
        spawner.setblocking(False)
        self._loop.add_reader(spawner, self._on_spawner)

    @property
    def up(self) -> list[Place]:
        return [place for place in self.places if place.up]

    async def start(self) -> None:
        """All of them; RunError where one cannot start."""
        try:
            async with asyncio.TaskGroup() as group:
                for place in self.places:
                    group.create_task(self._bring_up(place))
        except* (RunError, ChannelLost) as errors:
            raise RunError(str(errors.exceptions[0])) from None
        self._begin(self._keep_asking())

    async def end(self, done: Callable[[], Awaitable[None]]) -> None:
        """`done` tells them to end; whoever has not after END_S is killed."""
        self._replacing = False
        await done()
        with suppress(TimeoutError):
            async with asyncio.timeout(END_S):
                for place in self.places:
                    await place.ended.wait()
        self.close()

    def stop_replacing(self) -> None:
        self._replacing = False

    def close(self) -> None:
        self._replacing = False
        self._loop.remove_reader(self._spawner)
        self._spawner.close()
        for task in self._tasks:
            task.cancel()
        for place in self.places:
            if not place.ended.is_set() and place.pid:
                with suppress(ProcessLookupError):
                    os.kill(place.pid, signal.SIGKILL)
            if place.channel is not None:
                place.channel.close()
                place.channel = None

    # --- one worker -----------------------------------------------------------------------------

    async def _bring_up(self, place: Place) -> None:
        ours, theirs = pair()
        with theirs:
            place.pid = 0
            place.ended.clear()
            place.reasons = ["a worker is starting"]
            place.parted = False
            place.since = time.monotonic()
            place.channel = Channel(
                ours,
                lambda message, _sockets, _blob: self._on_message(place, message),
                lambda: self._gone(place),
            )
            try:
                message = json.dumps({"worker": place.index}).encode()
                socket.send_fds(self._spawner, [message], [theirs.fileno()])
            except OSError as error:
                raise RunError(f"no worker can be started: {error.strerror}") from None
        await self._start(place)
        place.up = place.channel is not None

    def _gone(self, place: Place) -> None:
        lived = time.monotonic() - place.since
        place.up = False
        place.channel = None
        place.reasons = ["a worker has ended"]
        place.ended.set()
        self._on_gone(place)
        if self._replacing:
            self._begin(self._replace(place, 0.0 if lived >= SHORT_LIFE_S else PAUSE_S))

    async def _replace(self, place: Place, pause_s: float) -> None:
        log.error("worker %d (process %d) has ended; another one starts", place.index, place.pid)
        place.restarts += 1
        await asyncio.sleep(pause_s)
        if not self._replacing:  # the node has begun to end meanwhile
            return
        try:
            await self._bring_up(place)
        except (RunError, ChannelLost) as error:
            log.error("worker %d cannot start: %s", place.index, error)
            if place.channel is not None:  # it lives, and is of no use
                self._kill(place)

    def _kill(self, place: Place) -> None:
        if place.pid:
            with suppress(ProcessLookupError):
                os.kill(place.pid, signal.SIGKILL)

    async def _keep_asking(self) -> None:
        """A worker that hangs is as good as dead, and worse: connections come to it."""
        while True:
            await asyncio.sleep(PING_S)
            for place in self.up:
                self._begin(self._ping(place))

    async def _ping(self, place: Place) -> None:
        channel = place.channel
        try:
            await place.ask({"do": "ping"}, timeout_s=HANGS_S)
        except ChannelLost:
            if channel is not None and channel.open and place.channel is channel:
                log.error("worker %d (process %d) hangs and is ended", place.index, place.pid)
                self._kill(place)

    # --- the spawner ----------------------------------------------------------------------------

    def _on_spawner(self) -> None:
        try:
            data = self._spawner.recv(MAX_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            log.error("the process that starts workers has ended: no worker can be replaced any more")
            self._loop.remove_reader(self._spawner)
            return
        message = json.loads(data)
        if "worker" in message:
            self.places[message["worker"]].pid = message["pid"]
        elif message["status"] != 0:
            log.error("process %d %s", message["pid"], how_it_ended(message["status"]))

    def _begin(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def how_it_ended(status: int) -> str:
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
