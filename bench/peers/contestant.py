"""What a contestant is: something that offers a service's answers at an address of its own."""

from __future__ import annotations

import socket
import ssl
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench.peers.processes import Failed, Processes, established
from broker.bench import accounting

READY_SECONDS = 30.0
READY_SECONDS_PER_AGENT = 1.0  # beyond the first: their starts share the processors
UNVERIFIED = ssl.create_default_context()  # the certificate is made for the run
UNVERIFIED.check_hostname = False
UNVERIFIED.verify_mode = ssl.CERT_NONE
ASK_AGAIN = 0.02  # seconds between two looks whether a contestant answers


@dataclass(frozen=True)
class Site:
    """Where a contestant is put: the service behind it and how it is to be run."""

    upstream: tuple[str, int]
    upstream_pids: list[int] = field(default_factory=list)
    tunnels: int = 1
    agents: int = 1  # more than one: each has a host of its own, of `hosts`
    access_log: bool = False
    descriptors: int = 20_000  # the limit on open descriptors that its processes inherit
    near: str = "127.0.0.1"  # the address at which agents reach the node that clients reach
    far: Sequence[str] = ()  # what a command must begin with to run on the agents' side of a link

    def hosts(self) -> list[str]:
        """The hosts of the agents, where each has its own: addresses that it can also dial from."""
        return [f"127.0.1.{number}" for number in range(1, self.agents + 1)] if self.agents > 1 else []


@dataclass(frozen=True)
class Tls:
    """Where a variant of a contestant speaks TLS: with its clients, in its tunnel, or both."""

    outside: bool = False
    tunnel: bool = False

    @property
    def suffix(self) -> str:
        """Of the variant's name."""
        return {0: "", 1: "-tls", 2: "-tunnel-tls", 3: "-both-tls"}[self.outside + 2 * self.tunnel]

    @property
    def words(self) -> str:
        """For the variant's title."""
        kinds = ["", ", TLS outside", ", TLS in the tunnel", ", TLS outside and in the tunnel"]
        return kinds[self.outside + 2 * self.tunnel]


PLAIN = Tls()
OUTSIDE = Tls(outside=True)
TUNNEL = Tls(tunnel=True)
BOTH = Tls(outside=True, tunnel=True)


@dataclass(frozen=True)
class Endpoint:
    """What a started contestant offers: where clients go and, if it has one, where its tunnels arrive."""

    port: int
    between: int | None = None
    host: str = "127.0.0.1"
    tls: bool = False


class Contestant(ABC):
    name: str
    title: str
    kind = "http"  # or "tcp": passes bytes and knows nothing of requests
    tls = False  # whether clients have to speak it
    logs = False  # whether it writes an access log when it is asked to
    workers = 1  # processes that share the clients
    many_agents = False  # whether it has requests for many hosts taken by as many agents

    @abstractmethod
    def missing(self) -> str | None:
        """A sentence that says how to get what is not there, or None."""

    @abstractmethod
    def version(self) -> str:
        """What the table says beside the name."""

    @abstractmethod
    def start(self, site: Site, processes: Processes) -> Endpoint:
        """Writes the configuration and starts the processes; they may need a moment after it."""


class Running:
    """A contestant that answers."""

    def __init__(self, endpoint: Endpoint, processes: Processes, site: Site) -> None:
        self.host = endpoint.host
        self.port = endpoint.port
        self.tls = endpoint.tls
        self.hosts = site.hosts()
        self._between = endpoint.between
        self._processes = processes
        self._site = site

    def pids(self) -> list[int]:
        """All of its processes; the service's own where there is nothing in front of it."""
        return self._processes.pids() or accounting.tree(self._site.upstream_pids)

    def cpu_seconds(self) -> float:
        return accounting.cpu_seconds(self.pids())

    def memory(self) -> accounting.Memory:
        return accounting.memory(self.pids())

    def memory_by_process(self) -> dict[str, accounting.Memory]:
        return {name: accounting.memory(self._processes.pids(name)) for name in self._processes.names()}

    def connections_between(self) -> int | None:
        """Connections between its processes, where it is made of two."""
        return None if self._between is None else established(self._between)

    def url(self, target: str = "/") -> str:
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}{target}"

    def check(self) -> None:
        self._processes.check()


@contextmanager
def running(contestant: Contestant, site: Site, directory: Path) -> Iterator[Running]:
    """A contestant's processes, freshly started, from when it answers until the context is left."""
    directory.mkdir(parents=True)
    with Processes(directory) as processes:
        endpoint = contestant.start(site, processes)
        _wait_until_it_answers(endpoint, processes, site)
        yield Running(endpoint, processes, site)
        processes.check()


def _wait_until_it_answers(endpoint: Endpoint, processes: Processes, site: Site) -> None:
    patience = READY_SECONDS + READY_SECONDS_PER_AGENT * (site.agents - 1)
    deadline = time.monotonic() + patience
    for host in site.hosts() or [endpoint.host]:
        while not _answers(endpoint, host):
            processes.check()
            if time.monotonic() > deadline:
                raise Failed(f"no answer within {patience:.0f} s of its start")
            processes.pause(ASK_AGAIN)


def _answers(endpoint: Endpoint, host: str) -> bool:
    request = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=1) as plain:
            client = UNVERIFIED.wrap_socket(plain, server_hostname=endpoint.host) if endpoint.tls else plain
            with client:
                client.sendall(request)
                return client.recv(65536).startswith(b"HTTP/1.1 200")
    except OSError:
        return False
