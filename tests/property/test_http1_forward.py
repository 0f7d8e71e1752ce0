"""Canonical heads of all that the scanner accepts: they scan again, to the same and with nothing lost."""

import h11
from hypothesis import assume, given
from hypothesis import strategies as st

from _fastpath.forward import rewrite_reply, rewrite_request, rewrite_response
from _fastpath.http1 import HeadError, HeadScanner, ParsedHead, known_field
from tests.http1_strategies import damaged, requests, responses

FORWARDED = {known_field(name) for name in (b"X-Forwarded-For", b"X-Forwarded-Proto", b"X-Forwarded-Host",
                                            b"X-Forwarded-Port", b"Forwarded")}  # fmt: skip
FROM_NODES = {known_field(name) for name in (b"Broker-A", b"Client-Cert", b"Broker_A")}
TRANSFER_ENCODING = known_field(b"Transfer-Encoding")
CONTENT_LENGTH = known_field(b"Content-Length")
ADDRESSES = st.sampled_from([b"", b"192.0.2.1", b"2001:db8::1"])


def scan(kind: str, data: bytes, method: bytes = b"GET") -> ParsedHead:
    """The head; the example is dropped where it is not legal."""
    try:
        head = HeadScanner("request" if kind == "request" else "response", method=method).scan(data)
    except HeadError:
        head = None
    assume(head)
    assert head is not None
    return head


def canonical(kind: str, data: bytes | None, method: bytes = b"GET") -> ParsedHead:
    """The head that a node wrote: whole, legal, and with no byte too many."""
    assert data is not None
    scanner = HeadScanner("request" if kind == "request" else "response", head_limit=2**20, method=method)
    head = scanner.scan(data)
    assert head is not None
    assert head.size == len(data)
    return head


def crossing(head: ParsedHead, drop: set[int]) -> list[tuple[bytes, bytes]]:
    rows = zip(head.headers, head.hop, head.known, strict=True)
    return [pair for pair, hop, known in rows if not hop and known not in drop]


@given(
    damaged(requests()),
    ADDRESSES,
    st.sampled_from([b"", b"http", b"https"]),
    st.sampled_from([b"", b"broker"]),
)
def test_a_request_crosses_whole_and_only_once(
    data: bytes, address: bytes, scheme: bytes, via: bytes
) -> None:
    head = scan("request", data)
    first = rewrite_request(data, address=address, scheme=scheme, via=via)
    again = canonical("request", first)
    assert (again.method, again.framing, again.content_length) == (
        head.method,
        head.framing,
        head.content_length,
    )
    assert again.target.startswith((b"/", b"*"))
    assert again.target.endswith(head.path_and_query)
    assert again.host == head.host or (again.host.lower(), head.absolute_form) == (again.host.lower(), True)
    # Every field that may cross does, in its order and spelling; Via and Expect have rules of their own.
    special = {known_field(b"Via"), known_field(b"Expect"), known_field(b"Host"), CONTENT_LENGTH}
    mine = FORWARDED | FROM_NODES | special
    assert crossing(again, mine) == crossing(head, mine)
    # No field stays that says who asks, but ours.
    for known, name in (
        (known_field(b"X-Forwarded-For"), address),
        (known_field(b"X-Forwarded-Proto"), scheme),
    ):
        values = [value for (_, value), kind in zip(again.headers, again.known, strict=True) if kind == known]
        assert values == ([name] if name else [])
    assert not FROM_NODES & set(again.known)
    # Nothing is left for the next hop to take away, and a second node that adds nothing changes nothing.
    assert [known for hop, known in zip(again.hop, again.known, strict=True) if hop] == (
        [TRANSFER_ENCODING] if head.framing == "chunked" else []
    )
    assert first is not None
    assert rewrite_request(first, trust=True) == first


@given(damaged(requests()))
def test_h11_accepts_canonical_requests(data: bytes) -> None:
    scan("request", data)
    written = rewrite_request(
        data, address=b"::1", scheme=b"http", via=b"broker", extra=b"Broker-User: x\r\n"
    )
    head = canonical("request", written)
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=2**20)
    assert written is not None
    connection.receive_data(written)
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    assert (event.method, event.target) == (head.method, head.target)
    assert [(name.lower(), value) for name, value in head.headers] == list(event.headers)


@given(damaged(requests()), ADDRESSES)
def test_a_trusted_proxys_fields_are_kept_in_front(data: bytes, address: bytes) -> None:
    head = scan("request", data)
    again = canonical("request", rewrite_request(data, address=address, trust=True))
    for name in (b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"x-real-ip"):
        before = [value for key, value in head.headers if key.lower() == name]
        after = [value for key, value in again.headers if key.lower() == name]
        assert len(after) >= len(before)
        assert all(new.startswith(old) for old, new in zip(before, after, strict=False))
        assert after[: len(before) - 1] == before[:-1]


@given(damaged(responses()), st.sampled_from([b"GET", b"HEAD"]))
def test_a_response_crosses_whole(data: bytes, method: bytes) -> None:
    head = scan("response", data, method)
    first = rewrite_response(data, method=method)
    again = canonical("response", first, method)
    assert (again.status, again.phrase) == (head.status, head.phrase)
    assert again.framing == {"close": "chunked"}.get(head.framing, head.framing)
    assert again.content_length == (None if head.status == 204 else head.content_length)
    drop = {*FROM_NODES, CONTENT_LENGTH} - {known_field(b"Client-Cert")}
    assert crossing(again, drop) == crossing(head, drop)
    assert first is not None
    assert rewrite_response(first, method=method) == first


@given(
    damaged(responses()), st.sampled_from([b"GET", b"HEAD"]), st.integers(0, 1), st.booleans(), st.booleans()
)
def test_a_client_reads_in_a_reply_what_it_was_told(
    data: bytes, method: bytes, minor: int, close: bool, keep_alive: bool
) -> None:
    scan("response", data, method)
    head = canonical("response", rewrite_response(data, method=method), method)
    reply = rewrite_reply(
        rewrite_response(data, method=method) or b"", method=method, minor=minor, close=close,
        keep_alive_10=keep_alive, upgrade=head.status == 101, via=b"broker",
    )  # fmt: skip
    again = canonical("response", reply, method)
    until_close = minor == 0 and head.framing == "chunked"
    assert again.framing == ("close" if until_close else head.framing)
    if head.status >= 200:
        assert again.keep_alive == (not close and not until_close)
    via = known_field(b"Via")
    trailer = {known_field(b"Trailer")} if minor == 0 else set()
    assert crossing(again, {via}) == crossing(head, {via} | trailer)
    assert [value for key, value in again.headers if key.lower() == b"via"][-1].endswith(b"1.1 broker")
