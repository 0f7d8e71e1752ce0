"""What we accept, h11 and httptools read in the same way: method, target, fields, framing, keep-alive.

We refuse much that they accept. Where they refuse or read differently what we accept, the rule is named here.
"""

from typing import Literal

import h11
import httptools
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from _fastpath.http1 import HeadError, HeadScanner, ParsedHead
from tests import wellformed
from tests.http1_strategies import cuts, damaged, requests, responses

Kind = Literal["request", "response"]

Parser = httptools.HttpRequestParser | httptools.HttpResponseParser
# llhttp refuses methods that it does not know.
LLHTTP_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH"}


def scanned(kind: Kind, data: bytes) -> ParsedHead | None:
    try:
        return HeadScanner(kind).scan(data)
    except HeadError:
        return None


def accepted(kind: Kind, data: bytes) -> ParsedHead:
    head = scanned(kind, data)
    assert head is not None
    return head


def lower(fields: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in fields]


# --- h11 -----------------------------------------------------------------------------


def h11_event(head: ParsedHead, data: bytes, pieces: list[int]) -> h11.Event:
    role = h11.SERVER if head.method else h11.CLIENT
    connection = h11.Connection(role, max_incomplete_event_size=2**20)
    if not head.method:
        upgrade = [("Connection", "upgrade"), ("Upgrade", "websocket")] if head.status == 101 else []
        connection.send(h11.Request(method="GET", target="/", headers=[("Host", "a"), *upgrade]))
        connection.send(h11.EndOfMessage())
    at = 0
    event: object = h11.NEED_DATA
    for size in pieces:
        if size > at:  # h11 takes b"" for the end of the stream
            connection.receive_data(data[at:size])
            at = size
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            break
    assert isinstance(event, h11.Event)
    return event


def check_h11_request(data: bytes, pieces: list[int]) -> None:
    head = accepted("request", data)
    # Rule "one empty line": RFC 9112 2.2 wants it ignored, h11 refuses it.
    data = data[: head.size].removeprefix(b"\r\n")
    event = h11_event(head, data, [min(size, len(data)) for size in pieces])
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (head.method, head.target)
    assert event.http_version == b"1.%d" % head.minor
    # Rule "lower-case coding": h11 writes the value of Transfer-Encoding in lower case.
    assert list(event.headers) == [
        (name, value.lower() if name == b"transfer-encoding" else value)
        for name, value in lower(head.headers)
    ]


def check_h11_response(data: bytes, pieces: list[int]) -> None:
    head = accepted("response", data)
    event = h11_event(head, data[: head.size], [min(size, head.size) for size in pieces])
    assert isinstance(event, h11.InformationalResponse if head.status < 200 else h11.Response)
    assert event.status_code == head.status
    assert event.reason == head.phrase
    assert [(name, value.lower()) for name, value in event.headers] == [
        (name, value.lower()) for name, value in lower(head.headers)
    ]


@given(st.data(), damaged(requests()))
def test_h11_reads_the_same_request(choice: st.DataObject, data: bytes) -> None:
    assume(scanned("request", data))
    check_h11_request(data, choice.draw(cuts(len(data))))


@given(st.data(), damaged(responses()))
def test_h11_reads_the_same_response(choice: st.DataObject, data: bytes) -> None:
    assume(scanned("response", data))
    check_h11_response(data, choice.draw(cuts(len(data))))


# --- httptools --------------------------------------------------------------------------


class Recorder:
    """What httptools calls."""

    def __init__(self) -> None:
        self.target = b""
        self.fields: list[tuple[bytes, bytes]] = []
        self.phrase = b""
        self.complete = False
        self.ended = False
        self.body = b""
        self.keep_alive = False
        self.parser: Parser | None = None

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_status(self, phrase: bytes) -> None:
        self.phrase += phrase

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        self.complete = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        assert self.parser is not None
        self.keep_alive = self.parser.should_keep_alive()
        self.ended = True


