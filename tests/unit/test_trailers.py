"""Trailers that another node says are canonical, and that are written as they are."""

import pytest

from _fastpath.chunked import are_canonical

CANONICAL = [b"X: a\r\n", b"X: a\r\nY: b\r\n", b"X: \r\n", b"Content-Digest: a\r\n", b"X: \xff\t a\r\n", b""]
OTHERS = [
    (b"X: a", "no line end"),
    (b"X: a\n", "a bare LF"),
    (b"X: a\r", "a bare CR"),
    (b"X: a\rY: b\r\n", "a bare CR in a value"),
    (b"\r\n", "an empty line"),
    (b"X: a\r\n\r\n", "an empty line at the end"),
    (b"X: a\r\n\r\nHTTP/1.1 200 OK\r\n", "a response"),
    (b"\r\nGET / HTTP/1.1\r\nHost: a\r\n", "a request"),
    (b"0\r\n\r\nGET / HTTP/1.1\r\n", "a last chunk"),
    (b"X:a\r\n", "no space"),
    (b"X:  a\r\n", "two spaces"),
    (b"X: a \r\n", "a space at the end"),
    (b"X : a\r\n", "a space before the colon"),
    (b" X: a\r\n", "a folded line"),
    (b"X: a\x00\r\n", "a NUL"),
    (b": a\r\n", "no name"),
    (b"X\r\n", "no colon"),
    (b"Content-Length: 5\r\n", "a field that frames"),
    (b"Transfer-Encoding: chunked\r\n", "a coding"),
    (b"X: a\r\nHost: b\r\n", "a field that routes"),
    (b"Set-Cookie: a=b\r\n", "a field that no trailer section may have"),
    (b"X: a\r\n" * 2000, "more than the limit"),
]


@pytest.mark.parametrize("trailers", CANONICAL)
def test_canonical(trailers: bytes) -> None:
    assert are_canonical(trailers)


@pytest.mark.parametrize(("trailers", "why"), OTHERS, ids=[why for _, why in OTHERS])
def test_not_canonical(trailers: bytes, why: str) -> None:
    assert not are_canonical(trailers)
