"""The scanner against a slow oracle, and against itself in pieces."""

import itertools
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from _fastpath.http1 import HeadError, HeadScanner, ParsedHead, byte_classes, known_field
from tests import http1_oracle as oracle
from tests.http1_strategies import cuts, damaged, requests, responses

Kind = Literal["request", "response"]
Verdict = ParsedHead | str | None

TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BASE_REQUEST = (
    b"POST /p?q HTTP/1.1\r\nHost: a.b:80\r\nX-Y: v w\r\nContent-Length: 10\r\nConnection: X-Y, close\r\n"
    b"Broker_User:\r\nAccept: */*\r\n\r\n"
)
BASE_ABSOLUTE = b"GET http://a.b:80/p HTTP/1.0\r\nHost: a.b\r\nConnection: keep-alive\r\n\r\n"
BASE_CHUNKED = b"PUT * HTTP/1.1\r\nHost: [::1]\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\r\n"
BASE_RESPONSE = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: x\r\nConnection: a\r\nA:b\r\n\r\n"
BASE_LENGTH = b"HTTP/1.0 204\r\nContent-Length: 0\r\nUpgrade: \t\r\n\r\n"


def whole(kind: Kind, data: bytes) -> Verdict:
    """The head, why it is refused, or None where more is needed."""
    try:
        return HeadScanner(kind).scan(data)
    except HeadError as error:
        return f"{error.status} {error.reason}"


def in_pieces(kind: Kind, data: bytes, sizes: list[int]) -> Verdict:
    scanner = HeadScanner(kind)
    try:
        for size in sizes:
            head = scanner.scan(data[:size])
            if head is not None:
                return head
    except HeadError as error:
        return f"{error.status} {error.reason}"
    return None


def same(one: Verdict, other: Verdict) -> bool:
    if isinstance(one, ParsedHead) and isinstance(other, ParsedHead):
        return vars(one) == vars(other)
    return one == other


def check_against_oracle(kind: Kind, data: bytes) -> None:
    ours = whole(kind, data)
    try:
        theirs = (oracle.read_request if kind == "request" else oracle.read_response)(data)
    except oracle.Refused:
        assert not isinstance(ours, ParsedHead), data
        return
    assert isinstance(ours, ParsedHead), (data, ours)
    assert ours.size == theirs.size
    assert ours.headers == theirs.headers
    assert (ours.method, ours.target, ours.status) == (theirs.method, theirs.target, theirs.status)
    assert (ours.minor, ours.framing, ours.keep_alive) == (theirs.minor, theirs.framing, theirs.keep_alive)
    assert ours.content_length == theirs.content_length
    assert (ours.host, ours.hop) == (theirs.host, theirs.hop)


@given(damaged(requests()))
def test_requests_are_read_as_the_oracle_reads_them(data: bytes) -> None:
    check_against_oracle("request", data)


@given(damaged(responses()))
def test_responses_are_read_as_the_oracle_reads_them(data: bytes) -> None:
    check_against_oracle("response", data)


@given(st.data(), st.one_of(damaged(requests()), st.binary(max_size=80)))
def test_a_request_in_pieces_gets_the_answer_of_the_whole(choice: st.DataObject, data: bytes) -> None:
    assert same(in_pieces("request", data, choice.draw(cuts(len(data)))), whole("request", data))
    assert same(in_pieces("request", data, list(range(len(data) + 1))), whole("request", data))


@given(st.data(), st.one_of(damaged(responses()), st.binary(max_size=80)))
def test_a_response_in_pieces_gets_the_answer_of_the_whole(choice: st.DataObject, data: bytes) -> None:
    assert same(in_pieces("response", data, choice.draw(cuts(len(data)))), whole("response", data))
    assert same(in_pieces("response", data, list(range(len(data) + 1))), whole("response", data))


