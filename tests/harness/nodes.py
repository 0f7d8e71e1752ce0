"""DMZ nodes and agents: the real program with a generated configuration file."""

import contextlib
import copy
import os
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.harness.client import RawClient, fetch, fetch_json, host_of, try_fetch
from tests.harness.message import Response
from tests.harness.origin import Origin
from tests.harness.ports import free_port
from tests.harness.process import Process, broker, environment
from tests.harness.waiting import DEADLINE, wait_until

Snippet = dict[str, Any]


def merge(base: Snippet, extra: Snippet | None) -> Snippet:
    """`extra` over `base`: maps are merged, everything else replaces."""
    result = copy.deepcopy(base)
    for key, value in (extra or {}).items():
        old = result.get(key)
        result[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return result


def loopback(scheme: str = "http", host: str = "127.0.0.1", rest: str = "") -> str:
    """A listen URL on a free port."""
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{free_port()}{rest}"


def address_of(url: str) -> tuple[str, int]:
    host, _, port = url.partition("//")[2].partition("/")[0].rpartition(":")
    return host.strip("[]"), int(port)


class Node:
    """A node's configuration and, while it runs, its process."""

    command = ""
    flags: tuple[str, ...] = ()

    def __init__(
        self, directory: Path, name: str, config: Snippet, env: dict[str, str] | None = None
    ) -> None:
        self.name = name
        self.config = config
        self.path = directory / f"{name}.yaml"
        self.env = env
        self.processes: list[Process] = []
        self.write(config)

    def write(self, config: Snippet) -> None:
        """Put a configuration where the node (re)reads it."""
        self.config = config
        self.path.write_text(yaml.safe_dump(config, sort_keys=False))

    @property
    def process(self) -> Process:
        return self.processes[-1]

    @property
    def admin(self) -> tuple[str, int]:
        return address_of(self.config["admin"]["listen"])

    def start(self, ready: bool = True) -> "Node":
        args = [self.command, str(self.path), *self.flags]
        self.processes.append(broker(*args, name=self.name, cwd=self.path.parent, env=self.env))
        if ready:
            self.wait_ready()
        return self

    def launch(self, program: str) -> None:
        """Start it by a Python program that executes it in the end."""
        args = [sys.executable, "-c", program]
        self.processes.append(Process(args, name=self.name, cwd=self.path.parent, env=environment(self.env)))
        self.wait_ready()

    def ready(self) -> bool:
        response = try_fetch(self.admin, "/readyz", host=host_of(self.admin), timeout=5)
        return response is not None and response.status == 200

    def wait_ready(self, deadline: float = DEADLINE) -> None:
        def check() -> bool:
            assert self.process.running, f"{self.name} ended instead of becoming ready\n{self.process.output}"
            return self.ready()

        try:
            wait_until(check, f"{self.name} is ready", deadline)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.process.output}") from None

    def status(self) -> dict[str, Any]:
        value = fetch_json(self.admin, "/status")
        assert isinstance(value, dict)
        return value

    def admin_post(self, target: str) -> Response:
        return fetch(self.admin, target, "POST", body=b"", host=host_of(self.admin))

    def stop(self) -> None:
        """SIGTERM, and exit code 0."""
        self.process.terminate()
        self.process.expect_exit(0)

    def restart(self, ready: bool = True) -> None:
        self.start(ready)

    def close(self) -> None:
        """End what runs; every process must have ended cleanly unless a test killed it."""
        errors = []
        for process in self.processes:
            try:
                process.finish()
            except AssertionError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def discard(self) -> None:
        for process in self.processes:
            process.kill()


class DmzNode(Node):
    command = "serve"

    @property
    def flags(self) -> tuple[str, ...]:  # type: ignore[override]
        """One process, where the configuration does not say that it is about several.

        BROKER_TEST_WORKERS=3 runs any test with several.
        """
        return () if "workers" in self.config else ("--workers", os.environ.get("BROKER_TEST_WORKERS", "1"))

    @property
    def external(self) -> tuple[str, int]:
        return self.external_at(0)

    def external_at(self, index: int) -> tuple[str, int]:
        return address_of(self.config["external"][index]["listen"])

    def registration_at(self, index: int = 0) -> tuple[str, int]:
        return address_of(self.config["registration"][index]["listen"])

    def registration_url(self, index: int = 0) -> str:
        return str(self.config["registration"][index]["listen"])

    def client(self, host: str = "test.example", **more: Any) -> RawClient:
        return RawClient(self.external, host, **more)

    def fetch(self, target: str = "/", method: str = "GET", **more: Any) -> Response:
        return fetch(self.external, target, method, **more)

    def wait_agents(self, tunnels: int, deadline: float = DEADLINE) -> None:
        """Until this many tunnels are registered, by the kernel's and the node's own count."""
        wait_until(
            lambda: count_tunnels(self.status()) == tunnels or None,
            f"{self.name} has {tunnels} tunnels",
            deadline,
        )


