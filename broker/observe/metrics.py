"""Metrics in Prometheus' form, made at scrape time from the node's status; nothing is counted twice.

The status is the one description of what runs (see broker/node/status.py); here it gets names, types and
labels. Labels are few: port, service, agent, code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

Status = dict[str, Any]
Rows = Iterable[tuple[list[str], float]]

CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")

# name, help, key in the entry
EXTERNAL_GAUGES = (
    ("connections", "Connections of clients that are open.", "connections"),
    ("requests_active", "Requests, and TCP connections, that are under way.", "active"),
)
EXTERNAL_COUNTERS = (
    ("connections_accepted", "Connections that clients opened.", "accepted"),
    ("connections_refused", "Connections that were refused because a limit was reached.", "refused"),
    ("received_bytes", "Bytes of bodies that clients sent.", "bytes_in"),
    ("sent_bytes", "Bytes of bodies that clients were sent.", "bytes_out"),
)
SERVICE_GAUGES = (("requests_active", "Requests that are under way to a local service.", "active"),)
SERVICE_COUNTERS = (
    ("requests", "Requests, and TCP connections, that went to a local service.", "exchanges"),
    ("connects", "Connections that were opened to a local service.", "connects"),
    ("connect_failures", "Connections to a local service that failed.", "connect_failures"),
    ("connections_reused", "Requests that took a connection of the pool.", "reused"),
)
TUNNEL_GAUGES = (
    ("streams", "Streams that are open in a tunnel.", "streams"),
    ("rtt_seconds", "Smoothed round-trip time of a tunnel.", "rtt_s"),
)
TUNNEL_COUNTERS = (
    ("received_bytes", "Bytes that came through a tunnel.", "bytes_in"),
    ("sent_bytes", "Bytes that went through a tunnel.", "bytes_out"),
)
REGISTRATION_GAUGES = (
    ("tunnels", "Tunnels that are registered.", "tunnels"),
    ("logins_pending", "Connections that have not logged in yet.", "logins_pending"),
    ("networks_punished", "Networks whose connections are refused: too many failed logins.", "punished"),
)
REGISTRATION_COUNTERS = (
    ("logins", "Tunnels that were registered.", "logins"),
    ("logins_crowded_out", "Connections that gave way before they had logged in.", "crowded_out"),
    ("logins_turned_away", "Connections that were refused for failed logins before.", "turned_away"),
    ("evictions", "Tunnels that a new login of the same agent replaced.", "evicted"),
    ("tunnels_lost", "Tunnels that ended without a farewell.", "lost"),
)
REACTOR = (
    ("wakeups", "Times that the event loop woke for data sockets.", "wakeups"),
    ("events", "Readiness events of data sockets.", "events"),
)


class Metrics:
    """One registry; `render` is what /metrics answers."""

    def __init__(self, status: Callable[[], Status]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(NodeCollector(status))
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)

    def render(self) -> tuple[bytes, str]:
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


class NodeCollector(Collector):
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Metric]:
        return []  # registering does not need the status

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield _gauge(
            "broker_info", "What runs.", ["version", "node"], [([status["version"], status["node"]], 1)]
        )
        yield _gauge("broker_ready", "1: the node can serve.", [], [([], float(status["ready"]))])
        yield from self._external(status["external"])
        yield from self._registration(status["registration"])
        tunnels = [([each["agent"], each["peer"], str(each["index"])], each) for each in status["tunnels"]]
        yield from _families(
            "broker_tunnel", ["agent", "peer", "index"], tunnels, TUNNEL_GAUGES, TUNNEL_COUNTERS
        )
        services = [([each["at"], each["service"]], each) for each in status["services"] if each["at"]]
        yield from _families("broker_service", ["at", "service"], services, SERVICE_GAUGES, SERVICE_COUNTERS)
        yield from self._delegated(status["services"])
        yield from self._process(status)

    def _external(self, ports: list[Status]) -> Iterator[Metric]:
        entries = [([port["name"]], port) for port in ports]
        yield from _families("broker_external", ["port"], entries, EXTERNAL_GAUGES, EXTERNAL_COUNTERS)
        rows = [
            ([port["name"], kind], float(count))
            for port in ports
            for kind, count in zip(CLASSES, port["statuses"], strict=True)
        ]
        yield _counter("broker_external_responses", "Responses by class of status.", ["port", "class"], rows)
        rows = [([port["name"], code], float(n)) for port in ports for code, n in port["failures"].items()]
        yield _counter(
            "broker_external_failures", "Exchanges that ended early, by code.", ["port", "code"], rows
        )

    def _registration(self, ports: list[Status]) -> Iterator[Metric]:
        entries = [([port["name"]], port) for port in ports]
        yield from _families(
            "broker_registration", ["port"], entries, REGISTRATION_GAUGES, REGISTRATION_COUNTERS
        )
        rows = [([port["name"], code], float(n)) for port in ports for code, n in port["refusals"].items()]
        yield _counter(
            "broker_registration_refusals", "Logins that were refused, by code.", ["port", "code"], rows
        )

    def _delegated(self, services: list[Status]) -> Iterator[Metric]:
        known = [each for each in services if not each["at"]]
        rows: Rows = [([each["registration"], each["service"]], float(each["tunnels"])) for each in known]
        yield _gauge("broker_delegated_tunnels", "Tunnels that lead to a service.", ["port", "service"], rows)
        rows = [([each["registration"], each["service"]], float(each["waiting"])) for each in known]
        yield _gauge(
            "broker_delegated_waiting", "Requests that wait for an agent.", ["port", "service"], rows
        )

    def _process(self, status: Status) -> Iterator[Metric]:
        memory = status["memory"]
        yield _gauge("broker_buffer_bytes", "Bytes in buffers.", [], [([], float(memory["buffer_bytes"]))])
        yield _gauge(
            "broker_buffer_limit_bytes", "Budget of all buffers.", [], [([], float(memory["limit_bytes"]))]
        )
        for name, text, key in REACTOR:
            yield _counter(f"broker_loop_{name}", text, [], [([], float(status["loop"][key]))])
        reloads: Rows = [([result], float(count)) for result, count in status["reloads"].items()]
        yield _counter("broker_reloads", "Reloads of the configuration.", ["result"], reloads)


def _families(
    prefix: str,
    labels: list[str],
    entries: list[tuple[list[str], Status]],
    gauges: Iterable[tuple[str, str, str]],
    counters: Iterable[tuple[str, str, str]],
) -> Iterator[Metric]:
    for name, text, key in gauges:
        yield _gauge(
            f"{prefix}_{name}", text, labels, [(values, float(entry[key])) for values, entry in entries]
        )
    for name, text, key in counters:
        yield _counter(
            f"{prefix}_{name}", text, labels, [(values, float(entry[key])) for values, entry in entries]
        )


def _gauge(name: str, text: str, labels: list[str], rows: Rows) -> Metric:
    family = GaugeMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family


def _counter(name: str, text: str, labels: list[str], rows: Rows) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, value in rows:
        family.add_metric(values, value)
    return family
