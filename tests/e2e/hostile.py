"""For tests of hostile clients, services and peers: many cases at once, a neighbour who must not notice."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.harness.client import RawClient
from tests.harness.message import Head
from tests.harness.nodes import Node, World, everything
from tests.harness.origin import Connection, Origin, echo

AT_ONCE = 16

Check = tuple[str, Callable[[], None]]


@dataclass
class Route:
    """A way to a service of its own, through a tunnel or within one node."""

    name: str
    address: tuple[str, int]
    origin: Origin
    served: list[tuple[str, int]] = field(default_factory=list)
    """Requests that were complete: start line without version, size of the body."""

    def serve(self, connection: Connection, head: Head) -> None:
        """Answer the neighbour; everybody else's requests must be framed in one way, and are written down."""
        if head.target.startswith("/canary/"):
            echo(connection, head)
            return
        body, trailers = connection.read_body(head)
        assert not trailers.all("Host") and not trailers.all("Content-Length"), trailers
        for name in ("Upgrade", "HTTP2-Settings", "Connection"):
            assert name not in head.headers, head
        assert len(head.headers.all("Host")) == 1, head
        self.served.append((f"{head.method} {head.target}", body.size))
        connection.answer(200, b"" if head.method == "HEAD" else b"ok", [("Content-Length", "2")])


def make_routes(world: World) -> dict[str, Route]:
    pair = world.pair()
    local = world.origin("local")
    node = world.dmz({"services": [everything(local)]}, name="standalone")
    return {
        "tunnel": Route("tunnel", pair.address, pair.origin),
        "local": Route("local", node.external, local),
    }


def assert_unharmed(world: World) -> None:
    for node in world.nodes:
        assert node.process.running, node.process.output
        node.process.assert_clean()


@contextmanager
def neighbour(address: tuple[str, int], host: str = "a") -> Iterator[Callable[[], int]]:
    """Somebody else's requests, one after another; gives how many were answered."""
    over = threading.Event()
    failures: list[BaseException] = []
    answered = 0

    def ask_some() -> None:
        """Fewer than a connection may carry (limits.requests)."""
        nonlocal answered
        with RawClient(address, host) as client:
            for _ in range(1000):
                target = f"/canary/{answered}"
                response = client.request(target=target)
                assert response.status == 200, response
                assert json.loads(response.body)["start"] == f"GET {target} HTTP/1.1"
                answered += 1
                if over.is_set():
                    return

    def ask() -> None:
        try:
            while not over.is_set() or answered == 0:
                ask_some()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield lambda: answered
    finally:
        over.set()
        thread.join()
    assert not failures, failures[0]


def send(address: tuple[str, int], data: bytes) -> RawClient:
    client = RawClient(address, "a")
    # Refused before all of it was sent: the answer is there to read.
    with suppress(BrokenPipeError, ConnectionResetError):
        client.send(data)
    return client


def _complaint(what: str, check: Callable[[], None]) -> str | None:
    try:
        check()
    except Exception as error:
        return f"{what}: {error!r}"
    return None


def run_all(checks: list[Check]) -> None:
    """Many at once; all failures at the end."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        complaints = [text for text in pool.map(lambda each: _complaint(*each), checks) if text]
    assert not complaints, f"{len(complaints)} of {len(checks)} failed:\n" + "\n".join(complaints)


def resident(node: Node) -> int:
    """Bytes of the node's resident memory."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024
