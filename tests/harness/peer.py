"""The tunnel protocol by hand: an agent or a DMZ node that follows it or breaks it, frame by frame.

Written from docs/protocol.md alone, in plain Python, so that it does not share the mistakes of the program.
"""

import base64
import contextlib
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, Self

import msgpack

from tests.harness.client import connect, reset
from tests.harness.message import Closed, Head, Reader
from tests.harness.waiting import DEADLINE

OPEN, REPLY, DATA, TRAILERS, WINDOW, RESET, PING, GOAWAY, CONTROL = range(1, 10)
END, INTERIM, ACK = 1, 2, 4
ACCEPTOR = 0x80000000
NAMES = dict(
    enumerate(["OPEN", "REPLY", "DATA", "TRAILERS", "WINDOW", "RESET", "PING", "GOAWAY", "CONTROL"], 1)
)
INITIAL_WINDOW = 65536


@dataclass
class Frame:
    type: int
    flags: int
    stream: int
    payload: bytes

    def __repr__(self) -> str:
        name = NAMES.get(self.type, self.type)
        payload = f"{self.payload[:60]!r}, {len(self.payload)} bytes"
        return f"{name}(flags={self.flags}, stream={self.stream:#x}, {payload})"


def frame(
    type: int, stream: int = 0, payload: bytes = b"", flags: int = 0, length: int | None = None
) -> bytes:
    """A frame; `length` may lie."""
    size = len(payload) if length is None else length
    return struct.pack(">IBBHI", size, type, flags, 0, stream) + payload


def stream_id(slot: int, generation: int = 1, acceptor: bool = False) -> int:
    return (ACCEPTOR if acceptor else 0) | generation << 16 | slot


def open_payload(head: bytes, body: bytes = b"", kind: int = 1, meta: bytes = b"") -> bytes:
    return struct.pack(">BBHI", kind, 0, len(meta), len(head)) + meta + head + body


def reply_payload(head: bytes, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(head)) + head + body


def parse_open(payload: bytes) -> tuple[int, bytes, bytes]:
    """Kind, head and first bytes of an OPEN."""
    kind, _, meta, head = struct.unpack_from(">BBHI", payload)
    start = 8 + meta
    return kind, payload[start : start + head], payload[start + head :]


def parse_reply(payload: bytes) -> tuple[bytes, bytes]:
    (head,) = struct.unpack_from(">I", payload)
    return payload[4 : 4 + head], payload[4 + head :]


def parse_reset(payload: bytes) -> tuple[int, int, str]:
    """Code, delivery and text of a RESET."""
    code, delivery, _ = struct.unpack_from(">HBB", payload)
    return code, delivery, payload[4:].decode()


def parse_goaway(payload: bytes) -> tuple[int, str]:
    (code,) = struct.unpack_from(">H", payload)
    return code, payload[4:].decode()


def reset_payload(code: int, delivery: int = 0, text: str = "") -> bytes:
    return struct.pack(">HBB", code, delivery, 0) + text.encode()


