"""HAProxy: as one plain hop, as two, and with reverse HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers import certificate
from bench.peers.contestant import PLAIN, Contestant, Endpoint, Site, Tls
from bench.peers.contestants.programs import as_numbers, ask_version, find
from bench.peers.processes import Processes, free_ports

FIRST_WITH_REVERSE_HTTP = (2, 9)

# One thread: the others have one per process too. By itself it would allow half as many clients as there are
# descriptors, as each could need a connection behind it. An access log goes to standard
# output, which is a file here, as in a container: the other way, datagrams to syslog, costs a system call per
# request too, and syslog's work.
GLOBAL = """
global
    nbthread 1
    maxconn {maxconn}
    no strict-limits
{extra}

defaults
    mode http
    {log}
    timeout connect 5s
    timeout client 75s
    timeout server 75s
"""

HOP = """
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
    bind {between} proto h2{tunnel_tls}
    tcp-request session attach-srv reverse/agent{name}

backend reverse
    http-reuse always
    server agent rhttp@ pool-purge-delay 1h{pick}
"""

AGENT = """
frontend reversed
    bind rhttp@edge/edge nbconn {tunnels}
    default_backend next

backend edge
    server edge {between} proto h2{tunnel_tls}

backend next
    server next {host}:{upstream}
"""


class HAProxy(Contestant):
    """One plain hop."""

    logs = True

    def __init__(self, tls: Tls = PLAIN) -> None:
        self.name = f"haproxy{tls.suffix}"
        self.title = f"HAProxy, one hop{tls.words}" if tls.outside else "HAProxy, one plain hop"
        self.tls = tls.outside

    def missing(self) -> str | None:
        return None if find("haproxy") else "Debian: apt install haproxy"

    def version(self) -> str:
        return ask_version(find("haproxy"), "-v")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        (port,) = free_ports(1)
        bind = f"{port}{_server_tls(self.tls, processes.directory)}"
        _start(processes, "haproxy", find("haproxy"), _preamble(site) + _plain(bind, site.upstream))
        return Endpoint(port, tls=self.tls)


class HAProxyTwice(HAProxy):
    """Two plain hops, as many connections between them as it takes."""

    def __init__(self) -> None:
        super().__init__()
        self.name = "haproxy2"
        self.title = "HAProxy, two plain hops"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        outer, inner = free_ports(2)
        program = find("haproxy")
        _start(processes, "inner", program, _preamble(site) + _plain(inner, site.upstream))
        _start(processes, "outer", program, _preamble(site) + _plain(outer, ("127.0.0.1", inner)))
        return Endpoint(outer, between=inner)


class ReverseHTTP(Contestant):
    """Reverse HTTP: the agent dials, the edge sends requests back through HTTP/2 streams."""

    many_agents = True
    logs = True

    def __init__(self, program: Path | None, tls: Tls = PLAIN) -> None:
        self.name = f"rhttp{tls.suffix}"
        self.title = f"HAProxy, reverse HTTP{tls.words}"
        self.tls = tls.outside
        self._tls = tls
        self._program = program or find("haproxy-rhttp") or find("haproxy")

    def missing(self) -> str | None:
        if as_numbers(self.version()) >= FIRST_WITH_REVERSE_HTTP:
            return None
        return (
            "HAProxy 2.9 or newer: newer Debian releases or haproxy.debian.net have it; "
            "haproxy-rhttp on PATH or --haproxy-rhttp PATH"
        )

    def version(self) -> str:
        return ask_version(self._program, "-v")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        directory = processes.directory
        preamble = _preamble(site, REVERSE_GLOBAL)
        edge = EDGE.format(
            port=f"{port}{_server_tls(self._tls.outside, directory)}",
            between=f"{site.near}:{between}",
            tunnel_tls=f"{_server_tls(self._tls.tunnel, directory)}{' alpn h2' * self._tls.tunnel}",
            name=" name src" if site.hosts() else "",
            pick=" pool-conn-name hdr(host)" if site.hosts() else "",
        )
        _start(processes, "edge", self._program, preamble + edge)
        tunnel_tls = ""
        if self._tls.tunnel:
            ca = certificate.make(directory).cert
            tunnel_tls = f" ssl verify required ca-file {ca} verifyhost {certificate.NAME} alpn h2"
        for number, host in enumerate(site.hosts() or [""]):
            agent = AGENT.format(
                between=f"{site.near}:{between}",
                tunnels=site.tunnels,
                host=site.upstream[0],
                upstream=site.upstream[1],
                tunnel_tls=tunnel_tls + (f" source {host}" if host else ""),
            )
            _start(processes, f"agent{number or ''}", self._program, preamble + agent, site.far)
        return Endpoint(port, between=between, tls=self.tls)


def _server_tls(wanted: bool, directory: Path) -> str:
    """What a `bind` line says more."""
    return f" ssl crt {certificate.make(directory).bundle}" if wanted else ""


def _preamble(site: Site, extra: str = "") -> str:
    return GLOBAL.format(
        maxconn=site.descriptors - 200,
        extra=extra,
        log="log stdout format raw local0\n    option httplog" if site.access_log else "no log",
    )


def _plain(port: int | str, upstream: tuple[str, int]) -> str:
    return HOP.format(port=port, host=upstream[0], upstream=upstream[1])


def _start(
    processes: Processes, name: str, program: Path | None, config: str, before: Sequence[str] = ()
) -> None:
    assert program is not None, "whoever starts it has asked what is missing"
    path = processes.directory / f"{name}.cfg"
    path.write_text(config)
    processes.start(name, [*before, program, "-db", "-f", path])