@given(damaged(requests()), st.binary(max_size=40))
@example(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\n")
def test_what_follows_a_head_changes_nothing(data: bytes, rest: bytes) -> None:
    head = whole("request", data)
    if isinstance(head, ParsedHead):
        assert same(whole("request", data + rest), head)


@given(damaged(requests()))
def test_a_prefix_is_refused_only_where_the_whole_is(data: bytes) -> None:
    verdict = whole("request", data)
    for size in range(len(data)):
        early = whole("request", data[:size])
        assert early is None or same(early, verdict)


@settings(max_examples=50)
@given(st.binary(max_size=300), st.sampled_from(["request", "response"]))
def test_noise_never_passes_for_a_head(data: bytes, kind: Kind) -> None:
    check_against_oracle(kind, data)


@pytest.mark.parametrize(
    ("kind", "base"),
    [("request", BASE_REQUEST), ("request", BASE_ABSOLUTE), ("request", BASE_CHUNKED),
     ("response", BASE_RESPONSE), ("response", BASE_LENGTH)],
)  # fmt: skip
def test_every_byte_in_every_position(kind: Kind, base: bytes) -> None:
    """Each of the 256 bytes replaces, and is put before, each byte of a head."""
    for at, byte in itertools.product(range(len(base)), range(256)):
        for cut in (0, 1):
            check_against_oracle(kind, base[:at] + bytes([byte]) + base[at + cut :])


def test_the_table_of_classes_is_the_grammar() -> None:
    for byte, classes in enumerate(byte_classes()):
        visible = 0x21 <= byte <= 0x7E
        expected = (
            (1 if byte in TOKEN else 0)
            | (2 if visible and byte != ord("#") else 0)
            | (4 if visible or byte in b" \t" or byte >= 0x80 else 0)
            | (8 if (chr(byte).isascii() and chr(byte).isalnum()) or byte in b".-_~" else 0)
            | (16 if byte in b"0123456789abcdefABCDEF" else 0)
        )
        assert classes == expected, hex(byte)


def test_skipping_sixteen_at_a_time_finds_the_same_byte() -> None:
    """A byte that ends a value, a target or a name, at every offset in a block and its neighbours."""
    for at, byte in itertools.product(range(40), range(256)):
        text = bytearray(b"a" * 40)
        text[at] = byte
        check_against_oracle("request", b"GET / HTTP/1.1\r\nHost: a\r\nX: " + bytes(text) + b"\r\n\r\n")
        check_against_oracle("request", b"GET / HTTP/1.1\r\nHost: a\r\n" + bytes(text) + b": x\r\n\r\n")
        check_against_oracle("request", b"GET /" + bytes(text) + b" HTTP/1.1\r\nHost: a\r\n\r\n")


KNOWN = (
    b"host connection keep-alive proxy-connection te trailer transfer-encoding content-length upgrade expect"
    b" x-forwarded-for x-forwarded-proto x-forwarded-host forwarded via x-request-id authorization"
    b" proxy-authorization proxy-authenticate traceparent client-cert broker- date set-cookie http2-settings"
    b" x-forwarded-other"
).split()


@pytest.mark.parametrize(("number", "name"), list(enumerate(KNOWN, 1)))
def test_each_known_name_is_found_in_any_case_and_no_neighbour_is(number: int, name: bytes) -> None:
    assert known_field(name) == known_field(name.upper()) == known_field(name.title()) == number
    if name not in (b"broker-", b"x-forwarded-other"):
        neighbours = [name[:-1], name + b"x", b"x" + name, name[:-1] + b"!"]
        neighbours += [name[:at] + b"~" + name[at + 1 :] for at in range(len(name)) if name[at] != ord("-")]
        for neighbour in neighbours:
            assert known_field(neighbour) != number


def test_other_names_that_only_nodes_may_set() -> None:
    certificate = {known_field(b"Client-Cert"), known_field(b"Client-Cert-Chain")}
    assert certificate == {known_field(b"X-Forwarded-Client-Cert")}
    assert known_field(b"X-Real-Ip") == known_field(b"X-Forwarded-Port")
    assert known_field(b"broker-" + b"x" * 500) == known_field(b"Broker-User")
    names = (
        b"Broker_User",
        b"X_Forwarded_For",
        b"X-Forwarded_For",
        b"Client_Cert",
        b"X_Request_Id",
        b"X.Real~IP",
    )
    alike = {known_field(name) for name in names}
    assert alike == {known_field(b"broker_" + b"x" * 500)}
    assert alike.isdisjoint({0, *range(1, 27)})
