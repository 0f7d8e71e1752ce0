"""Metrics in Prometheus' form, made at scrape time from the status document; nothing is counted twice.

`METRICS` is all of them: docs/metrics.md and the check of the dashboard are made from it. Labels are few and
bounded: ports and URLs are configured, users and agents have logged in, services were announced by them; of
what they may choose freely, only so many are told apart, and the rest is counted under "(other)".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector

from broker.observe.series import (
    Metric,
    Status,
    announced,
    dialled,
    durations,
    failures,
    handshakes,
    info,
    local,
    of_agents,
    of_each,
    of_maybe,
    of_node,
    of_table,
    round_trips,
)

PORT = ("port",)
SERVED = ("port", "service")
AGENT = ("at", "user", "agent")

METRICS: tuple[Metric, ...] = (
    Metric("broker_info", "gauge", ("version", "node"), "What runs; always 1.", info),
    Metric("broker_ready", "gauge", (), "1: the node can serve.", of_node("ready")),
    Metric("broker_processes", "gauge", (), "Processes that these numbers are about.", of_node("processes")),
    # --- requests
    Metric(
        "broker_requests",
        "counter",
        (*SERVED, "status"),
        "Requests, and TCP connections, that have ended, by status; none: cut, or a TCP connection.",
        of_table("requests", SERVED, "statuses"),
    ),
    Metric(
        "broker_failures",
        "counter",
        (*SERVED, "code", "delivery"),
        "Of those: the ones that ended early, by the code of Broker-Error, and whether the service can have"
        " seen them.",
        failures,
    ),
    Metric(
        "broker_request_bytes",
        "counter",
        SERVED,
        "Bytes of request bodies, or from clients of TCP connections.",
        of_each("requests", SERVED, "bytes_in"),
    ),
    Metric(
        "broker_response_bytes",
        "counter",
        SERVED,
        "Bytes of response bodies, or to clients of TCP connections.",
        of_each("requests", SERVED, "bytes_out"),
    ),
    Metric(
        "broker_request_retries",
        "counter",
        SERVED,
        "Times that a request was sent again over another tunnel or connection.",
        of_each("requests", SERVED, "retries"),
    ),
    Metric(
        "broker_request_duration_seconds",
        "histogram",
        SERVED,
        "From a request's first byte to the last one of its response.",
        durations("total"),
    ),
    Metric(
        "broker_hop_duration_seconds",
        "histogram",
        (*SERVED, "hop"),
        "The same by hop: client (until the request's head was whole), wait (until a tunnel or a connection"
        " had taken it), upstream (until the response's head; at a DMZ node with tunnel and agent), response"
        " (until its last byte).",
        durations("client", "wait", "upstream", "response"),
    ),
    # --- external ports
    Metric(
        "broker_external_connections",
        "gauge",
        PORT,
        "Connections of clients that are open.",
        of_each("external", ("name",), "connections"),
    ),
    Metric(
        "broker_external_requests_active",
        "gauge",
        PORT,
        "Requests, and TCP connections, that are under way.",
        of_each("external", ("name",), "active"),
    ),
    Metric(
        "broker_external_connections_accepted",
        "counter",
        PORT,
        "Connections that clients opened.",
        of_each("external", ("name",), "accepted"),
    ),
    Metric(
        "broker_external_connections_refused",
        "counter",
        PORT,
        "Connections that were refused because a limit was reached.",
        of_each("external", ("name",), "refused"),
    ),
    Metric(
        "broker_external_connections_denied",
        "counter",
        PORT,
        "Connections that were refused for their address, or for want of a PROXY header.",
        of_each("external", ("name",), "denied"),
    ),
    Metric(
        "broker_tls_handshakes",
        "counter",
        ("port", "result"),
        "TLS handshakes with clients: full, resumed or failed.",
        handshakes,
    ),
    Metric(
        "broker_certificate_not_after_timestamp_seconds",
        "gauge",
        ("kind", "at", "file"),
        "When a certificate expires, in seconds since 1970: (it - time()) / 86400 are the days left.",
        of_each("certificates", ("kind", "at", "file"), "not_after"),
    ),
    # --- tunnels
    Metric(
        "broker_registration_tunnels",
        "gauge",
        PORT,
        "Tunnels that are registered.",
        of_each("registration", ("name",), "tunnels"),
    ),
    Metric(
        "broker_registration_logins_pending",
        "gauge",
        PORT,
        "Connections that have not logged in yet.",
        of_each("registration", ("name",), "logins_pending"),
    ),
    Metric(
        "broker_registration_logins",
        "counter",
        PORT,
        "Tunnels that were registered.",
        of_each("registration", ("name",), "logins"),
    ),
    Metric(
        "broker_registration_logins_crowded_out",
        "counter",
        PORT,
        "Connections that gave way before they had logged in.",
        of_each("registration", ("name",), "crowded_out"),
    ),
    Metric(
        "broker_registration_logins_turned_away",
        "counter",
        PORT,
        "Connections that were refused for failed logins before.",
        of_each("registration", ("name",), "turned_away"),
    ),
    Metric(
        "broker_registration_networks_punished",
        "gauge",
        PORT,
        "Networks whose connections are refused: too many failed logins.",
        of_each("registration", ("name",), "punished"),
    ),
    Metric(
        "broker_registration_refusals",
        "counter",
        ("port", "code"),
        "Logins that were refused, by code.",
        of_table("registration", ("name",), "refusals"),
    ),
    Metric(
        "broker_registration_evictions",
        "counter",
        PORT,
        "Tunnels that a new login of the same agent replaced.",
        of_each("registration", ("name",), "evicted"),
    ),
    Metric(
        "broker_registration_tunnels_lost",
        "counter",
        PORT,
        "Tunnels that ended without a farewell.",
        of_each("registration", ("name",), "lost"),
    ),
    Metric(
        "broker_connect_tunnels",
        "gauge",
        ("url", "state"),
        "Tunnels to a registration port: up, or missing.",
        dialled,
    ),
    Metric(
        "broker_connect_tunnels_lost",
        "counter",
        ("url",),
        "Tunnels to a registration port that ended without a farewell.",
        of_each("connect", ("url",), "lost"),
    ),
    Metric("broker_agent_tunnels", "gauge", AGENT, "Tunnels of an agent that are up.", of_agents("tunnels")),
    Metric(
        "broker_agent_streams", "gauge", AGENT, "Streams that are open in its tunnels.", of_agents("streams")
    ),
    Metric(
        "broker_agent_round_trip_seconds",
        "gauge",
        AGENT,
        "The longest round trip of its tunnels.",
        round_trips,
    ),
    Metric(
        "broker_agent_window_bytes",
        "gauge",
        AGENT,
        "What the windows of its tunnels' streams promise together.",
        of_agents("window_bytes"),
    ),
    Metric(
        "broker_agent_received_bytes",
        "counter",
        AGENT,
        "Bytes that came through its tunnels.",
        of_agents("bytes_in"),
    ),
    Metric(
        "broker_agent_sent_bytes",
        "counter",
        AGENT,
        "Bytes that went through its tunnels.",
        of_agents("bytes_out"),
    ),
    Metric(
        "broker_agent_streams_opened",
        "counter",
        AGENT,
        "Streams that this node opened in its tunnels.",
        of_agents("opened"),
    ),
    Metric(
        "broker_agent_streams_accepted",
        "counter",
        AGENT,
        "Streams that the other side opened.",
        of_agents("accepted"),
    ),
    Metric(
        "broker_agent_resets_received",
        "counter",
        AGENT,
        "Streams that the other side broke off.",
        of_agents("resets_in"),
    ),
    Metric(
        "broker_agent_resets_sent",
        "counter",
        AGENT,
        "Streams that this node broke off.",
        of_agents("resets_out"),
    ),
    Metric(
        "broker_agent_credit_stalls",
        "counter",
        AGENT,
        "Times that a stream had bytes to send and no credit left: whoever reads them is slower.",
        of_agents("stalls"),
    ),
    # --- services
    Metric(
        "broker_service_tunnels",
        "gauge",
        ("registration", "service"),
        "Tunnels that lead to a service.",
        announced("tunnels"),
    ),
    Metric(
        "broker_service_waiting",
        "gauge",
        ("registration", "service"),
        "Requests that wait for one of its agents.",
        announced("waiting"),
    ),
    Metric(
        "broker_upstream_requests_active",
        "gauge",
        ("at", "service"),
        "Requests, and TCP connections, to its upstreams.",
        local("active"),
    ),
    Metric(
        "broker_upstream_connections_idle",
        "gauge",
        ("at", "service"),
        "Idle connections that are kept.",
        local("idle"),
    ),
    Metric(
        "broker_upstream_connects",
        "counter",
        ("at", "service"),
        "Connections that were opened.",
        local("connects"),
    ),
    Metric(
        "broker_upstream_connect_failures",
        "counter",
        ("at", "service"),
        "Connections that failed.",
        local("connect_failures"),
    ),
    Metric(
        "broker_upstream_connections_reused",
        "counter",
        ("at", "service"),
        "Requests that took an idle connection.",
        local("reused"),
    ),
    # --- the node
    Metric("broker_buffer_bytes", "gauge", (), "Bytes in buffers.", of_node("memory", "buffer_bytes")),
    Metric(
        "broker_buffer_limit_bytes", "gauge", (), "Budget of all buffers.", of_node("memory", "limit_bytes")
    ),
    Metric(
        "broker_window_bytes",
        "gauge",
        (),
        "What the windows of all tunnels' streams promise together.",
        of_node("memory", "window_bytes"),
    ),
    Metric(
        "broker_window_limit_bytes",
        "gauge",
        (),
        "Budget of those windows.",
        of_node("memory", "window_limit_bytes"),
    ),
    Metric(
        "broker_reloads",
        "counter",
        ("result",),
        "Reloads of the configuration: ok, failed.",
        lambda status: [((result,), count) for result, count in status["reloads"].items()],
    ),
    Metric(
        "broker_worker_restarts",
        "counter",
        ("worker",),
        "Times that a worker was replaced. Of one that was killed, the counts of its last seconds are lost.",
        of_each("workers", ("index",), "restarts"),
    ),
    Metric(
        "broker_access_log_records",
        "counter",
        (),
        "Records of the access log.",
        of_maybe("access_log", "records"),
    ),
    Metric(
        "broker_access_log_dropped",
        "counter",
        (),
        "Records of the access log that were lost.",
        of_maybe("access_log", "dropped"),
    ),
    Metric(
        "broker_spans",
        "counter",
        ("result",),
        "Spans that the receiver has taken (exported), or that were lost (dropped).",
        of_maybe("tracing", "exported", "dropped"),
    ),
    Metric(
        "broker_loop_wakeups",
        "counter",
        (),
        "Times that the event loop woke for data sockets.",
        of_node("loop", "wakeups"),
    ),
    Metric(
        "broker_loop_events", "counter", (), "Readiness events of data sockets.", of_node("loop", "events")
    ),
    Metric(
        "process_cpu_seconds", "counter", (), "Processor time, user and system.", of_node("process", "cpu_s")
    ),
    Metric(
        "process_resident_memory_bytes", "gauge", (), "Resident memory.", of_node("memory", "resident_bytes")
    ),
    Metric("process_open_fds", "gauge", (), "Open descriptors.", of_node("process", "descriptors")),
    Metric(
        "process_max_fds",
        "gauge",
        (),
        "Descriptors that each process may open.",
        of_node("process", "descriptor_limit"),
    ),
    Metric(
        "process_start_time_seconds",
        "gauge",
        (),
        "When it was started, in seconds since 1970.",
        of_node("process", "started"),
    ),
)


class StatusCollector(Collector):
    def __init__(self, status: Callable[[], Status]) -> None:
        self._status = status

    def describe(self) -> Iterable[Family]:
        return []  # registering does not need the status

    def collect(self) -> Iterator[Family]:
        status = self._status()
        for metric in METRICS:
            yield metric.family(status)


class Metrics:
    """What /metrics answers."""

    def __init__(self) -> None:
        self._status: Status = {}
        self._registry = CollectorRegistry()
        self._registry.register(StatusCollector(lambda: self._status))
        PlatformCollector(registry=self._registry)

    def render(self, status: Status) -> tuple[bytes, str]:
        """Of this document; where there are workers, the merged one. The body and its type."""
        self._status = status
        return generate_latest(self._registry), CONTENT_TYPE_LATEST


REFERENCE_HEAD = """\
# Metrics

What `/metrics` at the admin port answers, in Prometheus' text format. This page is made from the program
(`scripts/reference`), and a test holds it.

Several worker processes of one node are summed, those that are gone included: counters do not go down when a
worker is replaced. What a killed one counted since the last look (a scrape, at most 5 seconds ago) is lost,
and the log says so.

Labels are bounded: `port`, `at` and `url` are configured; `service`, `user` and `agent` belong to whoever has
logged in, and beyond 200 services of a port, or 1,000 agents or announced services, the rest is counted as
`(other)`. `(none)` is what led to no service. No label holds anything that a client has sent.

For Grafana there is a dashboard, `packaging/grafana/broker.json`: import it and choose the data source.

"""


def reference() -> str:
    """docs/metrics.md."""
    lines = ["| metric | type | labels | meaning |", "|---|---|---|---|"]
    for metric in METRICS:
        labels = ", ".join(f"`{label}`" for label in metric.labels)
        lines.append(f"| `{metric.series}` | {metric.kind} | {labels} | {metric.text} |")
    return REFERENCE_HEAD + "\n".join(lines) + "\n"
