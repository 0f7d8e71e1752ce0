"""A small HTTP/1.1 service to put behind what is measured.

GET /…            1 KiB
GET /bytes/N      N bytes
GET /delay/MS     1 KiB, after so many milliseconds
POST, PUT         the body is read and thrown away; then the answer says how long it was
"""

from __future__ import annotations

import argparse
import asyncio
import socket
import sys
from typing import cast

HEAD_END = b"\r\n\r\n"
SMALL = b"x" * 1023 + b"\n"
PIECE = bytes(256 * 1024)
RECEIVE = 1024 * 1024


class Client(asyncio.BufferedProtocol):
    """One client's connection. Pipelined requests are answered in turn; delays do not overtake each other."""

    scratch = memoryview(
        bytearray(RECEIVE)
    )  # what arrives is looked at in the call that delivers it, so all share it

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._body_left = 0
        self._body_size = 0
        self._stream_left = 0  # of a large response body
        self._delayed: asyncio.TimerHandle | None = None
        self._writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by its type

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        if self._delayed is not None:
            self._delayed.cancel()

    def get_buffer(self, _sizehint: int) -> memoryview:
        return self.scratch

    def buffer_updated(self, nbytes: int) -> None:
        if self._body_left >= nbytes:
            self._take_body(nbytes)
            return
        rest = nbytes
        if self._body_left:
            rest -= self._body_left
            self._take_body(self._body_left)
        self._head += bytes(self.scratch[nbytes - rest : nbytes])
        self._take_heads()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._stream()

    def _take_heads(self) -> None:
        while not self._busy:
            end = self._head.find(HEAD_END)
            if end < 0:
                return
            head, self._head = self._head[: end + 2], self._head[end + 4 :]
            self._answer_head(head)

    @property
    def _busy(self) -> bool:
        return bool(self._body_left or self._stream_left or self._delayed or self._transport is None)

    def _answer_head(self, head: bytes) -> None:
        method, target, _ = head.split(b" ", 2)
        if method in (b"POST", b"PUT"):
            self._body_size = self._body_left = _length(head)
            if b"\r\nexpect: 100-continue" in head.lower():
                self._write(b"HTTP/1.1 100 Continue\r\n\r\n")
            taken = min(self._body_left, len(self._head))
            self._head = self._head[taken:]
            self._take_body(taken)
        elif target.startswith(b"/delay/"):
            milliseconds = int(target[7:])
            self._delayed = asyncio.get_running_loop().call_later(milliseconds / 1000, self._answer_late)
        elif target.startswith(b"/bytes/"):
            self._stream_left = int(target[7:])
            self._write(_response_head(self._stream_left))
            self._stream()
        else:
            self._write(_response_head(len(SMALL)) + SMALL)

    def _answer_late(self) -> None:
        self._delayed = None
        self._write(_response_head(len(SMALL)) + SMALL)
        self._take_heads()

    def _take_body(self, nbytes: int) -> None:
        self._body_left -= nbytes
        if not self._body_left:
            answer = b"%d\n" % self._body_size
            self._write(_response_head(len(answer)) + answer)

    def _stream(self) -> None:
        while self._stream_left and self._writable and self._transport is not None:
            piece = PIECE[: self._stream_left]
            self._stream_left -= len(piece)
            self._write(piece)
        self._take_heads()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _response_head(length: int) -> bytes:
    return (
        b"HTTP/1.1 200 OK\r\nServer: sample\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        % length
    )


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return int(value)
    return 0


async def serve(listening: socket.socket) -> None:
    """Serves on a bound socket until cancelled."""
    server = await asyncio.get_running_loop().create_server(Client, sock=listening, backlog=4096)
    async with server:
        await server.serve_forever()


def main(arguments: list[str]) -> None:
    import uvloop

    parser = argparse.ArgumentParser(prog="python -m broker.bench.service", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="the address (default: loopback)")
    parser.add_argument(
        "--port", type=int, default=0, help="on 127.0.0.1; 0 takes a free one, which is printed"
    )
    options = parser.parse_args(arguments)
    listening = socket.create_server((options.host, options.port), backlog=4096)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    uvloop.run(serve(listening))


if __name__ == "__main__":
    main(sys.argv[1:])
