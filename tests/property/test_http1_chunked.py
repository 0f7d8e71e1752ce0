"""The chunked decoder against a slow oracle, h11, and itself in pieces."""

import itertools

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from _fastpath.chunked import ChunkedError, ChunkedReader, size_line
from tests import http1_oracle as oracle
from tests.http1_strategies import DAMAGE, NAMES, TEXTS, TOKENS, chosen, cuts

BASE = b"a\r\n0123456789\r\n01\r\n\r\r\n0\r\nX-Sum: ab \r\nY:c\r\n\r\n"
FORBIDDEN = [
    *(name for name in NAMES[:22] if name != b"X-Request-Id"),
    *b"Content-Type Content-Encoding Content-Range content-x If-Match If-None-Match Age Expires".split(),
    *b"Cache-Control Location Max-Forwards Pragma Range Retry-After Vary Warning WWW-Authenticate".split(),
    *b"Proxy-Authentication-Info Proxy-X Set-Cookie Set-Cookie2 Broker-User Client-Cert".split(),
    *b"HTTP2-Settings Date Cookie2 Accept-Ranges Broker-Name-That-Is-Longer-Than-Thirty-Two-Bytes".split(),
]
ALLOWED = b"X-Sum X-Request-Id Traceparent Content-Digest Content-MD5 ETag Server-Timing Digest".split()
ALLOWED += b"Ages Content- If- If grpc-status _ Prox-y".split()
TRAILERS = [*FORBIDDEN, *ALLOWED, *(name.replace(b"-", b"_") for name in FORBIDDEN)]


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """A legal chunked body."""
    data = b""
    for chunk in draw(st.lists(st.binary(min_size=1, max_size=40), max_size=5)):
        size = draw(st.sampled_from([b"%x", b"%X", b"%04x", b"%016X"])) % len(chunk)
        data += size + b"\r\n" + chunk + b"\r\n"
    data += draw(st.sampled_from([b"0", b"0", b"000", b"0" * 16])) + b"\r\n"
    names = st.one_of(TOKENS, chosen(TRAILERS))
    for name, value in draw(st.lists(st.tuples(names, TEXTS), max_size=3)):
        data += name + b":" + draw(st.sampled_from([b" ", b"", b" \t "])) + value + b"\r\n"
    return data + b"\r\n"


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    data = draw(bodies())
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(chosen(DAMAGE)) + data[at + draw(st.integers(0, 2)) :]
    return data


def read(data: bytes, sizes: list[int]) -> tuple[bytes, bytes, bytes, bool] | str:
    """Body, trailers, rest and whether it ended, from growing prefixes of `data`; or why it is refused."""
    reader = ChunkedReader()
    body, at = b"", 0
    try:
        for size in sizes:
            body += reader.feed(data[at:size])
            at = size
    except ChunkedError as error:
        return str(error)
    return body, reader.trailers, reader.unused, reader.done


def crossing(fields: list[tuple[bytes, bytes]]) -> bytes:
    """Trailers that cross, canonical."""
    crossed = b""
    for name, value in fields:
        if not oracle.FORBIDDEN_TRAILER.fullmatch(oracle.as_cgi(name)):
            crossed += name + b": " + value + b"\r\n"
    return crossed


def check_against_oracle(data: bytes) -> None:
    ours = read(data, [len(data)])
    try:
        body, trailers, size = oracle.read_chunked(data)
    except oracle.Refused:
        # The oracle looks for the trailers' end first: without it, it does not see that a line is wrong.
        assert isinstance(ours, str), (data, ours)
    except EOFError:
        assert isinstance(ours, str) or not ours[3], (data, ours)
    else:
        assert ours == (body, crossing(trailers), data[size:], True), data


@given(bodies(), st.binary(max_size=20))
def test_a_legal_body_is_decoded(data: bytes, rest: bytes) -> None:
    body, trailers, size = oracle.read_chunked(data)
    assert size == len(data)
    assert read(data + rest, [len(data) + len(rest)]) == (body, crossing(trailers), rest, True)


@given(broken())
def test_a_body_is_read_as_the_oracle_reads_it(data: bytes) -> None:
    check_against_oracle(data)


@given(st.data(), broken())
def test_pieces_give_what_the_whole_gives(choice: st.DataObject, data: bytes) -> None:
    whole = read(data, [len(data)])
    assert read(data, choice.draw(cuts(len(data)))) == whole
    assert read(data, list(range(len(data) + 1))) == whole


@given(broken())
def test_h11_reads_the_same_body(data: bytes) -> None:
    """Where we accept. h11 takes chunk extensions and bare LF too; we don't."""
    ours = read(data, [len(data)])
    if isinstance(ours, str) or not ours[3]:
        return
    _, trailers, _ = oracle.read_chunked(data)
    # Rule "framing in trailers": h11 judges Content-Length and its like there too; we drop them.
    assume(crossing(trailers).count(b"\r\n") == len(trailers))
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)
    assert isinstance(connection.next_event(), h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    assert body == ours[0]
    assert list(event.headers) == [(name.lower(), value) for name, value in trailers]


@pytest.mark.parametrize("cut", [0, 1])
def test_every_byte_in_every_position(cut: int) -> None:
    for at, byte in itertools.product(range(len(BASE)), range(256)):
        check_against_oracle(BASE[:at] + bytes([byte]) + BASE[at + cut :])


@given(st.integers(1, 2**63 - 1))
def test_a_size_line_is_read_back(size: int) -> None:
    assert size_line(size) == b"%X\r\n" % size
    assert ChunkedReader().feed(size_line(size) + b"a") == b"a"


@given(st.lists(st.binary(min_size=1, max_size=500), max_size=8))
def test_what_we_encode_is_decoded(chunks: list[bytes]) -> None:
    data = b"".join(size_line(len(chunk)) + chunk + b"\r\n" for chunk in chunks) + b"0\r\n\r\n"
    assert read(data, [len(data)]) == (b"".join(chunks), b"", b"", True)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_what_frames_routes_or_identifies_is_no_trailer(name: bytes) -> None:
    for spelling in (name, name.lower(), name.upper(), name.replace(b"-", b"_")):
        data = b"0\r\nX-A: 1\r\n" + spelling + b": 5\r\nX-B:2\r\n\r\n"
        assert read(data, [len(data)]) == (b"", b"X-A: 1\r\nX-B: 2\r\n", b"", True)
        assert read(data, list(range(len(data) + 1))) == (b"", b"X-A: 1\r\nX-B: 2\r\n", b"", True)


@pytest.mark.parametrize("name", ALLOWED)
def test_other_trailers_cross(name: bytes) -> None:
    data = b"0\r\n" + name + b": 5\r\n\r\n"
    assert read(data, [len(data)]) == (b"", name + b": 5\r\n", b"", True)


def test_a_flood_of_tiny_chunks_keeps_nothing() -> None:
    reader = ChunkedReader()
    for _ in range(1000):
        assert reader.feed(b"1\r\na\r\n" * 100) == b"a" * 100
    assert reader.feed(b"0\r\n\r\n") == b""
    assert reader.done
