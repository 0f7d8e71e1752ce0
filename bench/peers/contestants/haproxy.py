"""HAProxy: as one plain hop, as two, and with reverse HTTP."""

from __future__ import annotations

from pathlib import Path

from bench.peers import certificate
from bench.peers.contestant import Contestant, Endpoint, Site
from bench.peers.contestants.programs import as_numbers, ask_version, find
from bench.peers.processes import Processes, free_ports

FIRST_WITH_REVERSE_HTTP = (2, 9)

# One thread: the others have one per process too. By itself it would allow half as many clients as there are
# descriptors, as each could need a connection behind it. An access log goes to a ring in memory, which costs
# the formatting only: standard output would need a pipe that somebody reads.
GLOBAL = """
global
    nbthread 1
    maxconn {maxconn}
    no strict-limits
{extra}
{log_ring}

defaults
    mode http
    {log}
    timeout connect 5s
    timeout client 75s
    timeout server 75s
"""

PLAIN = """
frontend clients
    bind 127.0.0.1:{port}
    default_backend next

backend next
    server next {host}:{upstream}
"""

# Without these the edge answers 503 above 100 requests at once and throws its idle tunnel away when many
# clients are connected: both are said in the manual, so a user would set them.
REVERSE_GLOBAL = """
    expose-experimental-directives
    tune.h2.max-concurrent-streams 20000
    tune.pool-low-fd-ratio 90
    tune.pool-high-fd-ratio 95
"""

EDGE = """
frontend clients
    bind 127.0.0.1:{port}
    default_backend reverse

frontend agents
    bind 127.0.0.1:{between} proto h2
    tcp-request session attach-srv reverse/agent

backend reverse
    http-reuse always
    server agent rhttp@ pool-purge-delay 1h
"""

AGENT = """
frontend reversed
    bind rhttp@edge/edge nbconn {tunnels}
    default_backend next

backend edge
    server edge 127.0.0.1:{between} proto h2

backend next
    server next {host}:{upstream}
"""


class HAProxy(Contestant):
    """One plain hop."""

    name = "haproxy"
    title = "HAProxy, one plain hop"

    def missing(self) -> str | None:
        return None if find("haproxy") else "Debian: apt install haproxy"

    def version(self) -> str:
        return ask_version(find("haproxy"), "-v")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        (port,) = free_ports(1)
        _start(processes, "haproxy", find("haproxy"), _preamble(site) + _plain(port, site.upstream))
        return Endpoint(port)


class HAProxyTls(HAProxy):
    """The same, but clients speak TLS."""

    name = "haproxy-tls"
    title = "HAProxy, one hop, TLS outside"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        (port,) = free_ports(1)
        certificate.make(processes.directory)
        bind = f"{port} ssl crt {processes.directory}/bundle.pem"
        _start(processes, "haproxy", find("haproxy"), _preamble(site) + _plain(bind, site.upstream))
        return Endpoint(port, tls=True)


class HAProxyTwice(HAProxy):
    """Two plain hops, as many connections between them as it takes."""

    name = "haproxy2"
    title = "HAProxy, two plain hops"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        outer, inner = free_ports(2)
        program = find("haproxy")
        _start(processes, "inner", program, _preamble(site) + _plain(inner, site.upstream))
        _start(processes, "outer", program, _preamble(site) + _plain(outer, ("127.0.0.1", inner)))
        return Endpoint(outer, between=inner)


class ReverseHTTP(Contestant):
    """Reverse HTTP: the agent dials, the edge sends requests back through HTTP/2 streams."""

    name = "rhttp"
    title = "HAProxy, reverse HTTP"

    def __init__(self, program: Path | None) -> None:
        self._program = program or find("haproxy")

    def missing(self) -> str | None:
        if as_numbers(self.version()) >= FIRST_WITH_REVERSE_HTTP:
            return None
        return (
            "HAProxy 2.9 or newer: newer Debian releases or haproxy.debian.net have it; --haproxy-rhttp PATH"
        )

    def version(self) -> str:
        return ask_version(self._program, "-v")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        preamble = _preamble(site, REVERSE_GLOBAL)
        edge = EDGE.format(port=port, between=between)
        agent = AGENT.format(between=between, tunnels=site.tunnels, host=host, upstream=upstream)
        _start(processes, "edge", self._program, preamble + edge)
        _start(processes, "agent", self._program, preamble + agent)
        return Endpoint(port, between=between)


def _preamble(site: Site, extra: str = "") -> str:
    return GLOBAL.format(
        maxconn=site.descriptors - 200,
        extra=extra,
        log="log ring@access local0\n    option httplog" if site.access_log else "no log",
        log_ring="ring access\n    size 1048576\n    format rfc5424" if site.access_log else "",
    )


def _plain(port: int | str, upstream: tuple[str, int]) -> str:
    return PLAIN.format(port=port, host=upstream[0], upstream=upstream[1])


def _start(processes: Processes, name: str, program: Path | None, config: str) -> None:
    assert program is not None, "whoever starts it has asked what is missing"
    path = processes.directory / f"{name}.cfg"
    path.write_text(config)
    processes.start(name, [program, "-db", "-f", path])
