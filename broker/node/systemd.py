"""What systemd gives and wants: sockets (LISTEN_FDS), notifications (sd_notify), and the watchdog's pings.

Everything comes from the environment; without it all of this does nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time

from broker.errors import RunError
from broker.ports.sockets import Inherited

log = logging.getLogger("broker.node")

FIRST_FD = 3  # sd_listen_fds(3)
MAX_FDS = 4096
SEND_S = 0.5  # a manager that does not read must not stop the node


def notify(state: str) -> None:
    """`READY=1`, `STOPPING=1`, `MAINPID=...`, `STATUS=...`; several lines at once are allowed."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.settimeout(SEND_S)
            sock.sendto(state.encode("utf-8"), address)
    except OSError as error:
        log.warning("the service manager cannot be told %s: %s", state.partition("\n")[0], error.strerror)


def notify_reloading() -> None:
    """A reload begins: with the time that Type=notify-reload asks for."""
    notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")


def inherited() -> Inherited:
    """The sockets that systemd listens on for us. RunError where one of them is of no use.

    The variables are removed, so that no child takes the sockets for its own.
    """
    pid, count, names = (os.environ.pop(name, "") for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"))
    os.environ.pop("LISTEN_PIDFDID", None)
    if not pid or pid != str(os.getpid()) or not count.isascii() or not count.isdigit():
        return Inherited()
    labels = names.split(":") if names else []
    found: list[tuple[str, socket.socket]] = []
    for place in range(min(int(count), MAX_FDS)):
        label = labels[place] if place < len(labels) else ""
        found.append((label, _listening(FIRST_FD + place, label)))
    return Inherited(found)


def _listening(fd: int, label: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=fd)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise RunError(f"the descriptor {fd} ({label}) that systemd passed is no socket: {error}") from None
    if not listens or sock.type != socket.SOCK_STREAM or sock.family not in (socket.AF_INET, socket.AF_INET6):
        raise RunError(
            f"the socket {fd} ({label}) that systemd passed is no listening TCP socket: use"
            " ListenStream= with an address and a port, and Accept=no"
        )
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


class Watchdog:
    """The pings that WatchdogSec= asks for, twice in its time: from the loop, so that it is seen to run."""

    def __init__(self) -> None:
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        meant = not pid or pid == str(os.getpid())
        self._interval_s = int(usec) / 2e6 if meant and usec.isascii() and usec.isdigit() else 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._interval_s > 0:
            self._ping()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ping(self) -> None:
        notify("WATCHDOG=1")
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._ping)
