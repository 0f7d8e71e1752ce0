"""Large bodies, with as little work at the client as there can be.

Run as a module it downloads on several connections, over and over, until it is told to end:

    python -m bench.peers.loads.bulk HOST PORT TARGET --count 8 --pace 20
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from bench.peers.processes import Failed, end_with_parent

MIB = 1024 * 1024
PIECE = MIB
SILENCE = 20.0  # seconds without a byte after which a transfer has failed
PACE_STEP = 0.005  # seconds between two reads of a paced download


def download(host: str, port: int, target: str) -> int:
    """Downloads once and returns the length of the body, all of which has arrived."""
    with socket.create_connection((host, port), timeout=SILENCE) as client:
        left = size = _ask(client, host, target)
        scratch = bytearray(PIECE)
        while left:
            # MSG_TRUNC: the kernel drops what has arrived instead of copying it.
            got = client.recv_into(scratch, PIECE, socket.MSG_TRUNC)
            if not got:
                raise Failed(f"the download ended {left} bytes short")
            left -= got
        return size


def upload(host: str, port: int, target: str, file: Path) -> int:
    """Uploads a file, waits for the answer to it, and returns its length."""
    size = file.stat().st_size
    head = f"POST {target} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {size}\r\n\r\n"
    with socket.create_connection((host, port), timeout=SILENCE) as client, open(file, "rb") as body:
        client.sendall(head.encode())
        sent = 0
        while sent < size:
            sent += _send_piece(client, body.fileno(), sent, size)
        answer = client.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200") or b"\r\n%d\n" % size not in answer:
        raise Failed(f"the upload was answered by {answer[:60]!r}")
    return size


def _send_piece(client: socket.socket, file: int, offset: int, size: int) -> int:
    while True:
        try:
            return os.sendfile(client.fileno(), file, offset, min(PIECE, size - offset))
        except BlockingIOError:
            if not select.select([], [client], [], SILENCE)[1]:
                raise Failed(f"the upload stood still after {offset} bytes") from None


def open_download(host: str, port: int, target: str) -> socket.socket:
    """A download whose head was read and nothing more."""
    client = socket.create_connection((host, port), timeout=SILENCE)
    try:
        _ask(client, host, target)
    except BaseException:
        client.close()
        raise
    return client


def _ask(client: socket.socket, host: str, target: str) -> int:
    """Sends the request and returns how much of the body has not been read yet."""
    client.sendall(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    head = b""
    while b"\r\n\r\n" not in head:
        got = client.recv(1024)
        if not got:
            raise Failed("the connection ended before the head of the response")
        head += got
    head, _, begun = head.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Failed(f"the download was answered by {head[:60]!r}")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.partition(b":")[2]) - len(begun)
    raise Failed("the response does not say how long it is")


@contextmanager
def downloads(host: str, port: int, target: str, count: int, pace: float | None = None) -> Iterator[None]:
    """Downloads going on beside what the context does, in a process of their own."""
    command = [sys.executable, "-m", "bench.peers.loads.bulk", host, str(port), target, "--count", str(count)]
    if pace is not None:
        command += ["--pace", str(pace)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, preexec_fn=end_with_parent)
    assert process.stdout is not None
    try:
        if not select.select([process.stdout], [], [], SILENCE)[0] or not process.stdout.readline():
            raise Failed("the downloads did not begin")
        yield
        if process.poll() is not None:
            raise Failed("the downloads ended early")
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def _keep_downloading(host: str, port: int, target: str, count: int, pace: float | None) -> None:
    clients = [open_download(host, port, target) for _ in range(count)]
    print("all under way", flush=True)
    scratch = bytearray(PIECE)
    piece = PIECE if pace is None else int(pace * MIB * PACE_STEP)
    while True:
        begun = time.monotonic()
        ready = select.select(clients, [], [], SILENCE)[0]
        if not ready:
            raise Failed("the downloads stood still")
        for client in ready:
            if not client.recv_into(scratch, piece, socket.MSG_TRUNC):
                clients.remove(client)
                client.close()
                clients.append(open_download(host, port, target))
        if pace is not None:
            time.sleep(max(0.0, PACE_STEP - (time.monotonic() - begun)))


def _end(_number: int, _frame: FrameType | None) -> None:
    sys.exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.loads.bulk", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("target")
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--pace", type=float, help="MiB a second that each connection reads at most")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    _keep_downloading(options.host, options.port, options.target, options.count, options.pace)


if __name__ == "__main__":
    main()
