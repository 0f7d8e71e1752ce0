"""What the process records of exchanges: access log and spans, as configured now, and the last failures."""

from __future__ import annotations

import asyncio
import logging
import os
from dataclasses import dataclass
from typing import Any

from _fastpath.record import Journal
from broker.config.model import AccessLog, Config, Tracing
from broker.errors import PROBLEMS, RunError
from broker.observe.accesslog import FLUSH_S, AccessLogFile, access_status, open_log
from broker.observe.limited import Limiter
from broker.observe.tracing import Exporter, Tracer

log = logging.getLogger("broker.access")

CODES = {problem.number: problem.code for problem in PROBLEMS}
CODE_CANCEL = 0
HOPS = {
    **dict.fromkeys(("bad-request", "request-timeout", "body-too-large", "head-too-large"), "client"),
    **dict.fromkeys(("unsupported", "unauthenticated", "forbidden", "rate-limited"), "client"),
    **dict.fromkeys(("no-service", "overloaded"), "node"),
    **dict.fromkeys(("no-agent", "tunnel-lost"), "tunnel"),
    **dict.fromkeys(("upstream-unreachable", "upstream-protocol", "upstream-timeout"), "upstream"),
}


@dataclass(slots=True)
class Prepared:
    """What a configuration needs of the outside, opened: to be applied or discarded."""

    access_log: AccessLog | None = None
    fd: int | None = None
    tracing: Tracing | None = None
    exporter: Exporter | None = None

    def discard(self) -> None:
        if self.fd is not None:
            os.close(self.fd)
        if self.exporter is not None:
            self.exporter.close()


class Recorder:
    """Made inside the running loop; `apply` for each configuration, `close` at the end."""

    def __init__(self, node: str = "") -> None:
        codes = [b""] * (max(CODES) + 1)
        for number, code in CODES.items():
            codes[number] = code.encode()
        self.journal = Journal(tuple(codes))
        self._node = node
        self._file: AccessLogFile | None = None
        self._tracer: Tracer | None = None
        self._dropped = 0
        self._limiter = Limiter()
        self._timer: asyncio.TimerHandle | None = None
        self._tick()

    def prepare(self, config: Config) -> Prepared:
        """Open what is configured: the part that can fail. RunError."""
        prepared = Prepared(config.access_log, tracing=config.tracing)
        if config.tracing is not None and (self._tracer is None or self._tracer.config != config.tracing):
            prepared.exporter = Exporter(config.tracing)
        if config.access_log is not None:
            prepared.fd = open_log(config.access_log)
        return prepared

    def apply(self, prepared: Prepared) -> None:
        """Take over what `prepare` has opened. The same file is opened anew: so it is rotated."""
        self._log_to(prepared.access_log, prepared.fd)
        if self._tracer is not None and self._tracer.config != prepared.tracing:
            self._tracer.close()
            self._tracer = None
        if prepared.exporter is not None and prepared.tracing is not None:
            self._tracer = Tracer(self.journal, prepared.tracing, prepared.exporter, self._node)

    def _log_to(self, config: AccessLog | None, fd: int | None) -> None:
        if self._file is not None and config == self._file.config and fd is not None:
            self._file.reopen(fd)
            return
        if self._file is not None:
            self.journal.write("off", None)
            self._file.close()
            self._file = None
        if config is not None and fd is not None:
            self._file = AccessLogFile(self.journal, config, fd)

    def reopen(self) -> None:
        """SIGUSR1: the file was moved away. Where it cannot be opened, the old one is written on."""
        if self._file is None:
            return
        try:
            self._file.reopen(open_log(self._file.config))
        except RunError as error:
            log.error("%s; the old one is written on", error)
            return
        log.info("the access log %s was opened again", self._file.where)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.apply(Prepared())

    def status(self) -> dict[str, Any] | None:
        return access_status(self._file, self.journal)

    def tracing_status(self) -> dict[str, Any] | None:
        return self._tracer.status() if self._tracer is not None else None

    def last_failures(self) -> list[dict[str, Any]]:
        return [_row(each) for each in self.journal.last_failures()]

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(FLUSH_S, self._tick)
        self.journal.flush()
        dropped = self.journal.dropped
        if dropped > self._dropped:
            held = self._limiter.passes("dropped")
            if held is not None:
                log.warning(
                    "%d records of the access log were dropped: it is not written fast enough", dropped
                )
                self._dropped = dropped


def _row(found: dict[str, Any]) -> dict[str, Any]:
    code = CODES.get(found["code"], str(found["code"]))
    return {**found, "code": code, "hop": HOPS.get(code, "node")}
