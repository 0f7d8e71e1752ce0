"""Every line of the tables of malformed and well-formed heads and bodies, whole and byte by byte."""

from typing import Literal

import pytest

from _fastpath.chunked import ChunkedError, ChunkedReader
from _fastpath.http1 import HeadError, HeadScanner, ParsedHead
from tests import malformed, wellformed

Kind = Literal["request", "response"]


def scanner(kind: Kind) -> HeadScanner:
    return HeadScanner(kind, uri_limit=8192)


def byte_by_byte(kind: Kind, data: bytes) -> ParsedHead | None:
    one = scanner(kind)
    # The first few hundred prefixes and the last ones; a head at the limit has 65,536 of them.
    sizes = {*range(min(len(data), 400)), *range(max(0, len(data) - 50), len(data) + 1)}
    for size in sorted(sizes):
        head = one.scan(data[:size])
        if head is not None:
            return head
    return None


def refusal(kind: Kind, data: bytes, *, whole: bool) -> HeadError:
    with pytest.raises(HeadError) as caught:
        scanner(kind).scan(data) if whole else byte_by_byte(kind, data)
    return caught.value


def test_the_tables_are_as_long_as_promised() -> None:
    assert len(malformed.REQUESTS) >= 200
    assert len(malformed.RESPONSES) >= 60
    for table in (malformed.REQUESTS, malformed.RESPONSES, malformed.BODIES):
        assert len({row.data for row in table}) == len(table)


@pytest.mark.parametrize("row", malformed.REQUESTS, ids=lambda row: row.why)
def test_a_malformed_request_is_refused(row: malformed.Malformed) -> None:
    whole = refusal("request", row.data, whole=True)
    assert whole.status == row.status, whole.reason
    assert str(refusal("request", row.data, whole=False)) == whole.reason
    assert refusal("request", row.data + b"\r\n\r\n" * 2, whole=True).status == row.status


@pytest.mark.parametrize("row", malformed.RESPONSES, ids=lambda row: row.why)
def test_a_malformed_response_is_refused(row: malformed.Malformed) -> None:
    whole = refusal("response", row.data, whole=True)
    assert whole.status == row.status, whole.reason
    assert str(refusal("response", row.data, whole=False)) == whole.reason


def feed_byte_by_byte(reader: ChunkedReader, data: bytes) -> None:
    for byte in data:
        reader.feed(bytes([byte]))


@pytest.mark.parametrize("row", malformed.BODIES, ids=lambda row: row.why)
def test_a_malformed_chunked_body_is_refused(row: malformed.Malformed) -> None:
    with pytest.raises(ChunkedError) as whole:
        ChunkedReader().feed(row.data)
    reader = ChunkedReader()
    with pytest.raises(ChunkedError) as parts:
        feed_byte_by_byte(reader, row.data)
    assert str(whole.value) == str(parts.value)
    with pytest.raises(ChunkedError):
        reader.feed(b"")


@pytest.mark.parametrize("row", wellformed.REQUESTS, ids=lambda row: row.what)
def test_an_odd_but_legal_request_is_accepted(row: wellformed.Wellformed) -> None:
    head = scanner("request").scan(row.data + b"next")
    assert head is not None
    assert (head.size, head.framing) == (len(row.data), row.framing)
    again = byte_by_byte("request", row.data)
    assert again is not None
    assert vars(again) == vars(head)


@pytest.mark.parametrize("row", wellformed.RESPONSES, ids=lambda row: row.what)
def test_an_odd_but_legal_response_is_accepted(row: wellformed.Wellformed) -> None:
    head = scanner("response").scan(row.data + b"next")
    assert head is not None
    assert (head.size, head.framing) == (len(row.data), row.framing)
    again = byte_by_byte("response", row.data)
    assert again is not None
    assert vars(again) == vars(head)
