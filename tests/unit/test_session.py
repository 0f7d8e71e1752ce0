"""Two sessions, joined by hand: streams open, carry messages both ways, and are released."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pytest

from _fastpath.events import EventSession, EventStream
from _fastpath.memory import memory_usage

HEAD_END, HEAD_INTERIM, HEAD_TCP = 1, 2, 4


@pytest.fixture
def pair() -> Iterator[tuple[EventSession, EventSession]]:
    before = memory_usage()
    dialler = EventSession(dialled=True)
    acceptor = EventSession(dialled=False)
    yield dialler, acceptor
    dialler.abort()
    acceptor.abort()
    assert memory_usage() == before


def carry(source: EventSession, sink: EventSession) -> list[tuple]:
    """Move all output of one session to the other; returns its events but for those that only say 'write'."""
    return [event for event in sink.receive(source.gather_all()) if event[0] not in ("output", "release")]


def opened(source: EventSession, sink: EventSession, **kind: bool) -> tuple[EventStream, EventStream]:
    near = source.open()
    near.send_head(b"GET / HTTP/1.1\r\n\r\n", **kind)
    ((name, far, *_),) = carry(source, sink)
    assert name == "open"
    return near, far


def test_a_request_and_its_response(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    near = dialler.open()
    near.send_head(b"GET / HTTP/1.1\r\n\r\n", end=True, meta=b"\x01\x09192.0.2.1")
    assert dialler.events() == [("output",)]
    ((_, far, meta, head, body, flags),) = carry(dialler, acceptor)
    assert (meta, head, body, flags) == (b"\x01\x09192.0.2.1", b"GET / HTTP/1.1\r\n\r\n", b"", HEAD_END)
    assert far.id == near.id
    far.send_head(b"HTTP/1.1 200 OK\r\n\r\n", b"hello", end=True)
    assert carry(acceptor, dialler) == [("head", near, b"HTTP/1.1 200 OK\r\n\r\n", b"hello", HEAD_END)]
    assert not near.alive and not far.alive
    assert dialler.active == acceptor.active == 0


def test_both_sides_open_streams(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    first, _ = opened(dialler, acceptor)
    second, _ = opened(acceptor, dialler)
    assert first.id == 0x0001_0000
    assert second.id == 0x8001_0000


def test_bytes_of_an_open_frame(pair: tuple[EventSession, EventSession]) -> None:
    dialler, _ = pair
    dialler.gather_all()
    dialler.open().send_head(b"GET / HTTP/1.1\r\n\r\n", b"abc", meta=b"\x01\x01x")
    assert dialler.gather_all() == (
        struct.pack(">IBBHI", 8 + 3 + 18 + 3, 1, 0, 0, 0x0001_0000)
        + struct.pack(">BBHI", 1, 0, 3, 18)
        + b"\x01\x01x"
        + b"GET / HTTP/1.1\r\n\r\n"
        + b"abc"
    )


def test_body_in_both_directions_and_half_close(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    near, far = opened(dialler, acceptor)
    near.send_data(b"one")
    near.send_data(b"two", end=True)
    assert carry(dialler, acceptor) == [("data", far, b"one", False), ("data", far, b"two", True)]
    assert near.alive and far.alive
    far.send_head(b"HTTP/1.1 200 OK\r\n\r\n")
    far.send_data(b"three")
    far.send_end(b"X: y\r\n")
    assert carry(acceptor, dialler) == [
        ("head", near, b"HTTP/1.1 200 OK\r\n\r\n", b"", 0),
        ("data", near, b"three", False),
        ("end", near, b"X: y\r\n"),
    ]
    assert not near.alive and not far.alive


def test_reset_reaches_the_other_side(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    near, far = opened(dialler, acceptor)
    far.reset(16, 0, b"refused")
    assert not far.alive
    assert carry(acceptor, dialler) == [("reset", near, 16, 0, b"refused")]
    assert not near.alive


def test_slots_are_used_again_with_the_next_generation(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    near, far = opened(dialler, acceptor, end=True)
    far.send_head(b"HTTP/1.1 200 OK\r\n\r\n", end=True)
    carry(acceptor, dialler)
    again, _ = opened(dialler, acceptor)
    assert (near.id, again.id) == (0x0001_0000, 0x0002_0000)


def test_control_messages(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    assert dialler.control(b"\x80") == 0
    assert carry(dialler, acceptor) == [("control", b"\x80")]
    assert dialler.control(b"") == -1
    assert dialler.control(bytes(262145)) == -1


def test_window_bounds_the_sender(pair: tuple[EventSession, EventSession]) -> None:
    dialler, acceptor = pair
    near, far = opened(dialler, acceptor)
    received = 0
    while near.free():
        near.send_reserved(bytes(near.free()))
        received += sum(len(event[2]) for event in carry(dialler, acceptor))
    assert received == 65536
    far.consume(40000)
    assert carry(acceptor, dialler) == [("room", near)]
    assert near.free() == 40000
