"""Spans of traced exchanges, sent by OpenTelemetry's OTLP exporter: an extra, `tunnel-broker[tracing]`.

The core writes a line of JSON for each exchange whose trace is sampled, and hands them over in blocks; a
thread makes spans of them, two for each: the ingress's (of the client, in an agent of the tunnel), and below
it the egress's (of the tunnel, or the upstream). A receiver that is slow or away stops nothing: the core
hands over so many blocks, so many records a second, and drops and counts the rest.

Where the receiver wants credentials or has a CA of its own, the environment says so, as OpenTelemetry has it:
OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from _fastpath.record import Journal
from _fastpath.spool import Lines
from _fastpath.trace import EGRESS
from broker import __version__
from broker.config.model import Tracing
from broker.errors import RunError
from broker.observe.limited import Limiter

log = logging.getLogger("broker.tracing")

TIMEOUT_S = 10.0  # of one batch, with all that is tried again
GOODBYE_S = 2.0
SERVICE = "broker"
# What of a record becomes an attribute of both spans; names are those of OpenTelemetry where it has one.
ATTRIBUTES = {
    "method": "http.request.method",
    "status": "http.response.status_code",
    "host": "server.address",
    "target": "url.path",
    "client": "client.address",
    "user": "user.name",
    "user_agent": "user_agent.original",
    "error": "error.type",
    "bytes_in": "http.request.body.size",
    "bytes_out": "http.response.body.size",
    "port": "broker.port",
    "service": "broker.service",
    "tunnel": "broker.tunnel",
    "delivery": "broker.delivery",
    "tries": "broker.tries",
    "request_id": "broker.request_id",
}


class Exporter:
    """OpenTelemetry's, with the reason of its last failure. RunError where it is not installed."""

    def __init__(self, config: Tracing) -> None:
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        except ImportError:
            raise RunError(MISSING) from None
        self._words = _Words()
        self._exporter = OTLPSpanExporter(endpoint=config.endpoint, timeout=TIMEOUT_S)

    def send(self, spans: list[Any]) -> str:
        """Why they were not taken; "" where they were."""
        from opentelemetry.sdk.trace.export import SpanExportResult

        try:
            result = self._exporter.export(spans)
        except Exception as error:  # whatever the library meets: nobody else would count it
            return f"{type(error).__name__}: {error}"
        return (
            "" if result is SpanExportResult.SUCCESS else self._words.last or "the receiver did not take them"
        )

    def close(self) -> None:
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


MISSING = "tracing needs OpenTelemetry's exporter: pip install 'tunnel-broker[tracing]'"


class _Words(logging.Handler):
    """What the exporter has to say, kept from the log: its reason is told with ours, once in a while."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.last = ""
        exporter = logging.getLogger("opentelemetry")
        exporter.handlers[:] = [self]
        exporter.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()


class Tracer:
    """Takes what `journal` says of traced exchanges, from now until `close`."""

    def __init__(self, journal: Journal, config: Tracing, exporter: Exporter, node: str) -> None:
        self.config = config
        self.problem = ""
        self.exported = self.dropped = 0
        self._journal = journal
        self._exporter = exporter
        self._resource = resource_of(node)
        self._limiter = Limiter()
        self._queue: queue.SimpleQueue[Lines | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="tracing", daemon=True)
        self._thread.start()
        journal.trace(self._queue.put, config.begin, config.sample)

    def close(self) -> None:
        """End after what was handed over; a receiver that takes nothing is not waited for long."""
        self._journal.trace(None)
        self._queue.put(None)
        self._thread.join(GOODBYE_S)
        self._exporter.close()

    def status(self) -> dict[str, Any]:
        return {
            "endpoint": self.config.endpoint,
            "traced": self._journal.traced,
            "exported": self.exported,
            "dropped": self.dropped + self._journal.untold,
            "problem": self.problem,
        }

    def _run(self) -> None:
        while True:
            lines = self._queue.get()
            if lines is None:
                return
            spans = [span for record in records_of(lines) for span in spans_of(record, self._resource)]
            del lines  # gives the block back
            self._send(spans)

    def _send(self, spans: list[Any]) -> None:
        self.problem = self._exporter.send(spans)
        if not self.problem:
            self.exported += len(spans)
            return
        self.dropped += len(spans)
        if self._limiter.passes("lost") is not None:
            log.warning("spans cannot be sent to %s: %s", self.config.endpoint, self.problem)


def resource_of(node: str) -> Any:
    from opentelemetry.sdk.resources import Resource

    return Resource.create(
        {
            "service.name": os.environ.get("OTEL_SERVICE_NAME") or SERVICE,
            "service.version": __version__,
            "service.instance.id": f"{node}:{os.getpid()}",
            "host.name": node,
        }
    )


def records_of(lines: Lines) -> Iterator[dict[str, Any]]:
    for line in bytes(lines).splitlines():
        yield json.loads(line)


def spans_of(record: dict[str, Any], resource: Any) -> Iterable[Any]:
    """The ingress's span and, where it was joined to something, the egress's."""
    from opentelemetry.sdk.trace import Event, ReadableSpan
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

    scope = InstrumentationScope("broker", __version__)
    trace, ingress = int(record["trace_id"], 16), int(record["span_id"], 16)
    method = record.get("method", "HTTP")
    at_agent = "://" in record["port"]
    ended = moment_ns(record["time"])
    begun = ended - record["total_us"] * 1000
    bad = record["status"] == 0 or record["status"] >= 500
    status = Status(StatusCode.ERROR, record.get("reason") or record.get("error")) if bad else Status()

    def context(span: int, *, remote: bool = False) -> SpanContext:
        return SpanContext(trace, span, remote, TraceFlags(TraceFlags.SAMPLED))

    def span(hop: str, number: int, parent: SpanContext | None, **more: Any) -> ReadableSpan:
        return ReadableSpan(
            context=context(number),
            parent=parent,
            resource=resource,
            instrumentation_scope=scope,
            attributes={**attributes, "broker.hop": hop},
            status=status,
            end_time=ended,
            **more,
        )

    attributes = {name: record[key] for key, name in ATTRIBUTES.items() if record.get(key) not in (None, 0)}
    caller = context(int(record["parent_id"], 16), remote=True) if "parent_id" in record else None
    service = record.get("service", "")
    yield span(
        "tunnel" if at_agent else "client",
        ingress,
        caller,
        name=f"{method} {service}".rstrip(),
        kind=SpanKind.SERVER,
        start_time=begun,
    )
    if "wait_us" not in record:
        return
    routed = begun + record["client_us"] * 1000
    joined = routed + record["wait_us"] * 1000
    events = [Event("joined", timestamp=joined)]
    if "upstream_us" in record:
        events.append(Event("response head", timestamp=joined + record["upstream_us"] * 1000))
    hop = "tunnel" if "tunnel" in record and not at_agent else "upstream"
    yield span(
        hop,
        ingress ^ EGRESS,
        context(ingress),
        name=f"{method} {hop}",
        kind=SpanKind.CLIENT,
        start_time=routed,
        events=events,
    )


def moment_ns(text: str) -> int:
    """Nanoseconds since 1970, exact to the microsecond."""
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000) * 1000
