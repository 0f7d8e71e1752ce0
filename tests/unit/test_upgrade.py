"""Changes of protocol, sans-IO: which is asked for, and where WebSocket frames end."""

import random

import pytest

from _fastpath.forward import rewrite_request
from _fastpath.upgrade import offered_protocol
from _fastpath.websocket import frame_boundaries


def request(*lines: str) -> bytes:
    return "\r\n".join(["GET / HTTP/1.1", "Host: a", *lines, "", ""]).encode()


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["Connection: upgrade", "Upgrade: websocket"], b"websocket"),
        (["Connection: keep-alive, Upgrade", "upgrade: WebSocket"], b"WebSocket"),
        (["Connection: upgrade", "Upgrade: h2c, foo/2 ,websocket"], b"websocket"),
        (["Connection: upgrade", "Upgrade: foo/1, websocket"], b"foo/1"),
        (["Connection: upgrade", "Upgrade: websocket, foo/1"], b"websocket"),
        (["Connection: upgrade", "Upgrade: foo"], b""),
        (["Connection: upgrade", "Upgrade: websockets"], b""),
        (["Connection: upgrade", "Upgrade: websocket/13"], b""),
        (["Connection: upgrade", "Upgrade:"], b""),
        (["Connection: upgrade", "Upgrade: ,, "], b""),
        (["Connection: upgrade", "Upgrade: websocket", "Upgrade: websocket"], b""),
        (["Upgrade: websocket"], b""),
        (["Connection: close", "Upgrade: websocket"], b""),
        (["Connection: upgrade"], b""),
        (["Connection: upgrade", "Upgrade: websocket", "Content-Length: 1"], b""),
        (["Connection: upgrade", "Upgrade: websocket", "Content-Length: 0"], b"websocket"),
        (["Connection: upgrade", "Upgrade: websocket", "Transfer-Encoding: chunked"], b""),
    ],
)
def test_what_is_offered(lines: list[str], found: bytes) -> None:
    assert offered_protocol(request(*lines), [b"websocket", b"foo/1"]) == found


def test_nothing_is_allowed() -> None:
    assert offered_protocol(request("Connection: upgrade", "Upgrade: websocket"), []) == b""


def test_http_1_0_does_not_upgrade() -> None:
    head = request("Connection: upgrade", "Upgrade: websocket").replace(b"HTTP/1.1", b"HTTP/1.0")
    assert offered_protocol(head, [b"websocket"]) == b""


def test_a_canonical_head_asks_once() -> None:
    head = request("Connection: X-Own, Upgrade", "X-Own: 1", "Upgrade: websocket", "Accept: a")
    kept = request("Upgrade: websocket", "Accept: a", "Connection: Upgrade")
    assert rewrite_request(head, upgrade=True) == kept


def frame(size: int, opcode: int = 2, masked: bool = False, final: bool = True) -> bytes:
    """A WebSocket frame, by RFC 6455 5.2 and not by the code."""
    first = bytes([opcode | (128 if final else 0)])
    mask = 128 if masked else 0
    if size < 126:
        length = bytes([size | mask])
    elif size < 65536:
        length = bytes([126 | mask]) + size.to_bytes(2, "big")
    else:
        length = bytes([127 | mask]) + size.to_bytes(8, "big")
    return first + length + (b"mask" if masked else b"") + b"\xff" * size


@pytest.mark.parametrize("masked", [False, True])
def test_frames_end_where_they_end(masked: bool) -> None:
    """However the bytes are cut into pieces."""
    sizes = [0, 1, 2, 125, 126, 127, 300, 65535, 65536, 70000, 0, 0, 5]
    frames = [frame(size, opcode=number % 3, masked=masked) for number, size in enumerate(sizes)]
    stream = b"".join(frames)
    expected = [sum(map(len, frames[: number + 1])) for number in range(len(frames))]
    assert frame_boundaries([stream]) == (expected, False)
    dice = random.Random(7)
    for longest in (1, 2, 3, 1000):
        pieces, at = [], 0
        while at < len(stream):
            pieces.append(stream[at : (at := at + dice.randint(1, longest))])
        assert frame_boundaries(pieces) == (expected, False)


def test_a_close_is_seen() -> None:
    assert frame_boundaries([frame(10), frame(2, opcode=8)[:1]])[1] is False
    assert frame_boundaries([frame(10), frame(2, opcode=8)])[1] is True


@pytest.mark.parametrize("length", [b"\xff" * 8, b"\x80" + b"\0" * 7, b"\x7f" + b"\xff" * 7])
def test_a_length_beyond_all_measure_is_one_frame_without_end(length: bytes) -> None:
    for masked in (127, 255):
        assert frame_boundaries([bytes([130, masked]) + length + b"x" * 1000]) == ([], False)
