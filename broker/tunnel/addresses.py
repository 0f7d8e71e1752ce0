"""The addresses of a name that is dialled, and which of them get tunnels. No sockets but the resolver's.

A name may stand for several DMZ nodes. The agent keeps its tunnels to every one of its addresses, and
follows the name: it asks again at intervals. Where a name has IPv4 and IPv6 addresses, they are taken for
two ways to the same nodes: those of one family are dialled, that of the address which answered first.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

log = logging.getLogger("broker.tunnel")

REFRESH_S = 5.0
ANSWER_S = 10.0
MAX_ADDRESSES = 16  # times 64 tunnels each: the protocol's indices

AddressInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]


@dataclass(frozen=True, slots=True)
class Target:
    """One address of a name."""

    family: int
    host: str


def is_literal(host: str) -> bool:
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def target_of(sock: socket.socket) -> Target:
    """Where a connected socket leads to."""
    return Target(int(sock.family), str(sock.getpeername()[0]))


async def resolve(host: str, port: int) -> list[AddressInfo]:
    """All addresses. Raises OSError (socket.gaierror)."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return cast(list[AddressInfo], [info for info in found if isinstance(info[4][0], str)])


class Name:
    """A name's addresses, followed from `start` on. `on_change` is called whenever they have changed."""

    def __init__(self, host: str, port: int, on_change: Callable[[], None]) -> None:
        self.host = host
        self.infos: dict[Target, AddressInfo] = {}
        self._port = port
        self._on_change = on_change
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._follow(), name=f"follow {self.host}")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def ask(self) -> list[AddressInfo]:
        """Resolve it now. OSError where that fails; the addresses known so far stay then."""
        infos = await resolve(self.host, self._port)
        found = {Target(info[0], str(info[4][0])): info for info in infos}
        chosen = dict(list(found.items())[:MAX_ADDRESSES])
        if chosen and set(chosen) != set(self.infos):
            # In the order in which they came first, so that a resolver that shuffles changes nothing.
            stay = {target: chosen[target] for target in self.infos if target in chosen}
            self.infos = stay | chosen
            self._on_change()
        return infos

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_S * random.uniform(0.9, 1.1))
            try:
                async with asyncio.timeout(ANSWER_S):
                    await self.ask()
            except OSError as error:
                if not self._failing and self.infos:
                    why = error.strerror or "no answer"
                    log.warning(
                        "the name %s does not resolve (%s): its last addresses stay in use", self.host, why
                    )
                self._failing = True
            else:
                self._failing = False


class Spread:
    """Which addresses are dialled: all of one family."""

    def __init__(self) -> None:
        self.family: int | None = None  # that was reached

    def targets(self, known: dict[Target, AddressInfo]) -> list[Target]:
        """Nothing where it is not clear yet which family: any address may be tried."""
        families = {target.family for target in known}
        if self.family not in families:
            self.family = families.pop() if len(families) == 1 else None
        return [target for target in known if target.family == self.family]
