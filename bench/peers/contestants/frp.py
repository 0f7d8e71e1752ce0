"""frp: frps and frpc, with the settings of its own README.

By itself it speaks TLS in the tunnel, and believes every certificate.
"""

from __future__ import annotations

from bench.peers import certificate
from bench.peers.contestant import BOTH, PLAIN, TUNNEL, Contestant, Endpoint, Site, Tls
from bench.peers.contestants.programs import ask_version, find, found
from bench.peers.processes import Processes, free_ports

SERVER = """
bindAddr = "{near}"
bindPort = {between}
proxyBindAddr = "127.0.0.1"
auth.token = "1233"
{vhost}
"""

AGENT = """
serverAddr = "{near}"
serverPort = {between}
auth.token = "1233"
transport.tls.enable = {tunnel_tls}

[[proxies]]
name = "bench{number}"
type = "{kind}"
{where}
"""

BACKEND = """localIP = "{host}"
localPort = {upstream}
"""

# The only way in which it ends TLS for clients: in the agent.
PLUGIN = """[proxies.plugin]
type = "https2http"
localAddr = "{host}:{upstream}"
crtPath = "{cert}"
keyPath = "{key}"
"""


VARIANTS = {
    PLAIN: ("-plain", ", TLS switched off"),
    TUNNEL: ("", ", TLS in the tunnel"),
    BOTH: ("-both-tls", "s, TLS outside (plugin https2http of the agent) and in the tunnel"),
}


class Frp(Contestant):
    """`proxy` is http, or tcp, which passes bytes."""

    def __init__(self, proxy: str, tls: Tls = TUNNEL) -> None:
        suffix, words = VARIANTS[tls]
        self.name = f"frp-{proxy}{suffix}"
        self.title = f"frp, type {proxy}{words}"
        self.kind = proxy
        self.tls = tls.outside
        self.many_agents = proxy == "http" and not tls.outside
        self._tls = tls

    def missing(self) -> str | None:
        if find("frps") and find("frpc"):
            return None
        return (
            "go install github.com/fatedier/frp/cmd/frps@VERSION and …/cmd/frpc@VERSION, "
            "or its release archive"
        )

    def version(self) -> str:
        return ask_version(find("frps"), "--version")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        vhost = {"http": f"vhostHTTPPort = {port}", "tcp": ""}[self.kind]
        if self.tls:
            vhost = f"vhostHTTPSPort = {port}"
        server = SERVER.format(near=site.near, between=between, vhost=vhost)
        self._start(processes, "frps", server)
        processes.until_listening(between)  # an agent whose first login fails ends
        for number, domain in enumerate(site.hosts() or ["127.0.0.1"]):
            agent = AGENT.format(
                near=site.near,
                between=between,
                tunnel_tls="true" if self._tls.tunnel else "false",
                number=number,
                kind="https" if self.tls else self.kind,
                where=self._where(site, processes, port, domain),
            )
            self._start(processes, f"frpc{number or ''}", agent, site)
        return Endpoint(
            port, between=between, tls=self.tls, host=certificate.NAME if self.tls else "127.0.0.1"
        )

    def _where(self, site: Site, processes: Processes, port: int, domain: str) -> str:
        host, upstream = site.upstream
        backend = BACKEND.format(host=host, upstream=upstream)
        if self.kind == "tcp":
            return f"{backend}remotePort = {port}"
        if not self.tls:
            return f'{backend}customDomains = ["{domain}"]'
        files = certificate.make(processes.directory)
        plugin = PLUGIN.format(host=host, upstream=upstream, cert=files.cert, key=files.key)
        return f'customDomains = ["{certificate.NAME}"]\n{plugin}'

    def _start(self, processes: Processes, name: str, config: str, site: Site | None = None) -> None:
        path = processes.directory / f"{name}.toml"
        path.write_text(config)
        before = site.far if site else ()
        processes.start(name, [*before, found(name.rstrip("0123456789")), "-c", path])
