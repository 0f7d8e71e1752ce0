"""Clients of what is counted: python -m bench.instructions.clients URL AT_ONCE

Reads how many requests to send, sends so many at once, again when all are answered, and says how many were.
"""

from __future__ import annotations

import socket
import sys
from urllib.parse import urlsplit

REQUEST = (
    b"GET /orders/17 HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n"
    b"Authorization: Bearer 0123456789abcdef0123456789abcdef\r\n\r\n"
)
RECEIVE = 65536


def wave(clients: list[socket.socket]) -> int:
    """One request on each connection; how many were answered with 200."""
    for client in clients:
        client.sendall(REQUEST)
    return sum(answered(client) for client in clients)


def answered(client: socket.socket) -> bool:
    data = b""
    while b"\r\n\r\n" not in data:
        data += client.recv(RECEIVE) or b"\r\n\r\n"
    head, _, body = data.partition(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    left = int(fields.get(b"content-length", 0)) - len(body)
    while left > 0:
        left -= len(client.recv(left)) or left
    return head.startswith(b"HTTP/1.1 200 ")


def main(url: str, at_once: int) -> None:
    to = urlsplit(url)
    clients = [socket.create_connection((to.hostname, to.port)) for _ in range(at_once)]
    for line in sys.stdin:
        print(sum(wave(clients) for _ in range(int(line) // at_once)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
