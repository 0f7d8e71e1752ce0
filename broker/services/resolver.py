"""Names of upstreams to addresses, kept fresh: the core dials numbers only.

Every name is asked for again at intervals. Where the answer fails, the last good addresses stay in use; a
name that never had any is asked for more often. Changes of state are logged once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import random
import socket
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from _fastpath.backend import Backend
from _fastpath.service import Service
from broker.config.model import Upstream

log = logging.getLogger("broker.services")

REFRESH_S = 30.0
RETRY_S = (1.0, 30.0)  # after failures: the first wait, and the longest
ANSWER_S = 10.0

Numeric = tuple[int, str]  # family, address


@dataclass(slots=True)
class Name:
    """One host name that upstreams use."""

    host: str
    uses: int = 0
    addresses: tuple[Numeric, ...] = ()
    error: str = ""
    failures: int = 0
    since: float = field(default_factory=time.time)
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None


class Resolver:
    def __init__(self) -> None:
        self._names: dict[str, Name] = {}
        self._targets: dict[Service, tuple[Upstream, ...]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, target: Service, upstreams: tuple[Upstream, ...]) -> None:
        """Give `target` the addresses of its upstreams: those known now, and later every change."""
        self._targets[target] = upstreams
        for host in _names_in(upstreams):
            name = self._names.get(host)
            if name is None:
                name = self._names[host] = Name(host)
                name.task = asyncio.get_running_loop().create_task(self._keep(name), name=f"resolve {host}")
                self._tasks.add(name.task)
                name.task.add_done_callback(self._tasks.discard)
            name.uses += 1
        target.set_backends(self.backends(upstreams))

    def change(self, target: Service, upstreams: tuple[Upstream, ...]) -> None:
        """Other upstreams for a target that has some."""
        before = self._targets[target]
        self.add(target, upstreams)
        self._release(before)

    def remove(self, target: Service) -> None:
        self._release(self._targets.pop(target, ()))

    def _release(self, upstreams: tuple[Upstream, ...]) -> None:
        for host in _names_in(upstreams):
            name = self._names[host]
            name.uses -= 1
            if name.uses == 0:
                del self._names[host]
                if name.task is not None:
                    name.task.cancel()

    def backends(self, upstreams: Iterable[Upstream]) -> list[Backend]:
        """What the core takes: one per address. Every address of a name has the name's weight."""
        found: dict[tuple[Any, ...], int] = {}
        for upstream in upstreams:
            if upstream.path:
                found[socket.AF_UNIX, upstream.path] = upstream.weight
                continue
            literal = _literal(upstream.host)
            numeric = (literal,) if literal else self._names[upstream.host].addresses
            for family, address in numeric:
                found[family, address, upstream.port, upstream.host] = upstream.weight
        return [Backend(address, weight) for address, weight in found.items()]

    async def first_answers(self, timeout_s: float) -> None:
        """Wait until every name was asked for once, or time is up."""
        names = [name.asked.wait() for name in self._names.values()]
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*names)

    def problems(self, upstreams: Iterable[Upstream]) -> str:
        """Why some of these have no fresh address; "" where all is well."""
        errors = (self._names[host].error for host in _names_in(upstreams) if host in self._names)
        return "; ".join(error for error in errors if error)

    async def close(self) -> None:
        self._names.clear()
        self._targets.clear()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _keep(self, name: Name) -> None:
        while True:
            try:
                async with asyncio.timeout(ANSWER_S):
                    self._take(name, await _resolve(name.host))
            except (OSError, UnicodeError) as error:
                self._fail(name, _explain(error))
            name.asked.set()
            await asyncio.sleep(_pause(name.failures))

    def _take(self, name: Name, addresses: tuple[Numeric, ...]) -> None:
        if name.error:
            log.info("the upstream name %s resolves again", name.host)
        name.error, name.failures = "", 0
        if set(addresses) == set(name.addresses):
            return  # a resolver that shuffles its answers changes nothing
        log.debug("the upstream name %s is %s", name.host, ", ".join(address for _, address in addresses))
        name.addresses = addresses
        name.since = time.time()
        for target, upstreams in self._targets.items():
            if name.host in _names_in(upstreams):
                target.set_backends(self.backends(upstreams))

    def _fail(self, name: Name, reason: str) -> None:
        name.failures += 1
        if not name.error:
            kept = "its last addresses stay in use" if name.addresses else "its service cannot be reached"
            log.warning("the upstream name %s does not resolve (%s): %s", name.host, reason, kept)
        name.error = f"{name.host}: {reason}"


async def _resolve(host: str) -> tuple[Numeric, ...]:
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    numeric = [(int(family), str(address[0])) for family, _, _, _, address in found]
    return tuple(dict.fromkeys(item for item in numeric if item[0] in (socket.AF_INET, socket.AF_INET6)))


def _pause(failures: int) -> float:
    if failures == 0:
        return REFRESH_S * random.uniform(0.9, 1.1)
    shortest, longest = RETRY_S
    interval: float = min(longest, shortest * 2 ** min(failures - 1, 8))
    return interval * random.uniform(0.5, 1.0)


def _names_in(upstreams: Iterable[Upstream]) -> list[str]:
    hosts = (upstream.host for upstream in upstreams if not upstream.path)
    return list(dict.fromkeys(host for host in hosts if _literal(host) is None))


def _literal(host: str) -> Numeric | None:
    try:
        version = ipaddress.ip_address(host.partition("%")[0]).version
    except ValueError:
        return None
    return (socket.AF_INET if version == 4 else socket.AF_INET6, host)


def _explain(error: OSError | UnicodeError) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_S:.0f} s"
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return "not a host name"