def encode_parameters(parameters: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(msgpack.packb(parameters)).rstrip(b"=").decode()


def decode_parameters(text: str) -> dict[str, Any]:
    value = msgpack.unpackb(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    assert isinstance(value, dict)
    return value


class Link:
    """Frames over a connected socket."""

    def __init__(self, sock: socket.socket, reader: Reader) -> None:
        self.sock = sock
        self.reader = reader
        self.seen: list[Frame] = []

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_frame(self, type: int, stream: int = 0, payload: bytes = b"", flags: int = 0) -> None:
        self.send(frame(type, stream, payload, flags))

    def receive(self) -> Frame:
        """The next frame, PINGs answered and passed over."""
        limit = time.monotonic() + DEADLINE
        while True:
            assert time.monotonic() < limit, f"nothing but PINGs for {DEADLINE} s"
            length, type, flags, _, stream = struct.unpack(
                ">IBBHI", self.reader.exactly(12, "a frame header")
            )
            assert length <= 1 << 21, f"a frame of {length} bytes"
            got = Frame(type, flags, stream, self.reader.exactly(length, "a frame"))
            self.seen.append(got)
            if got.type != PING:
                return got
            if not got.flags & ACK:
                self.send_frame(PING, 0, got.payload, ACK)

    def expect(self, type: int) -> Frame:
        """The next frame of this type; WINDOW and CONTROL frames before it are passed over."""
        while (got := self.receive()).type != type:
            assert got.type in (WINDOW, CONTROL), f"expected {NAMES[type]}, got {got}"
        return got

    def expect_death(self) -> tuple[int, str]:
        """The peer gives this tunnel up: its GOAWAY's code and text, and the end of the connection."""
        goaway = None
        try:
            while True:
                got = self.receive()
                if got.type == GOAWAY:
                    goaway = parse_goaway(got.payload)
        except (Closed, ConnectionError):
            pass
        assert goaway is not None, f"the tunnel ended without GOAWAY; it sent {self.seen[-10:]}"
        return goaway

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.close()

    def reset(self) -> None:
        reset(self.sock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def registration_head(
    host: str, services: list[dict[str, str]], token: str | None = None, **parameters: Any
) -> bytes:
    defaults = {
        "name": "handmade",
        "instance": os.urandom(16).hex(),
        "index": 0,
        "window": INITIAL_WINDOW,
        "streams": 1000,
        "services": services,
    }
    lines = [
        "GET /tunnel HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        "Upgrade: broker-tunnel",
        "Broker-Version: 1",
        f"Broker-Parameters: {encode_parameters(defaults | parameters)}",
        *([f"Authorization: Bearer {token}"] if token else []),
        "",
        "",
    ]
    return "\r\n".join(lines).encode()


class HandAgent(Link):
    """Registers at a DMZ node by hand."""

    def __init__(
        self,
        address: tuple[str, int],
        services: list[dict[str, str]],
        receive_buffer: int | None = None,
        **parameters: Any,
    ) -> None:
        sock = connect(address, DEADLINE, receive_buffer)
        super().__init__(sock, Reader(sock))
        self.send(registration_head(f"{address[0]}:{address[1]}", services, **parameters))
        answer = self.reader.head("the registration's answer")
        assert answer is not None and answer.start.startswith("HTTP/1.1 101 "), f"refused: {answer}"
        self.granted = decode_parameters(answer.headers["Broker-Parameters"])

    def accept(self) -> tuple[int, bytes, bytes]:
        """The next stream that the DMZ node opens: id, head, first bytes."""
        got = self.expect(OPEN)
        _, head, body = parse_open(got.payload)
        return got.stream, head, body

    def reply(self, stream: int, body: bytes = b"", status: str = "200 OK", end: bool = True) -> None:
        head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        self.send_frame(REPLY, stream, reply_payload(head, body), END if end else 0)


class HandNode:
    """A DMZ node by hand: agents connect to it and get accepted, then `link` is in the test's hands."""

    def __init__(self) -> None:
        self._listener = socket.socket()
        self._listener.bind(("127.0.0.1", 0))
        self._listener.listen(64)
        self._listener.settimeout(DEADLINE)
        self.links: list[Link] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def accept_raw(self) -> tuple[Link, Head]:
        """The next connection and its registration request, not yet answered."""
        sock, _ = self._listener.accept()
        sock.settimeout(DEADLINE)
        link = Link(sock, Reader(sock))
        self.links.append(link)
        head = link.reader.head("a registration")
        assert head is not None
        return link, head

    def accept(self, **parameters: Any) -> Link:
        link, _ = self.accept_raw()
        defaults = {"node": "handmade", "window": INITIAL_WINDOW, "streams": 1000, "silence": 60000}
        link.send(
            (
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: broker-tunnel\r\n"
                f"Broker-Version: 1\r\nBroker-Parameters: {encode_parameters(defaults | parameters)}\r\n\r\n"
            ).encode()
        )
        return link

    def close(self) -> None:
        self._listener.close()
        for link in self.links:
            link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
