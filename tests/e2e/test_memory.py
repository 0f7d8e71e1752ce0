"""What large bodies, slow readers and many waiting requests cost in memory and connections.

The figures of docs/performance.md come from bench/peers; these are bounds that must hold on any machine.
"""

import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.harness.nodes import DmzNode, Node, World
from tests.harness.process import Process
from tests.harness.servers import Nginx
from tests.harness.waiting import wait_until

MIB, GIB = 1 << 20, 1 << 30
GROWTH = 16 * MIB
BATCH, BATCH_SECONDS = 500, 2


def peak(node: Node) -> int:
    """Bytes of the node's largest resident memory so far."""
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    assert found
    return int(found[1]) * 1024


def sink(world: World) -> str:
    """A service that reads whole bodies, answers with their length, and can be slow."""
    process = world.process(Process([sys.executable, "-m", "broker.bench.service"], name="sink"))
    port = process.wait_for_line(r"^(\d+)$")[1]
    return f"http://127.0.0.1:{port}"


def nodes(world: World, url: str, tunnels: int = 1) -> tuple[DmzNode, list[Node]]:
    dmz = world.dmz()
    agent = world.agent(dmz.registration_url(), [{"match": "/", "upstream": url}], tunnels)
    dmz.wait_agents(tunnels)
    assert dmz.fetch("/hello").status == 200
    return dmz, [dmz, agent]


def curl(*arguments: str) -> str:
    done = subprocess.run(
        ["curl", "-sS", "--fail", *arguments], capture_output=True, check=False, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def url_of(dmz: DmzNode, path: str) -> str:
    return "http://{}:{}{}".format(*dmz.external, path)


@pytest.mark.parametrize("size", [GIB, pytest.param(10 * GIB, marks=pytest.mark.slow)], ids=["1G", "10G"])
def test_a_large_download_takes_no_memory(world: World, nginx: Nginx, size: int) -> None:
    path = nginx.sparse_file(f"large-{size}", size)
    dmz, both = nodes(world, nginx.url)
    before = [peak(node) for node in both]
    got = curl("-o", "/dev/null", "-w", "%{size_download}", url_of(dmz, path))
    assert int(got) == size
    for node, least in zip(both, before, strict=True):
        assert peak(node) - least < GROWTH, node.name


@pytest.mark.parametrize("size", [GIB, pytest.param(10 * GIB, marks=pytest.mark.slow)], ids=["1G", "10G"])
def test_a_large_upload_takes_no_memory(world: World, tmp_path: Path, size: int) -> None:
    body = tmp_path / "body"
    with open(body, "wb") as file:
        file.truncate(size)
    dmz, both = nodes(world, sink(world))
    before = [peak(node) for node in both]
    assert curl("-T", str(body), "-H", "Expect:", url_of(dmz, "/upload")) == f"{size}\n"
    for node, least in zip(both, before, strict=True):
        assert peak(node) - least < GROWTH, node.name


def test_a_client_that_stops_reading_takes_no_memory(world: World, nginx: Nginx) -> None:
    """It is held back, not stored, and the others go on in the same tunnel."""
    path = nginx.sparse_file("stalled", GIB)
    dmz, both = nodes(world, nginx.url)
    before = [peak(node) for node in both]
    with socket.create_connection(dmz.external, timeout=20) as stalled:
        stalled.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        read = 0
        while read < 50 * MIB:
            read += len(stalled.recv(MIB))

        seen = [-1]

        def at_rest() -> bool:
            """Nothing has moved since the last look: what the kernels and windows hold is full."""
            seen.append(dmz.status()["tunnels"][0]["bytes_in"])
            return seen[-1] == seen[-2]

        wait_until(at_rest, "the download stands still")
        with dmz.client() as client:
            for _ in range(200):
                assert client.request(target="/hello").status == 200
        for node, least in zip(both, before, strict=True):
            assert peak(node) - least < GROWTH, node.name


def test_500_slow_requests_over_two_tunnels(world: World) -> None:
    """All at once, none behind another: two seconds of the service's are about two seconds in all."""
    dmz, _ = nodes(world, sink(world), tunnels=2)
    statuses: list[int] = []
    tunnels_seen: list[int] = []

    def ask() -> None:
        statuses.append(dmz.fetch(f"/delay/{BATCH_SECONDS * 1000}", timeout=30).status)

    threads = [threading.Thread(target=ask) for _ in range(BATCH)]
    for thread in threads:
        thread.start()
    wait_until(
        lambda: sum(each["streams"] for each in dmz.status()["tunnels"]) > BATCH // 2, "half of them run"
    )
    tunnels_seen.append(len(dmz.status()["tunnels"]))
    for thread in threads:
        thread.join()
    assert statuses == [200] * BATCH
    assert tunnels_seen == [2]
