"""The process that workers are forked from.

It is forked itself before the supervisor has an event loop, and does nothing but wait: so a new worker takes
milliseconds, and all of them share the memory of the modules that are loaded. It ends with the supervisor.

    supervisor ──▶ spawner    {"worker": index}, and the worker's end of its channel
    spawner ──▶ supervisor    {"worker": index, "pid": …}, later {"pid": …, "status": …} when it has ended
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import select
import signal
import socket
from collections.abc import Callable

MAX_MESSAGE = 4096
PR_SET_NAME = 15
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def fork_spawner(work: Callable[[int, socket.socket], int]) -> socket.socket:
    """Fork it; returns our end of the socket to it. `work(index, channel)` is what workers do."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    gc.collect()
    gc.freeze()  # what is shared stays shared
    if os.fork() == 0:
        code = 1
        try:
            _keep_only(theirs.fileno())
            code = _spawn(theirs, work)
        finally:
            os._exit(code)
    theirs.close()
    return ours


def set_process_name(name: str) -> None:
    """What `ps` and `top` show (15 characters)."""
    ctypes.CDLL(None).prctl(PR_SET_NAME, name.encode()[:15], 0, 0, 0)


def _keep_only(fd: int) -> None:
    """Sockets that were passed to the supervisor would stay open here for ever."""
    os.closerange(3, fd)
    os.closerange(fd + 1, os.sysconf("SC_OPEN_MAX"))


def _spawn(sock: socket.socket, work: Callable[[int, socket.socket], int]) -> int:
    set_process_name("broker-spawner")
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    workers: dict[int, int] = {}  # by the descriptor that becomes readable when it ends
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd in workers:
                pid = workers.pop(fd)
                poll.unregister(fd)
                os.close(fd)
                _, status = os.waitpid(pid, 0)
                _tell(sock, {"pid": pid, "status": os.waitstatus_to_exitcode(status)})
                continue
            data, descriptors, _, _ = socket.recv_fds(sock, MAX_MESSAGE, 1)
            if not data:
                return 0
            index = json.loads(data)["worker"]
            pid = os.fork()
            if pid == 0:
                sock.close()
                for each in workers:
                    os.close(each)
                return _work(index, socket.socket(fileno=descriptors[0]), work)
            os.close(descriptors[0])
            watch = os.pidfd_open(pid)
            workers[watch] = pid
            poll.register(watch, select.POLLIN)
            _tell(sock, {"worker": index, "pid": pid})


def _work(index: int, channel: socket.socket, work: Callable[[int, socket.socket], int]) -> int:
    for number in IGNORED:
        signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
    set_process_name(f"broker-work-{index}")
    return work(index, channel)


def _tell(sock: socket.socket, message: dict[str, int]) -> None:
    try:
        sock.send(json.dumps(message).encode())
    except OSError:
        return  # the supervisor has gone: the next poll says so
