"""Telling systemd how it goes (sd_notify): a datagram to NOTIFY_SOCKET, where there is one."""

from __future__ import annotations

import logging
import os
import socket

log = logging.getLogger("broker.node")


def notify(state: str) -> None:
    """`READY=1`, `RELOADING=1`, `STOPPING=1`, `STATUS=...`; several lines at once are allowed."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.sendto(state.encode("utf-8"), address)
    except OSError as error:
        log.warning("the service manager cannot be told %s: %s", state.partition("\n")[0], error.strerror)
