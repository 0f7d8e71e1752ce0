"""This product: a DMZ node and an agent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from pathlib import Path

from bench.peers import certificate
from bench.peers.contestant import Contestant, Endpoint, Site
from bench.peers.processes import Failed, Processes, free_ports

DMZ = """
external:
  - {external}
registration:
  - listen: http://127.0.0.1:{between}
"""

# More than 10,000 streams in one tunnel, as some scenarios have them, must be allowed.
LIMITS = """
limits:
  streams: 20000
"""

AGENT = """
connect:
  - url: http://127.0.0.1:{between}
    tunnels: {tunnels}
services:
  - upstream: http://{host}:{upstream}
"""


class Ours(Contestant):
    name = "ours"
    title = "broker"
    tls = False

    def missing(self) -> str | None:
        if importlib.util.find_spec("broker") and importlib.util.find_spec("_fastpath.reactor"):
            return None
        return "the extension modules are not built: python setup.py build_ext --inplace"

    def version(self) -> str:
        try:
            return importlib.metadata.version("broker")
        except importlib.metadata.PackageNotFoundError:
            return "from this working copy"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        if site.access_log:
            raise Failed("it has no access log to switch on")
        port, between = free_ports(2)
        host, upstream = site.upstream
        external = self.external(port, processes.directory)
        self._start(processes, "serve", DMZ.format(external=external, between=between))
        agent = AGENT.format(between=between, tunnels=site.tunnels, host=host, upstream=upstream)
        self._start(processes, "connect", agent)
        return Endpoint(port, between=between, tls=self.tls)

    def external(self, port: int, _directory: Path) -> str:
        return f"{{listen: http://127.0.0.1:{port}}}"

    def _start(self, processes: Processes, command: str, config: str) -> None:
        path = processes.directory / f"{command}.yaml"
        path.write_text(config + LIMITS)
        here = ":".join(sys.path[1:] if not sys.path[0] else sys.path)
        one = ["--workers", "1"] if command == "serve" else []
        processes.start(command, [sys.executable, "-m", "broker", command, path, *one], {"PYTHONPATH": here})


class OursTls(Ours):
    """The same, but clients speak TLS."""

    name = "ours-tls"
    title = "broker, TLS outside"
    tls = True

    def external(self, port: int, directory: Path) -> str:
        cert, key = certificate.make(directory)
        return f"{{listen: https://127.0.0.1:{port}, tls: {{certificates: [{{cert: {cert}, key: {key}}}]}}}}"
