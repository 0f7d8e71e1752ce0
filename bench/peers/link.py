"""A link of 60 ms between two network namespaces, and this process in the near one."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.links.spaces import Link, Spaces, have_rights
from bench.peers.contestants.programs import find
from bench.peers.processes import Failed

NEAR, FAR = "10.77.0.1", "10.77.0.2"
LINK = Link(rtt_ms=60, rate=1_000_000_000)
SOURCE = Path(__file__).parents[1] / "links" / "link.c"
CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Ends:
    """Addresses of both ends, and what a command must begin with to run at the far one."""

    near: str
    far: str
    at_far: Sequence[str]


def missing() -> str | None:
    """Why there can be no link here."""
    if problem := have_rights():
        return problem
    return None if find("cc") and find("ip") else "a link needs a C compiler and ip (Debian: gcc, iproute2)"


@contextmanager
def linked(directory: Path) -> Iterator[Ends]:
    """The calling thread, and what it starts, is at the near end until the context is left."""
    program = directory / "link"
    subprocess.run(["cc", "-O2", "-o", program, SOURCE], check=True)
    with Spaces(program, LINK) as spaces, _inside(spaces.near):
        yield Ends(NEAR, FAR, ("ip", "netns", "exec", spaces.far))


@contextmanager
def _inside(space: str) -> Iterator[None]:
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there = os.open(f"/var/run/netns/{space}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(there)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)
        os.close(there)


def _enter(descriptor: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(descriptor, CLONE_NEWNET):
        raise Failed(f"the network namespace cannot be entered: {os.strerror(ctypes.get_errno())}")
