"""Processes of a contestant: started with their output in files, accounted together, ended together."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from broker.bench import accounting

STOP_SECONDS = 5.0
LISTEN_SECONDS = 10.0
ESTABLISHED, LISTENING = "01", "0A"  # as the kernel writes them
PR_SET_PDEATHSIG = 1


class Failed(Exception):
    """A contestant or a load did not do what it should; the sentence says what."""


class Processes:
    """The processes that one contestant consists of. Leaving the context ends them, and nothing else."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._started: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self, name: str, command: Sequence[str | Path], environment: dict[str, str] | None = None
    ) -> None:
        """Starts a process that stays in the foreground; what it prints goes to NAME.log."""
        with open(self.directory / f"{name}.log", "wb") as log:
            self._started[name] = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, **(environment or {})},
                preexec_fn=end_with_parent,
            )

    def names(self) -> list[str]:
        return list(self._started)

    def pids(self, name: str | None = None) -> list[int]:
        """The living processes of one name, or of all, with their descendants."""
        chosen = self._started.values() if name is None else [self._started[name]]
        return accounting.tree(process.pid for process in chosen)

    def check(self) -> None:
        """Raises where a process has ended by itself."""
        for name, process in self._started.items():
            if process.poll() is not None:
                raise Failed(f"{name} ended with {process.returncode}: {self._last_words(name)}")

    def until_listening(self, port: int) -> None:
        """Returns when one of them listens there. Raises where it does not in time, or has ended."""
        deadline = time.monotonic() + LISTEN_SECONDS
        while not _sockets(port, LISTENING):
            self.check()
            if time.monotonic() > deadline:
                raise Failed(f"nothing listens on port {port} after {LISTEN_SECONDS:.0f} s")
            self.pause(0.01)

    def pause(self, seconds: float) -> None:
        """Lets time pass, or less of it when a process ends."""
        for process in self._started.values():
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # Descendants are told as well: not every parent passes its end on.
        descendants = self.pids()
        _signal(descendants, signal.SIGTERM)
        for process in self._started.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
        _signal([pid for pid in descendants if accounting.tree([pid])], signal.SIGKILL)
        for process in self._started.values():
            process.wait()

    def _last_words(self, name: str) -> str:
        lines = (self.directory / f"{name}.log").read_text(errors="replace").strip().splitlines()
        return " / ".join(lines[-3:]) or "it said nothing"


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_with_parent() -> None:
    """In a child before it executes: the kernel ends it when this benchmark dies, however that happens."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback that nobody listens on; they are found together, so that they differ."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def established(port: int) -> int:
    """How many TCP connections to a listening port are established; the accepted side is counted."""
    return _sockets(port, ESTABLISHED)


def _sockets(port: int, wanted: str) -> int:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    return sum(len(sockets_in(table.read_text(), port, wanted)) for table in tables if table.exists())


def sockets_in(table: str, port: int, wanted: str = ESTABLISHED) -> set[tuple[str, str]]:
    """The pairs of local and remote address with this local port and state in a table of the kernel's.

    A set, as the kernel hands the table out in pieces, and lists a connection again where others came
    and went between two of them.
    """
    found = set()
    for line in table.splitlines()[1:]:
        local, remote, state = line.split()[1:4]
        if state == wanted and int(local.rpartition(":")[2], 16) == port:
            found.add((local, remote))
    return found