def httptools_read(kind: Kind, data: bytes, pieces: list[int]) -> tuple[Recorder, Parser]:
    recorder = Recorder()
    parser = (httptools.HttpRequestParser if kind == "request" else httptools.HttpResponseParser)(recorder)
    recorder.parser = parser
    at = 0
    for size in pieces:
        try:
            parser.feed_data(data[at:size])
        except httptools.HttpParserUpgrade:
            break
        at = size
    return recorder, parser


def check_framing(head: ParsedHead, recorder: Recorder, parser: Parser) -> None:
    """After the head alone: the body that we expect ends the message, and not one byte earlier."""
    assert recorder.complete
    if head.framing == "close":
        parser.feed_data(b"a" * 100)
        assert (recorder.ended, len(recorder.body)) == (False, 100)
    elif head.framing == "none":
        assert recorder.ended
    else:
        length = head.content_length or 0
        body = b"5\r\nhello\r\n0\r\n\r\n" if head.framing == "chunked" else b"a" * min(length, 1000)
        parser.feed_data(body[:-1])
        assert not recorder.ended
        parser.feed_data(body[-1:])
        assert recorder.ended == (head.framing == "chunked" or length <= 1000)


def check_fields(head: ParsedHead, recorder: Recorder, parser: Parser) -> None:
    # Rule "whitespace at the end": llhttp leaves it in the value.
    assert [(name, value.rstrip(b" \t")) for name, value in recorder.fields] == head.headers
    assert parser.get_http_version() == f"1.{head.minor}"


def check_httptools_request(data: bytes, pieces: list[int]) -> None:
    head = accepted("request", data)
    recorder, parser = httptools_read("request", data, [min(size, head.size) for size in pieces])
    assert isinstance(parser, httptools.HttpRequestParser)
    check_fields(head, recorder, parser)
    assert (parser.get_method(), recorder.target) == (head.method, head.target)
    if parser.should_upgrade():
        return
    check_framing(head, recorder, parser)
    # Rule "empty elements": llhttp does not find an option behind one in Connection.
    # Rule "close first": in HTTP/1.0 llhttp prefers keep-alive to close where both are there; we close.
    options = [value for name, value in head.headers if name.lower() == b"connection"]
    elements = [element.strip(b" \t").lower() for value in options for element in value.split(b",")]
    if recorder.ended and b"" not in elements and not (head.minor == 0 and b"close" in elements):
        assert recorder.keep_alive == head.keep_alive


def check_httptools_response(data: bytes, pieces: list[int]) -> None:
    head = accepted("response", data)
    recorder, parser = httptools_read("response", data, [min(size, head.size) for size in pieces])
    assert isinstance(parser, httptools.HttpResponseParser)
    check_fields(head, recorder, parser)
    assert parser.get_status_code() == head.status
    if head.status != 101:
        check_framing(head, recorder, parser)


@given(st.data(), damaged(requests()))
def test_httptools_reads_the_same_request(choice: st.DataObject, data: bytes) -> None:
    head = scanned("request", data)
    assume(head and head.method in LLHTTP_METHODS)
    check_httptools_request(data, choice.draw(cuts(len(data))))


@given(st.data(), damaged(responses()))
def test_httptools_reads_the_same_response(choice: st.DataObject, data: bytes) -> None:
    assume(scanned("response", data))
    check_httptools_response(data, choice.draw(cuts(len(data))))


# --- the table of what must pass ---------------------------------------------------------


@pytest.mark.parametrize("row", wellformed.REQUESTS, ids=lambda row: row.what)
def test_peers_read_odd_but_legal_requests_in_the_same_way(row: wellformed.Wellformed) -> None:
    check_h11_request(row.data, [len(row.data)])
    head = accepted("request", row.data)
    if head.method in LLHTTP_METHODS:
        check_httptools_request(row.data, [len(row.data)])


@pytest.mark.parametrize("row", wellformed.RESPONSES, ids=lambda row: row.what)
def test_peers_read_odd_but_legal_responses_in_the_same_way(row: wellformed.Wellformed) -> None:
    check_h11_response(row.data, [len(row.data)])
    check_httptools_response(row.data, [len(row.data)])
