"""Whole messages, one behind another: where we see one end, h11 and httptools see it end too.

This is what smuggling lives on. And the other way round: what we refuse although one of them takes it is in a
list, with a reason and an example.
"""

# ruff: noqa: E501

from dataclasses import dataclass, field
from typing import NamedTuple

import h11
import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _fastpath.chunked import ChunkedError, ChunkedReader
from _fastpath.http1 import HeadError, HeadScanner
from tests import malformed
from tests.http1_strategies import cuts, damaged, requests, responses
from tests.property.test_http1_chunked import bodies, broken

Message = tuple[bytes, bytes]  # target or status, and body


@dataclass
class Reading:
    """The messages that are complete, and why the next one is refused, if it is."""

    messages: list[Message] = field(default_factory=list)
    refused: str = ""


def read_body(head: bytes, framing: str, length: int | None, data: bytes) -> tuple[bytes, int] | None:
    """The body's bytes, and how many bytes it took; None where more are needed. Raises ChunkedError."""
    if framing == "chunked":
        reader = ChunkedReader()
        body = reader.feed(data)
        return (body, len(data) - len(reader.unused)) if reader.done else None
    size = length or 0 if framing == "length" else 0
    return (data[:size], size) if len(data) >= size else None


def ours(kind: str, data: bytes) -> Reading:
    reading = Reading()
    try:
        while data:
            head = HeadScanner("request" if kind == "request" else "response").scan(data)
            if head is None or head.framing == "close" or head.status in range(100, 200):
                break
            found = read_body(data, head.framing, head.content_length, data[head.size :])
            if found is None:
                break
            reading.messages.append((head.target or b"%d" % head.status, found[0]))
            data = data[head.size + found[1] :]
            if not head.keep_alive:
                break
    except (HeadError, ChunkedError) as error:
        reading.refused = str(error)
    return reading


# --- httptools ------------------------------------------------------------------------------------------------


class Collector:
    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.target = self.body = b""
        self.parser: httptools.HttpRequestParser | httptools.HttpResponseParser | None = None

    def on_message_begin(self) -> None:
        self.target = self.body = b""

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        if isinstance(self.parser, httptools.HttpResponseParser):
            self.target = b"%d" % self.parser.get_status_code()
        self.messages.append((self.target, self.body))


def httptools_messages(kind: str, data: bytes, pieces: list[int]) -> Reading:
    collector = Collector()
    make = httptools.HttpRequestParser if kind == "request" else httptools.HttpResponseParser
    collector.parser = make(collector)
    at, refused = 0, ""
    try:
        for size in pieces:
            collector.parser.feed_data(data[at:size])
            at = size
    except httptools.HttpParserUpgrade:
        refused = "upgrade"
    except httptools.HttpParserError as error:
        refused = str(error) or type(error).__name__
    return Reading(collector.messages, refused)


# --- h11 ---------------------------------------------------------------------------------------------------------


