"""The clients of `bench.links`, run inside a namespace: `python -m bench.links.load WHAT HOST PORT …`."""

from __future__ import annotations

import json
import resource
import select
import socket
import sys
import threading
import time

MIB = 1 << 20
PATIENCE_S = 60.0
SMALL = 30  # small requests
GROWN_S = 4.0  # until an upload has filled the link
PAUSE_S = 0.1


def raise_descriptors() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connect(host: str, port: int) -> socket.socket:
    sock = socket.create_connection((host, port), timeout=PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def ask(sock: socket.socket, target: str) -> bytes:
    """Send a GET; the first bytes of the answer's body, after its head."""
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
    data = b""
    while b"\r\n\r\n" not in data:
        data += receive(sock)
    return data.partition(b"\r\n\r\n")[2]


def receive(sock: socket.socket) -> bytes:
    data = sock.recv(MIB)
    if not data:
        raise ConnectionError("the connection ended")
    return data


def download(host: str, port: int, size: int) -> float:
    with connect(host, port) as sock:
        began = time.monotonic()
        left = size - len(ask(sock, f"/bytes/{size}"))
        scratch = bytearray(MIB)
        while left > 0:
            got = sock.recv_into(scratch, MIB, socket.MSG_TRUNC)
            if not got:
                raise ConnectionError(f"the download ended {left} bytes short")
            left -= got
        return size / MIB / (time.monotonic() - began)


def upload(host: str, port: int, size: int) -> float:
    with connect(host, port) as sock:
        began = time.monotonic()
        sock.sendall(f"POST /up HTTP/1.1\r\nHost: bench\r\nContent-Length: {size}\r\n\r\n".encode())
        piece = bytes(MIB)
        left = size
        while left > 0:
            left -= sock.send(piece[: min(left, MIB)])
        data = b""
        while b"%d\n" % size not in data:
            data += receive(sock)
        return size / MIB / (time.monotonic() - began)


def beside(host: str, port: int) -> list[float]:
    """Small requests on an idle keep-alive connection while another one uploads."""
    ending = threading.Event()

    def fill() -> None:
        with connect(host, port) as sock:
            sock.settimeout(0.2)
            sock.sendall(b"POST /up HTTP/1.1\r\nHost: bench\r\nContent-Length: 100000000000\r\n\r\n")
            piece = bytes(MIB)
            while not ending.is_set():
                try:
                    sock.send(piece)
                except TimeoutError:
                    continue

    thread = threading.Thread(target=fill)
    thread.start()
    times = []
    with connect(host, port) as sock:
        ask(sock, "/bytes/100")
        time.sleep(GROWN_S)
        for _ in range(SMALL):
            began = time.monotonic()
            body = ask(sock, "/bytes/100")
            while len(body) < 100:
                body += receive(sock)
            times.append(time.monotonic() - began)
            time.sleep(PAUSE_S)
    ending.set()
    thread.join()
    return times


def flows(host: str, port: int, count: int, seconds: float) -> float:
    """Downloads side by side for some seconds, their beginning included."""
    socks = [connect(host, port) for _ in range(count)]
    for sock in socks:
        sock.sendall(b"GET /bytes/100000000000 HTTP/1.1\r\nHost: bench\r\n\r\n")
    poll = select.poll()
    known = {sock.fileno(): sock for sock in socks}
    for sock in socks:
        poll.register(sock, select.POLLIN)
    scratch = bytearray(MIB)
    total = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        for number, _ in poll.poll(100):
            got = known[number].recv_into(scratch, MIB, socket.MSG_TRUNC)
            if not got:
                raise ConnectionError("a download ended")
            total += got
    taken = time.monotonic() - began
    for sock in socks:
        sock.close()
    return total / MIB / taken


def tunnels(host: str, port: int) -> int:
    try:
        with connect(host, port) as sock:
            sock.sendall(f"GET /status HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while part := sock.recv(MIB):
                data += part
    except ConnectionRefusedError:
        return -1
    return len(json.loads(data.partition(b"\r\n\r\n")[2])["tunnels"])


def main() -> None:
    what, host, port, *rest = sys.argv[1:]
    numbers = [int(each) for each in rest]
    kinds = {"download": download, "upload": upload, "beside": beside, "flows": flows, "tunnels": tunnels}
    print(json.dumps(kinds[what](host, int(port), *numbers)))  # type: ignore[operator]


if __name__ == "__main__":
    raise_descriptors()
    main()
