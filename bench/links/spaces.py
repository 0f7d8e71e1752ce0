"""Two network namespaces with a link between them, and the processes in them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import yaml

from bench.peers.processes import end_with_parent

START_S = 20.0
SERVICE, EXTERNAL, REGISTRATION, ADMIN = 9000, 8080, 7000, 7001


@dataclass(frozen=True)
class Link:
    rtt_ms: int
    rate: int  # bits per second
    loss: float = 0.0
    mtu: int = 9000
    queue_ms: int = 50
    buffers: int = 32 << 20  # bytes that a TCP connection may queue


def have_rights() -> str:
    """Why there can be no such link here; "" where there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        return "there is no /dev/net/tun"
    return ""


def run(*command: str) -> None:
    subprocess.run(command, check=True)


class Spaces:
    """`near` has the DMZ node and the clients, `far` the agent and the service."""

    def __init__(self, program: Path, link: Link) -> None:
        self._program, self._link = program, link
        self.near, self.far = (f"broker-{os.getpid()}-{side}" for side in ("near", "far"))
        self._processes: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Self:
        link = self._link
        for space in (self.near, self.far):
            run("ip", "netns", "add", space)
            run("ip", "-n", space, "link", "set", "lo", "up")
            for name in ("tcp_wmem", "tcp_rmem"):
                limits = f"net.ipv4.{name}=4096 131072 {link.buffers}"
                run("ip", "netns", "exec", space, "sysctl", "-qw", limits)
        numbers = [link.rtt_ms * 500, link.rate, int(link.loss * 1_000_000), link.queue_ms]
        process = self._start([str(self._program), self.near, self.far, *map(str, numbers)])
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        for space, address in ((self.near, "10.77.0.1/30"), (self.far, "10.77.0.2/30")):
            run("ip", "-n", space, "address", "add", address, "dev", "link")
            run(
                "ip",
                "-n",
                space,
                "link",
                "set",
                "dev",
                "link",
                "mtu",
                str(link.mtu),
                "txqueuelen",
                "1000",
                "up",
            )
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(START_S)
        for space in (self.near, self.far):
            run("ip", "netns", "delete", space)

    def _start(self, command: list[str], **more: object) -> subprocess.Popen[str]:
        process: subprocess.Popen[str] = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=end_with_parent,
            **more,  # type: ignore[call-overload]
        )
        self._processes.append(process)
        return process

    def python(self, space: str, *arguments: str) -> list[str]:
        return ["ip", "netns", "exec", space, sys.executable, "-m", *arguments]

    def nodes(self, place: Path, tunnels: int, congestion: str) -> Iterator[Nodes]:
        service = [{"match": "/", "upstream": f"http://10.77.0.2:{SERVICE}"}]
        tcp = {"congestion": congestion}
        dmz = {
            "external": [{"listen": f"http://10.77.0.1:{EXTERNAL}"}],
            "registration": [{"listen": f"http://10.77.0.1:{REGISTRATION}"}],
            "admin": {"listen": f"http://127.0.0.1:{ADMIN}"},
            "tcp": tcp,
        }
        connect = [{"url": f"http://10.77.0.1:{REGISTRATION}", "tunnels": tunnels}]
        green = {"connect": connect, "services": service, "tcp": tcp}
        for name, config in (("dmz", dmz), ("green", green)):
            (place / f"{name}.yaml").write_text(yaml.safe_dump(config))
        with open(place / "log", "w") as log:
            far = self.python(self.far, "broker.bench.service", "--host", "10.77.0.2", "--port", str(SERVICE))
            self._start(far, stderr=log)
            serve = self.python(
                self.near, "broker", "serve", str(place / "dmz.yaml"), "--insecure", "--workers", "1"
            )
            self._start(serve, stderr=log)
            self._start(self.python(self.far, "broker", "connect", str(place / "green.yaml")), stderr=log)
            nodes = Nodes(self)
            try:
                nodes.wait(tunnels)
            except TimeoutError:
                print((place / "log").read_text(), file=sys.stderr)
                raise
            yield nodes


class Nodes:
    """Both ways to the service, as seen from `near`."""

    direct = ("10.77.0.2", SERVICE)
    external = ("10.77.0.1", EXTERNAL)

    def __init__(self, spaces: Spaces) -> None:
        self._spaces = spaces

    def _load(self, *arguments: object) -> str:
        command = self._spaces.python(self._spaces.near, "bench.links.load", *map(str, arguments))
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout

    def wait(self, tunnels: int) -> None:
        limit = time.monotonic() + START_S
        while self._load("tunnels", "127.0.0.1", ADMIN).strip() != str(tunnels):
            if time.monotonic() > limit:
                raise TimeoutError("the tunnels did not come up")
            time.sleep(0.1)

    def rate(self, where: tuple[str, int], way: str, size: int) -> float:
        """MiB/s of one transfer, its beginning included."""
        return float(self._load(way, *where, size))

    def beside_upload(self, where: tuple[str, int]) -> list[float]:
        """Seconds of small requests while an upload fills the link, on two connections."""
        return [float(each) for each in json.loads(self._load("beside", *where))]

    def flows(self, where: tuple[str, int], count: int, seconds: int) -> float:
        """MiB/s of downloads side by side."""
        return float(self._load("flows", *where, count, seconds))
