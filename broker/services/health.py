"""Whether the addresses of services can be used: checks, and the way back of those that were ejected.

The core ejects an address by itself, because of what happened to requests (`_fastpath/pool.pyx`). It comes
back when a look at it finds it well, after a pause that grows with each time. The checks of a service's
`health` go on all the time; an address that fails them gets nothing at all until it passes again.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from _fastpath.backend import Backend
from _fastpath.service import Service as Target
from broker.config.model import HealthCheck, Service
from broker.services.probe import Probe

log = logging.getLogger("broker.services")

PAUSE_S = (1.0, 60.0)  # before an ejected address is looked at: the first time, and the longest
GOOD_S = 60.0  # an address that was well so long begins with the first pause again
CONNECTS = HealthCheck(kind="tcp")  # what an ejected address without checks of its own has to do


@dataclass(slots=True)
class Record:
    """What is known of one address beyond what the core knows."""

    streak: int = 0  # results of the same kind in a row
    looked_at: bool = False
    problem: str = ""
    ejections: int = 0
    admitted_at: float = 0.0


class Health:
    """Of all services of one place. `on_change` is told when a service becomes available, or is no more."""

    def __init__(self, on_change: Callable[[], None]) -> None:
        self._on_change = on_change
        self._tasks: dict[Target, set[asyncio.Task[None]]] = {}
        self._services: dict[Target, tuple[Service, Probe]] = {}
        self._records: dict[Backend, Record] = {}

    def watch(self, target: Target, service: Service) -> None:
        """Look after this service; again after each reload. Raises ValueError as Probe does."""
        known = self._services.get(target)
        probe = Probe(service, service.health or CONNECTS)  # which reads files
        if known is None or known[0] != service:
            self.forget(target)
        self._services[target] = service, probe
        if known is not None and known[0] == service:
            return
        self._tasks[target] = set()
        target.set_on_ejected(lambda backend: self._on_ejected(target, backend))
        if service.health is not None:
            self._spawn(target, self._keep_checking(target, service, service.health))
        for backend in target.backends:
            if service.health is None:
                backend.set_healthy(True)
            if backend.ejected:
                self._on_ejected(target, backend)

    def forget(self, target: Target) -> None:
        self._services.pop(target, None)
        target.set_on_ejected(None)
        for task in self._tasks.pop(target, ()):
            task.cancel()

    def close(self) -> None:
        for target in list(self._services):
            self.forget(target)
        self._records.clear()

    def is_down(self, target: Target) -> bool:
        """Whether checks say that no address of the service can be used."""
        known = self._services.get(target)
        if known is None or known[0].health is None:
            return False
        return bool(target.backends) and not any(backend.healthy for backend in target.backends)

    def status(self, target: Target) -> list[dict[str, Any]]:
        return [
            {**backend.counters(), "problem": self._record(backend).problem} for backend in target.backends
        ]

    def _record(self, backend: Backend) -> Record:
        return self._records.setdefault(backend, Record())

    def _spawn(self, target: Target, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work, name="health")
        tasks = self._tasks[target]
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    # --- checks -----------------------------------------------------------------------------------

    async def _keep_checking(self, target: Target, service: Service, check: HealthCheck) -> None:
        while True:
            backends = target.backends
            probe = self._services[target][1]
            problems = await asyncio.gather(*(probe(backend) for backend in backends))
            was_down = self.is_down(target)
            for backend, problem in zip(backends, problems, strict=True):
                self._take(service, check, backend, problem)
            if self.is_down(target) != was_down:
                self._tell(target, service)
            self._drop_records()
            await asyncio.sleep(check.interval / 1000 * random.uniform(0.9, 1.1))

    def _take(self, service: Service, check: HealthCheck, backend: Backend, problem: str) -> None:
        log.debug("service %s: %s: %s", service.match, backend.name, problem or "well")
        record = self._record(backend)
        record.problem = problem
        if bool(problem) != backend.healthy:
            record.streak, record.looked_at = 0, True  # as it was
            return
        record.streak += 1
        enough = check.fall if problem else check.rise
        if record.streak < enough and record.looked_at:
            return
        record.streak, record.looked_at = 0, True
        backend.set_healthy(not problem)
        if problem:
            log.warning("service %s: %s is down: %s", service.match, backend.name, problem)
        else:
            log.info("service %s: %s is up again", service.match, backend.name)

    def _tell(self, target: Target, service: Service) -> None:
        if self.is_down(target):
            log.error("service %s: none of its upstreams is up: it is withdrawn", service.match)
        else:
            log.info("service %s is available again", service.match)
        self._on_change()

    def _drop_records(self) -> None:
        for backend in [each for each in self._records if each.gone]:
            del self._records[backend]

    # --- ejected ----------------------------------------------------------------------------------

    def _on_ejected(self, target: Target, backend: Backend) -> None:
        # Called by the core while it handles a request: no more than a task is made here.
        self._spawn(target, self._bring_back(target, backend))

    async def _bring_back(self, target: Target, backend: Backend) -> None:
        service = self._services[target][0]
        record = self._record(backend)
        if time.monotonic() - record.admitted_at > GOOD_S:
            record.ejections = 0
        log.warning("service %s: %s is left out after failures", service.match, backend.name)
        while not backend.gone and backend.ejected:
            first, longest = PAUSE_S
            pause = min(longest, first * 2 ** min(record.ejections, 8))
            record.ejections += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))
            problem = await self._services[target][1](backend)
            if service.health is None:
                record.problem = problem
            if not problem:
                record.admitted_at = time.monotonic()
                backend.admit()
                log.info("service %s: %s takes requests again", service.match, backend.name)
        if backend.gone:
            self._records.pop(backend, None)
