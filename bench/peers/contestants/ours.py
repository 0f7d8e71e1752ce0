"""This product: a DMZ node and an agent."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from bench.peers import certificate
from bench.peers.contestant import PLAIN, Contestant, Endpoint, Site, Tls
from bench.peers.processes import Processes, free_ports

# More streams in one tunnel and more clients than are allowed by themselves, as some scenarios have them.
LIMITS = {"streams": 20_000, "connections": 30_000, "in_flight": "none", "requests": "none"}


class Ours(Contestant):
    many_agents = True

    def __init__(
        self, tls: Tls = PLAIN, workers: int = 1, tree: Path | None = None, *, logs: bool = True
    ) -> None:
        self.name = f"ours{tls.suffix}" + (f"-{workers}-workers" if workers > 1 else "")
        self.title = f"broker{tls.words}" + (f", {workers} workers" if workers > 1 else "")
        if tree is not None:
            self.name, self.title = f"ours@{tree.name}{tls.suffix}", f"broker of {tree.name}{tls.words}"
        if not logs:
            self.name, self.title = f"{self.name}-no-log", f"{self.title}, never an access log"
        self.logs = logs
        self.tls = tls.outside
        self.workers = workers
        self._tls = tls
        self._tree = tree

    def missing(self) -> str | None:
        if self._tree is not None:
            built = any((self._tree / "_fastpath").glob("reactor.*.so"))
            return None if built else f"{self._tree} is not built: python setup.py build_ext --inplace"
        if importlib.util.find_spec("broker") and importlib.util.find_spec("_fastpath.reactor"):
            return None
        return "the extension modules are not built: python setup.py build_ext --inplace"

    def version(self) -> str:
        if self._tree is not None:
            return ""
        try:
            return importlib.metadata.version("tunnel-broker")
        except importlib.metadata.PackageNotFoundError:
            return "from this working copy"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        cert = certificate.make(processes.directory)
        tls = {"tls": {"certificates": [{"cert": str(cert.cert), "key": str(cert.key)}]}}
        outside, tunnel = self._tls.outside, self._tls.tunnel
        external = {"listen": f"http{'s' * outside}://127.0.0.1:{port}", **(tls if outside else {})}
        registration = f"http{'s' * tunnel}://{site.near}:{between}"
        dmz = {
            "external": [external],
            "registration": [{"listen": registration, **(tls if tunnel else {})}],
        }
        options = ["--workers", str(self.workers), *(["--insecure"] if site.far else [])]
        self._start(site, processes, "serve", "serve", dmz, options)
        connect = {"url": registration, "tunnels": site.tunnels}
        if tunnel:
            connect["tls"] = {"ca": str(cert.cert)}
        for number, host in enumerate(site.hosts() or [""]):
            service = {"upstream": "http://{}:{}".format(*site.upstream), **({"match": host} if host else {})}
            agent = {"connect": [connect], "services": [service]}
            self._start(site, processes, f"connect{number or ''}", "connect", agent)
        return Endpoint(port, between=between, tls=outside)

    def _start(
        self,
        site: Site,
        processes: Processes,
        name: str,
        command: str,
        config: Mapping[str, object],
        options: Sequence[str] = (),
    ) -> None:
        limits = {name: LIMITS[name] for name in ("streams", "connections")} if self._tree else LIMITS
        content = {**config, "limits": limits}
        if site.access_log and self.logs:
            log = processes.directory / f"{name}-access.log"
            content["access_log"] = {"path": str(log), "format": "json"}
        path = processes.directory / f"{name}.yaml"
        path.write_text(yaml.safe_dump(content))
        before = site.far if command == "connect" else ()
        tree = str(self._tree) if self._tree else ":".join(sys.path if sys.path[0] else sys.path[1:])
        words = [*before, sys.executable, "-m", "broker", command, str(path), *options]
        processes.start(name, words, {"PYTHONPATH": tree, "PYTHONSAFEPATH": "1"})