def h11_messages(data: bytes, pieces: list[int]) -> Reading:
    """Requests only: for each one an answer is sent, so that the next is read."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    reading = Reading()
    target = body = b""
    at = 0
    try:
        for size in pieces:
            if size > at:
                connection.receive_data(data[at:size])
                at = size
            while True:
                event = connection.next_event()
                if isinstance(event, h11.Request):
                    target, body = event.target, b""
                elif isinstance(event, h11.Data):
                    body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    reading.messages.append((target, body))
                    connection.send(h11.Response(status_code=404, headers=[("Content-Length", "0")]))
                    connection.send(h11.EndOfMessage())
                    if connection.states[h11.SERVER] is not h11.DONE:
                        return reading
                    connection.start_next_cycle()
                else:
                    break
    except h11.RemoteProtocolError as error:
        reading.refused = str(error)
    return reading


# --- streams of messages ----------------------------------------------------------------------------------------


@st.composite
def streams(draw: st.DrawFn, kind: str) -> bytes:
    """Up to four messages: some with bodies, some damaged, with something between them at times."""
    data = b""
    for _ in range(draw(st.integers(1, 4))):
        form = draw(st.sampled_from(["head", "length", "chunked", "chunked"]))
        start = (
            b"POST /%d HTTP/1.1\r\nHost: a\r\n" % len(data) if kind == "request" else b"HTTP/1.1 200 OK\r\n"
        )
        if form == "head":
            data += draw(damaged(requests() if kind == "request" else responses()))
        elif form == "length":
            body = draw(st.binary(max_size=30))
            wrong = draw(st.sampled_from([0, 0, 0, 1, -1]))
            data += start + b"Content-Length: %d\r\n\r\n" % max(0, len(body) + wrong) + body
        else:
            data += start + b"Transfer-Encoding: chunked\r\n\r\n" + draw(st.one_of(bodies(), broken()))
        data += draw(st.sampled_from([b""] * 8 + [b"\r\n", b"\n", b" ", b"0\r\n\r\n"]))
    return data


def check_same(kind: str, data: bytes, pieces: list[int]) -> None:
    mine, theirs = ours(kind, data), httptools_messages(kind, data, pieces)
    # llhttp stops where it does not know a method, or sees an upgrade; and it ends a response to
    # nobody's HEAD where we do not.
    common = min(len(mine.messages), len(theirs.messages))
    assert mine.messages[:common] == theirs.messages[:common], data
    if len(theirs.messages) < len(mine.messages):
        assert theirs.refused, data


@settings(max_examples=60)
@given(st.data(), streams("request"))
def test_httptools_sees_the_same_requests_end_at_the_same_bytes(choice: st.DataObject, data: bytes) -> None:
    check_same("request", data, choice.draw(cuts(len(data))))
    check_same("request", data, list(range(len(data) + 1)))


@settings(max_examples=60)
@given(st.data(), streams("response"))
def test_httptools_sees_the_same_responses_end_at_the_same_bytes(choice: st.DataObject, data: bytes) -> None:
    check_same("response", data, choice.draw(cuts(len(data))))
    check_same("response", data, list(range(len(data) + 1)))


@settings(max_examples=60)
@given(st.data(), streams("request"))
def test_h11_sees_the_same_requests_end_at_the_same_bytes(choice: st.DataObject, data: bytes) -> None:
    mine = ours("request", data)
    for pieces in (choice.draw(cuts(len(data))), list(range(len(data) + 1))):
        theirs = h11_messages(data, pieces)
        common = min(len(mine.messages), len(theirs.messages))
        assert mine.messages[:common] == theirs.messages[:common], data


# --- where we are stricter -----------------------------------------------------------------------------------------


class Stricter(NamedTuple):
    """A rule of ours that not every peer has: why we have it, and a message that a peer takes."""

    reason: str
    why: str
    example: bytes


GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"

# fmt: off
STRICTER = [
    Stricter("CONNECT is not offered here", "a tunnel to anywhere", b"CONNECT /x HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("Connection is not a list of names", "what is hop-by-hop must be known", GET + b"Connection: a b\r\n\r\n"),
    Stricter("Connection names too many fields", "work that a client can ask for", GET + b"Connection: " + b"x," * 40 + b"\r\n\r\n"),
    Stricter("Content-Length is not a plain number", "octal to some", POST + b"Content-Length: 05\r\n\r\nhello"),
    Stricter("there is more than one Content-Length", "which one counts?", POST + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx"),
    Stricter("there are both Transfer-Encoding and Content-Length", "CL.TE", POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Stricter("there is a Transfer-Encoding in HTTP/1.0", "RFC 9112 6.1", b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    Stricter("there is unusual whitespace around a transfer coding", "not found by all", POST + b"Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n"),
    Stricter("Host and the request target name different hosts", "routed by one, served by the other", b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("there is no Host", "RFC 9112 3.2", b"GET / HTTP/1.1\r\n\r\n"),
    Stricter("there is more than one Host", "RFC 9112 3.2", GET + b"Host: a\r\n\r\n"),
    Stricter("the host is empty", "it routes", b"GET / HTTP/1.1\r\nHost: \r\n\r\n"),
    Stricter("the host is too long", "longer than any name", b"GET / HTTP/1.1\r\nHost: " + b"a" * 300 + b"\r\n\r\n"),
    Stricter("the host is not an IPv6 address", "it routes", b"GET / HTTP/1.1\r\nHost: []\r\n\r\n"),
    Stricter("the host's port is not a number from 1 to 65535", "it is forwarded", b"GET / HTTP/1.1\r\nHost: a:\r\n\r\n"),
    Stricter("there is an illegal character in the host", "it routes", b"GET / HTTP/1.1\r\nHost: *\r\n\r\n"),
    Stricter("there is user information in the request target", "RFC 9110 4.2.4", b"GET http://@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("the request target is neither a path nor an http or https URI", "RFC 9112 3.2", b"GET x HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("there is a fragment in the request target", "RFC 9112 3.2", b"GET /# HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("there is a backslash in the path", "a slash to some", b"GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("the method is too long", "longer than any method", b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("the request does not start with a method and one space", "one empty line is enough", b"\r\n\r\n" + GET + b"\r\n"),
    Stricter("there is more than one space after the method", "RFC 9112 3", b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("there is no HTTP version (HTTP/0.9)", "its answer has no head", b"GET /\r\n\r\n"),
    Stricter("this HTTP version is not supported", "who knows its rules", b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    Stricter("the HTTP version is malformed", "another protocol", b"GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
    Stricter("a line ends with a bare LF", "RFC 9112 2.2 leaves it open", b"GET / HTTP/1.1\nHost: a\n\n"),
    Stricter("there is a bare CR", "a line end to some", b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    Stricter("a field line starts with whitespace (obs-fold)", "RFC 9112 5.2", GET + b"X:\r\n a\r\n\r\n"),
    Stricter("there is a control character in a field value", "RFC 9110 5.5", GET + b"X: a\x7f\r\n\r\n"),
    Stricter("there is a field that CGI reads as Content-Length or Transfer-Encoding", "CGI", GET + b"Content_Length: 5\r\n\r\n"),
    Stricter("there is more than one Authorization", "whose rights?", GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n"),
    Stricter("the head is larger than the limit", "a limit", GET + b"X: " + b"a" * 65536 + b"\r\n\r\n"),
    Stricter("there are more header fields than the limit", "a limit", GET + b"X: a\r\n" * 101 + b"\r\n"),
    Stricter("there is a chunk extension", "nobody uses them but smugglers", CHUNKED + b"0;a\r\n\r\n"),
    Stricter("a chunk's size has too many digits", "an overflow to some", CHUNKED + b"00000000000000005\r\nhello\r\n0\r\n\r\n"),
    Stricter("a chunk's size is malformed", "whitespace", CHUNKED + b"5 \r\nhello\r\n0\r\n\r\n"),
    Stricter("a trailer line ends with a bare LF", "as in heads", CHUNKED + b"0\r\n\n"),
    Stricter("a trailer line is malformed", "obs-fold", CHUNKED + b"0\r\nX: a\r\n b\r\n\r\n"),
    Stricter("there is a control character in a trailer", "as in heads", CHUNKED + b"0\r\nX: \x7f\r\n\r\n"),
]
STRICTER_RESPONSES = [
    Stricter("a 1xx response has a body", "RFC 9112 6.3", b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n"),
    Stricter("a 204 response has a body", "RFC 9112 6.3", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
    Stricter("a line ends with a bare LF", "as in requests", b"\n" + OK + b"Content-Length: 0\r\n\r\n"),
    Stricter("the HTTP version is malformed", "an empty line is no version", b"\r\n" + OK + b"Content-Length: 0\r\n\r\n"),
    Stricter("this HTTP version is not supported", "as in requests", b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n"),
    Stricter("the status is not in 100 to 599", "RFC 9110 15", b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n"),
    Stricter("there is a NUL byte", "an end to some", b"HTTP/1.1 200 O\x00K\r\nContent-Length: 0\r\n\r\n"),
    Stricter("there is an illegal character in the status line", "RFC 9112 4", b"HTTP/1.1 200 \x0b\r\nContent-Length: 0\r\n\r\n"),
    Stricter("there is a chunk extension", "as in requests", OK + b"Transfer-Encoding: chunked\r\n\r\n0;a\r\n\r\n"),
    Stricter("a chunk's size has too many digits", "as in requests", OK + b"Transfer-Encoding: chunked\r\n\r\n00000000000000000\r\n\r\n"),
    Stricter("a 101 response does not say to what it upgrades", "RFC 9110 7.8", b"HTTP/1.1 101 x\r\n\r\n"),
    Stricter("there is more than one Transfer-Encoding", "in an answer without a body, too", b"HTTP/1.1 304 x\r\nTransfer-Encoding: a\r\nTransfer-Encoding: b\r\n\r\n"),
    Stricter("there is unusual whitespace around a transfer coding", "the same", b"HTTP/1.1 304 x\r\nTransfer-Encoding: chunked \r\n\r\n"),
]
# fmt: on
REASONS = {row.reason for row in [*STRICTER, *STRICTER_RESPONSES]}


def takers(kind: str, data: bytes) -> set[str]:
    """Who reads a whole message where we read one less and refuse the next; those that refuse it later do not count."""
    mine = ours(kind, data)
    if not mine.refused:
        return set()
    readings = {"httptools": httptools_messages(kind, data, [len(data)])}
    if kind == "request":
        readings["h11"] = h11_messages(data, [len(data)])
    return {name for name, theirs in readings.items() if len(theirs.messages) > len(mine.messages)}


@pytest.mark.parametrize("row", [*STRICTER, *STRICTER_RESPONSES], ids=lambda row: row.reason)
def test_the_list_of_what_only_we_refuse(row: Stricter) -> None:
    kind = "response" if row in STRICTER_RESPONSES else "request"
    assert ours(kind, row.example).refused == row.reason
    assert takers(kind, row.example), "nobody takes it: the row is of no use"


@settings(derandomize=True, max_examples=300)
@given(st.sampled_from(["request", "response"]).flatmap(lambda kind: st.tuples(st.just(kind), streams(kind))))
def test_whatever_only_we_refuse_is_in_the_list(given: tuple[str, bytes]) -> None:
    kind, data = given
    if takers(kind, data):
        assert ours(kind, data).refused in REASONS, data


def test_of_the_tables_too() -> None:
    for kind, rows in (("request", malformed.REQUESTS), ("response", malformed.RESPONSES)):
        for row in rows:
            if takers(kind, row.data):
                assert ours(kind, row.data).refused in REASONS, row.why
    for row in malformed.BODIES:
        for kind, head in (("request", CHUNKED), ("response", OK + b"Transfer-Encoding: chunked\r\n\r\n")):
            if takers(kind, head + row.data):
                assert ours(kind, head + row.data).refused in REASONS, row.why