class Agent(Node):
    command = "connect"


def count_tunnels(status: dict[str, Any]) -> int:
    """Tunnels in a node's /status, on whichever side it is."""
    return len(status["tunnels"])


def dmz_config(extra: Snippet | None = None) -> Snippet:
    return merge(
        {
            "external": [{"name": "web", "listen": loopback()}],
            "registration": [{"name": "green", "listen": loopback()}],
            "admin": {"listen": loopback()},
        },
        extra,
    )


def agent_config(
    urls: list[str], services: list[Snippet], tunnels: int = 1, extra: Snippet | None = None
) -> Snippet:
    return merge(
        {
            "connect": [{"url": url, "tunnels": tunnels} for url in urls],
            "services": services,
            "admin": {"listen": loopback()},
        },
        extra,
    )


def everything(origin: Origin) -> Snippet:
    """A service that matches all requests."""
    return {"match": "/", "upstream": origin.url}


@dataclass
class Pair:
    """A DMZ node with one agent behind it, and the origin behind that."""

    dmz: DmzNode
    agent: Agent
    origin: Origin

    @property
    def address(self) -> tuple[str, int]:
        return self.dmz.external

    def client(self, **more: Any) -> RawClient:
        return self.dmz.client(**more)

    def fetch(self, target: str = "/", method: str = "GET", **more: Any) -> Response:
        return self.dmz.fetch(target, method, **more)

    def assert_alive(self) -> None:
        """Both processes run and a request passes."""
        for node in (self.dmz, self.agent):
            assert node.process.running, node.process.output
            node.process.assert_clean()
        assert self.fetch("/alive").status == 200


@dataclass
class World:
    """Makes nodes and origins, and ends them all; a failed test shows what they said."""

    directory: Path
    nodes: list[Node] = field(default_factory=list)
    origins: list[Origin] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)

    def origin(
        self,
        name: str = "origin",
        family: str = "tcp",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> Origin:
        path = str(self.directory / f"{name}.sock") if family == "unix" else None
        origin = Origin(name, family, path, port, tls)
        self.origins.append(origin)
        return origin

    def dmz(self, extra: Snippet | None = None, name: str = "dmz", start: bool = True) -> DmzNode:
        return self._add(DmzNode(self.directory, self._unique(name), dmz_config(extra)), start)

    def agent(
        self,
        urls: str | list[str],
        services: list[Snippet],
        tunnels: int = 1,
        extra: Snippet | None = None,
        name: str = "agent",
        start: bool = True,
    ) -> Agent:
        urls = [urls] if isinstance(urls, str) else urls
        node = Agent(self.directory, self._unique(name), agent_config(urls, services, tunnels, extra))
        return self._add(node, start)

    def pair(
        self,
        dmz: Snippet | None = None,
        agent: Snippet | None = None,
        services: Callable[[Origin], list[Snippet]] | None = None,
        tunnels: int = 1,
    ) -> Pair:
        """A DMZ node and an agent that serves everything from a fresh origin."""
        origin = self.origin()
        node = self.dmz(dmz)
        offered = services(origin) if services else [everything(origin)]
        agent_node = self.agent(node.registration_url(), offered, tunnels, agent)
        return Pair(node, agent_node, origin)

    def process(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    def _unique(self, name: str) -> str:
        taken = {node.name for node in self.nodes}
        return next(n for n in [name, *(f"{name}-{i}" for i in range(2, 100))] if n not in taken)

    def _add(self, node: Any, start: bool) -> Any:
        self.nodes.append(node)
        if start:
            node.start()
        return node

    @property
    def output(self) -> str:
        return "\n".join(process.output for node in self.nodes for process in node.processes)

    def close(self) -> None:
        """Agents first, then DMZ nodes, then origins; the first failure is raised after all are down."""
        errors: list[AssertionError] = []
        for node in [*(n for n in self.nodes if isinstance(n, Agent)), *self.nodes]:
            with _collected(errors):
                node.close()
        for process in self.processes:
            with _collected(errors):
                process.finish()
        for origin in self.origins:
            origin.close()
            with _collected(errors):
                origin.raise_errors()
        if errors:
            raise errors[0]

    def discard(self) -> None:
        """After a failure: only make sure that nothing is left."""
        for node in self.nodes:
            node.discard()
        for process in self.processes:
            process.kill()
        for origin in self.origins:
            origin.close()


@contextlib.contextmanager
def _collected(errors: list[AssertionError]) -> Iterator[None]:
    try:
        yield
    except AssertionError as error:
        errors.append(error)
