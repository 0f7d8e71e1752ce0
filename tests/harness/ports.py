"""Ports that nothing else takes, for the cases where port 0 can't be used (a node that must come back)."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_LOW = 10240
_EPHEMERAL = Path("/proc/sys/net/ipv4/ip_local_port_range")
# A byte of this file is locked for each port that was given away: no other run may have it meanwhile.
_LOCKS = os.open(
    Path(tempfile.gettempdir()) / f"broker-test-ports-{os.getuid()}",
    os.O_RDWR | os.O_CREAT | os.O_CLOEXEC,
    0o600,
)
_given: set[int] = set()
_random = random.Random(os.getpid() ^ random.SystemRandom().getrandbits(32))


def _high() -> int:
    """The kernel hands out ephemeral ports from here on; below, only those who ask get one."""
    try:
        return int(_EPHEMERAL.read_text().split()[0])
    except OSError:
        return 32768


def free_port() -> int:
    """A free port below the ephemeral range, so that no outgoing connection can take it meanwhile."""
    high = max(_high(), _LOW + 1000)
    for _ in range(1000):
        port = _random.randrange(_LOW, high)
        if port in _given or not _reserve(port):
            continue
        if all(_free(family, port) for family in (socket.AF_INET, socket.AF_INET6)):
            _given.add(port)
            return port
    raise AssertionError("no free port found")


def _reserve(port: int) -> bool:
    try:
        fcntl.lockf(_LOCKS, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


def _free(family: socket.AddressFamily, port: int) -> bool:
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1" if family == socket.AF_INET else "::1", port))
        except OSError as error:
            # A machine without IPv6 can't have the port taken there.
            return family == socket.AF_INET6 and error.errno != 98
    return True
