"""Sessions for unit tests: two of them joined by hand, or one and frames written by hand."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from _fastpath.events import EventSession, EventStream, promised
from _fastpath.memory import memory_usage

OPEN, REPLY, DATA, TRAILERS, WINDOW, RESET, PING, GOAWAY, CONTROL = range(1, 10)
END, INTERIM, ACK = 1, 2, 4
HEAD_END, HEAD_INTERIM, HEAD_TCP = 1, 2, 4
NEVER_SENT, MAYBE_SENT, SENT = range(3)
CANCEL, PROTOCOL, FLOW_CONTROL, INTERNAL, REFUSED, OVERLOADED = range(6)
ACCEPTOR = 0x8000_0000

Frame = tuple[int, int, int, bytes]


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    return struct.pack(">IBBHI", len(payload), kind, flags, 0, stream) + payload


def open_frame(stream: int, head: bytes = b"head", body: bytes = b"", flags: int = 0, kind: int = 1) -> bytes:
    return frame(OPEN, flags, stream, struct.pack(">BBHI", kind, 0, 0, len(head)) + head + body)


def reply_frame(stream: int, head: bytes = b"head", body: bytes = b"", flags: int = 0) -> bytes:
    return frame(REPLY, flags, stream, struct.pack(">I", len(head)) + head + body)


def window_frame(stream: int, size: int) -> bytes:
    return frame(WINDOW, 0, stream, struct.pack(">I", size))


def reset_frame(stream: int, code: int = 0, delivery: int = 1, reason: bytes = b"") -> bytes:
    return frame(RESET, 0, stream, struct.pack(">HBB", code, delivery, 0) + reason)


def frames(data: bytes) -> list[Frame]:
    """Cut output into (type, flags, stream, payload); all of it must be whole frames."""
    found = []
    while data:
        length, kind, flags, reserved, stream = struct.unpack(">IBBHI", data[:12])
        assert reserved == 0 and len(data) >= 12 + length
        found.append((kind, flags, stream, data[12 : 12 + length]))
        data = data[12 + length :]
    return found


def heard(events: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Without the events that only say that there is something to write, or that a slot is free."""
    return [event for event in events if event[0] not in ("output", "release")]


def carry(source: EventSession, sink: EventSession) -> list[tuple[Any, ...]]:
    """Move all output of one session to the other, and return what that one has heard."""
    return heard(sink.receive(source.gather_all()))


def open_stream(source: EventSession, sink: EventSession, **options: Any) -> tuple[EventStream, EventStream]:
    """Open a stream, and return both ends."""
    near = source.open()
    assert near is not None
    near.send_head(b"GET / HTTP/1.1\r\n\r\n", **options)
    ((name, far, *_),) = carry(source, sink)
    assert name == "open"
    return near, far


@contextmanager
def two_sessions(
    *, streams: int = 100, windows: tuple[int, int] = (65536, 65536), **options: Any
) -> Iterator[tuple[EventSession, EventSession]]:
    """A dialling and an accepting session; afterwards nothing is left of them."""
    before = memory_usage(), promised()
    both = [
        EventSession(
            dialled=index == 0,
            local_streams=streams,
            peer_streams=streams,
            local_window=windows[index],
            peer_window=windows[1 - index],
            **options,
        )
        for index in (0, 1)
    ]
    yield both[0], both[1]
    for session in both:
        session.on_event = None
        session.abort()
    assert (memory_usage(), promised()) == before


@contextmanager
def one_session(*, dialled: bool = False, **options: Any) -> Iterator[EventSession]:
    """One session, whose first PING is out of the way."""
    before = memory_usage(), promised()
    session = EventSession(dialled=dialled, **options)
    session.gather_all()
    yield session
    session.on_event = None
    session.abort()
    assert (memory_usage(), promised()) == before
