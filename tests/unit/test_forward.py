"""What crosses a hop, what stays, what a node adds: heads in, canonical heads out."""

import pytest

from _fastpath.forward import rewrite_reply, rewrite_request, rewrite_response
from _fastpath.http1 import parse_request, parse_response
from _fastpath.ids import new_id
from _fastpath.networks import Networks

ADDED = (
    b"X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: a\r\n"
    b"Forwarded: for=192.0.2.1;host=a;proto=http\r\nVia: 1.1 broker\r\n"
)


def forwarded(head: bytes, **options: bool | bytes | Networks) -> bytes:
    """A request as it crosses a node, for a client at 192.0.2.1."""
    given = {"address": b"192.0.2.1", "scheme": b"http", "via": b"broker"} | options
    result = rewrite_request(head, **given)  # type: ignore[arg-type]
    assert result is not None
    return result


def bare(head: bytes, **options: bool | bytes) -> bytes:
    """A request as it crosses a node that adds nothing."""
    result = rewrite_request(head, **options)  # type: ignore[arg-type]
    assert result is not None
    return result


def post(fields: bytes) -> bytes:
    return b"POST /x HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"


def answer(fields: bytes, start: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return start + b"\r\n" + fields + b"\r\n"


# --- requests ---------------------------------------------------------------------------


def test_order_spelling_and_values_stay() -> None:
    fields = (
        b"hOST: a\r\nAccept:*/*\r\nX-Odd!: a  b\tc\r\nx-odd!: \xff\r\nCookie: c=d\r\ncookie: e\r\nE: \r\n"
    )
    head = b"GET /a/../%41?b HTTP/1.1\r\n" + fields + b"\r\n"
    assert bare(head) == head
    assert forwarded(head) == head[:-2] + ADDED + b"\r\n"


@pytest.mark.parametrize(
    ("sent", "written"),
    [
        (b"X:  a\r\n", b"X: a\r\n"),
        (b"X:\ta\r\n", b"X: a\r\n"),
        (b"X: a \r\n", b"X: a\r\n"),
        (b"X: \t \r\n", b"X: \r\n"),
        (b"X: \r\n", b"X: \r\n"),
        (b"X:\r\n", b"X:\r\n"),
        (b"X:a\t\r\n", b"X: a\r\n"),
        (b"Content-Length:  5\r\n", b"Content-Length: 5\r\n"),
        (b"content-length:5\r\n", b"content-length:5\r\n"),
        (b"transfer-ENCODING:   Chunked\r\n", b"transfer-ENCODING: chunked\r\n"),
    ],
)
def test_only_whitespace_around_values_is_tidied(sent: bytes, written: bytes) -> None:
    assert bare(post(b"A: b\r\n" + sent + b"C: d\r\n")) == post(b"A: b\r\n" + written + b"C: d\r\n")
    assert rewrite_response(answer(b"A: b\r\n" + sent)) in (
        answer(b"A: b\r\n" + written),
        answer(b"A: b\r\n" + written + b"Transfer-Encoding: chunked\r\n"),
    )


@pytest.mark.parametrize(
    "hop",
    [b"Connection: close\r\n", b"Keep-Alive: timeout=5\r\n", b"Proxy-Connection: close\r\n",
     b"TE: trailers\r\n", b"Upgrade: h2c\r\n", b"HTTP2-Settings: AA\r\n", b"Proxy-Authorization: x\r\n",
     b"Proxy-Authenticate: x\r\n",
     b"X-A: 1\r\nConnection: x-a, X-B, close\r\nX-B: 2\r\nx-a: 3\r\n"],
)  # fmt: skip
def test_hop_by_hop_fields_stay_on_their_hop(hop: bytes) -> None:
    assert bare(post(b"A: b\r\n" + hop + b"C: d\r\n")) == post(b"A: b\r\nC: d\r\n")
    assert rewrite_response(answer(b"Content-Length: 5\r\n" + hop + b"C: d\r\n")) == answer(
        b"Content-Length: 5\r\nC: d\r\n"
    )
    assert rewrite_reply(answer(b"Content-Length: 5\r\n" + hop)) == answer(b"Content-Length: 5\r\n")


@pytest.mark.parametrize(
    "field",
    [b"Broker-User: x\r\n", b"broker-: x\r\n", b"Broker_User: x\r\n", b"Client-Cert: x\r\n",
     b"Client-Cert-Chain: x\r\n", b"X-Forwarded-Client-Cert: x\r\n", b"Client_Cert: x\r\n",
     b"X_Forwarded_For: x\r\n", b"X-Forwarded_Proto: x\r\n", b"X_Real_IP: x\r\n",
     b"X_Request_Id: x\r\n", b"x-request_id: x\r\n", b"X.Forwarded.For: x\r\n", b"Broker!User: x\r\n",
     b"X~Request-Id: x\r\n"],
)  # fmt: skip
@pytest.mark.parametrize("trust", [False, True])
def test_what_only_nodes_may_say_never_comes_from_a_client(field: bytes, trust: bool) -> None:
    assert bare(post(b"A: b\r\n" + field + b"C: d\r\n"), trust=trust) == post(b"A: b\r\nC: d\r\n")


SPOOFED = (
    b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n"
    b"X-Forwarded-Port: 1\r\n"
    b"X-Forwarded-For: 7.7.7.7\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6\r\n"
)


def test_a_client_says_not_who_it_is() -> None:
    assert forwarded(post(SPOOFED + b"A: b\r\n")) == post(b"A: b\r\n" + ADDED)
    named = b"Connection: X-Forwarded-For, Forwarded, close\r\n"
    assert forwarded(post(SPOOFED + named)) == post(ADDED)


def test_a_trusted_proxy_is_appended_to() -> None:
    assert forwarded(post(SPOOFED + b"A: b\r\n"), trust=True) == post(
        b"X-Forwarded-For: 6.6.6.6\r\nx-forwarded-proto: https\r\nX-Forwarded-Host: evil\r\n"
        b"X-Forwarded-Port: 1\r\n"
        b"X-Forwarded-For: 7.7.7.7, 192.0.2.1\r\n"
        b"Forwarded: for=6.6.6.6, for=192.0.2.1;host=a;proto=http\r\nX-Real-IP: 6.6.6.6\r\nA: b\r\n"
        b"Via: 1.1 broker\r\n"
    )
    assert forwarded(post(b""), trust=True) == post(ADDED)
    assert forwarded(post(b"X-Forwarded-For:\r\n"), trust=True).startswith(
        post(b"X-Forwarded-For: 192.0.2.1\r\n")[:-2]
    )


# --- trusted proxies -----------------------------------------------------------------------

PROXIES = Networks(["192.0.2.0/24", "10.0.0.0/8", "2001:db8::/32"])


def through(fields: bytes) -> dict[bytes, bytes]:
    """The fields that say whose a request is, as they cross a node that trusts the proxy it came from."""
    head = forwarded(post(fields), proxies=PROXIES)
    lines = [line.partition(b": ") for line in head.split(b"\r\n")[1:-2]]
    names = [name.lower() for name, _, _ in lines]
    found: dict[bytes, bytes] = {}
    for name, (_, _, value) in zip(names, lines, strict=True):
        found[name] = found[name] + b" | " + value if name in found else value
    return found


@pytest.mark.parametrize(
    ("sent", "chain", "client"),
    [
        ([], b"192.0.2.1", b""),
        ([b"203.0.113.9"], b"203.0.113.9, 192.0.2.1", b"203.0.113.9"),
        ([b"203.0.113.9:4711"], b"203.0.113.9:4711, 192.0.2.1", b"203.0.113.9"),
        ([b"6.6.6.6, 203.0.113.9"], b"203.0.113.9, 192.0.2.1", b"203.0.113.9"),
        ([b"6.6.6.6 ,\t203.0.113.9 , 10.0.0.2"], b"203.0.113.9 , 10.0.0.2, 192.0.2.1", b"203.0.113.9"),
        ([b"6.6.6.6", b"203.0.113.9"], b"203.0.113.9, 192.0.2.1", b"203.0.113.9"),
        ([b"6.6.6.6, 203.0.113.9", b"10.0.0.2"], b"203.0.113.9 | 10.0.0.2, 192.0.2.1", b"203.0.113.9"),
        ([b"10.0.0.3, 10.0.0.2"], b"10.0.0.3, 10.0.0.2, 192.0.2.1", b"10.0.0.3"),
        ([b"6.6.6.6, unknown"], b"192.0.2.1", b""),
        ([b"6.6.6.6, unknown, 10.0.0.2"], b"10.0.0.2, 192.0.2.1", b"10.0.0.2"),
        ([b"6.6.6.6, "], b"192.0.2.1", b""),
        ([b"203.0.113.9,,10.0.0.2"], b"10.0.0.2, 192.0.2.1", b"10.0.0.2"),
        ([b""], b"192.0.2.1", b""),
        ([b"2001:4860::1"], b"2001:4860::1, 192.0.2.1", b'"[2001:4860::1]"'),
        (
            [b"[2001:4860::1]:80, 2001:db8::2"],
            b"[2001:4860::1]:80, 2001:db8::2, 192.0.2.1",
            b'"[2001:4860::1]"',
        ),
        ([b"::ffff:203.0.113.9"], b"::ffff:203.0.113.9, 192.0.2.1", b"203.0.113.9"),
        (
            [b"6.6.6.6, " + b", ".join([b"10.0.0.2"] * 40)],
            b", ".join([b"10.0.0.2"] * 32) + b", 192.0.2.1",
            b"10.0.0.2",
        ),
    ],
)
def test_the_client_is_the_last_address_that_is_no_proxy(
    sent: list[bytes], chain: bytes, client: bytes
) -> None:
    found = through(b"".join(b"X-Forwarded-For: " + each + b"\r\n" for each in sent))
    assert found[b"x-forwarded-for"] == chain
    first = b"for=" + client + b", " if client else b""
    assert found[b"forwarded"] == first + b"for=192.0.2.1;host=a;proto=http"


@pytest.mark.parametrize(
    ("sent", "kept", "client"),
    [
        (b"for=203.0.113.9", b"for=203.0.113.9", b"203.0.113.9"),
        (
            b"For=203.0.113.9;proto=https;by=10.0.0.1",
            b"For=203.0.113.9;proto=https;by=10.0.0.1",
            b"203.0.113.9",
        ),
        (b"for=6.6.6.6, proto=http; for=203.0.113.9", b"proto=http; for=203.0.113.9", b"203.0.113.9"),
        (b'for=6.6.6.6,for="203.0.113.9:80"', b'for="203.0.113.9:80"', b"203.0.113.9"),
        (b'for="[2001:4860::1]:80", for=10.0.0.2', b'for="[2001:4860::1]:80", for=10.0.0.2', b"2001:4860::1"),
        (b'host="a,for=6.6.6.6";for=203.0.113.9', b'host="a,for=6.6.6.6";for=203.0.113.9', b"203.0.113.9"),
        (b'for=203.0.113.9, host="a\\",for=6.6.6.6"', b"", b""),
        (b'host="a, for=6.6.6.6', b"", b""),
        (b'for=6.6.6.6, host="a\\', b"", b""),
        (b"for=203.0.113.9;for=6.6.6.6", b"", b""),
        (b"for=6.6.6.6, for=unknown", b"", b""),
        (b"for=_hidden", b"", b""),
        (b"by=10.0.0.1", b"", b""),
    ],
)
def test_forwarded_counts_where_there_is_no_x_forwarded_for(sent: bytes, kept: bytes, client: bytes) -> None:
    found = through(b"Forwarded: " + sent + b"\r\n")
    begun = kept + b", " if kept else b""
    assert found[b"forwarded"] == begun + b"for=192.0.2.1;host=a;proto=http"
    assert found[b"x-forwarded-for"] == (client + b", " if client else b"") + b"192.0.2.1"
    both = through(b"Forwarded: " + sent + b"\r\nX-Forwarded-For: 203.0.113.1\r\n")
    assert both[b"forwarded"] == b"for=203.0.113.1, for=192.0.2.1;host=a;proto=http"
    assert both[b"x-forwarded-for"] == b"203.0.113.1, 192.0.2.1"


def test_what_else_a_trusted_proxy_says() -> None:
    assert through(b"X-Forwarded-Proto: HTTPS\r\n")[b"x-forwarded-proto"] == b"HTTPS"
    for odd in (
        b"X-Forwarded-Proto: ftp\r\n",
        b"X-Forwarded-Proto: https, http\r\n",
        b"X-Forwarded-Proto: https\r\n" * 2,
    ):
        assert through(odd)[b"x-forwarded-proto"] == b"http"
    assert through(b"X-Forwarded-Host: b\r\n")[b"x-forwarded-host"] == b"b"
    assert b"broker-user" not in through(b"Broker-User: root\r\nX_Forwarded_For: 1.1.1.1\r\n")


# --- request ids ---------------------------------------------------------------------------

MADE = b"0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([], None),
        ([b"a"], b"a"),
        ([b"Az09-._~:/+=@"], b"Az09-._~:/+=@"),
        ([b"x" * 128], b"x" * 128),
        ([b"x" * 129], None),
        ([b""], None),
        ([b"a b"], None),
        ([b'a"b'], None),
        ([b"a\tb"], None),
        ([b"\xe4"], None),
        ([b"a,b"], None),
        ([b"a", b"a"], None),
    ],
)
def test_a_request_id_is_kept_or_made(sent: list[bytes], kept: bytes | None) -> None:
    fields = b"".join(b"x-request-id: " + each + b"\r\n" for each in sent)
    head = bare(post(b"A: b\r\n" + fields + b"C: d\r\n"), new_id=MADE)
    if kept is not None:
        assert head == post(b"A: b\r\n" + fields + b"C: d\r\n")
    else:
        assert head == post(b"A: b\r\nC: d\r\nX-Request-Id: " + MADE + b"\r\n")


def test_ids_are_random() -> None:
    made = {new_id() for _ in range(2000)}
    assert len(made) == 2000
    assert all(len(each) == 32 and int(each, 16) >= 0 for each in made)


@pytest.mark.parametrize(
    ("address", "host", "expected"),
    [
        (b"192.0.2.1", b"a", b"for=192.0.2.1;host=a;proto=https"),
        (b"192.0.2.1", b"a.b:81", b'for=192.0.2.1;host="a.b:81";proto=https'),
        (b"2001:db8::1", b"a", b'for="[2001:db8::1]";host=a;proto=https'),
        (b"::1", b"[::1]", b'for="[::1]";host="[::1]";proto=https'),
        (b"", b"a", b"for=unknown;host=a;proto=https"),
    ],
)
def test_forwarded_is_quoted_where_rfc_7239_wants_it(address: bytes, host: bytes, expected: bytes) -> None:
    head = bare(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", address=address, scheme=b"https")
    assert b"\r\nForwarded: " + expected + b"\r\n" in head
    assert (b"X-Forwarded-For: " in head) == bool(address)


def test_via_is_appended_to_the_last() -> None:
    assert bare(post(b"Via: 1.0 x\r\nA: b\r\nvia: 1.1 y\r\nC: d\r\n"), via=b"broker") == post(
        b"Via: 1.0 x\r\nA: b\r\nvia: 1.1 y, 1.1 broker\r\nC: d\r\n"
    )
    assert bare(post(b"Via:\r\n"), via=b"broker") == post(b"Via: 1.1 broker\r\n")
    assert bare(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n", via=b"broker").endswith(b"Via: 1.0 broker\r\n\r\n")


def test_what_the_node_adds_comes_last() -> None:
    extra = b"X-Request-Id: 1\r\nBroker-User: u\r\n"
    assert bare(post(b"A: b\r\n"), extra=extra) == post(b"A: b\r\n" + extra)
    assert bare(post(b"X-Request-Id: mine\r\n")) == post(b"X-Request-Id: mine\r\n")


@pytest.mark.parametrize(
    ("line", "written"),
    [
        (b"GET http://a HTTP/1.1", b"GET / HTTP/1.1"),
        (b"GET http://A:80/b?c HTTP/1.1", b"GET /b?c HTTP/1.1"),
        (b"GET http://a?c HTTP/1.1", b"GET /?c HTTP/1.1"),
        (b"GET https://a//b HTTP/1.1", b"GET //b HTTP/1.1"),
        (b"OPTIONS http://a HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        (b"OPTIONS http://a/ HTTP/1.1", b"OPTIONS / HTTP/1.1"),
        (b"OPTIONS http://a?b HTTP/1.1", b"OPTIONS /?b HTTP/1.1"),
        (b"OPTIONS * HTTP/1.1", b"OPTIONS * HTTP/1.1"),
        (b"\r\nGET / HTTP/1.1", b"GET / HTTP/1.1"),
        (b"GET / HTTP/1.0", b"GET / HTTP/1.1"),
        (b"\r\nGET /?x HTTP/1.0", b"GET /?x HTTP/1.1"),
    ],
)
def test_request_lines_become_origin_form_and_http_1_1(line: bytes, written: bytes) -> None:
    rest = b"\r\nHost: a\r\nA: b\r\n\r\n"
    assert bare(line + rest) == written + rest


def test_http_1_0_without_host() -> None:
    assert bare(b"GET /a HTTP/1.0\r\nA: b\r\n\r\n") == b"GET /a HTTP/1.0\r\nA: b\r\n\r\n"
    assert bare(b"GET /a HTTP/1.0\r\n\r\n") == b"GET /a HTTP/1.0\r\n\r\n"
    assert (
        bare(b"GET http://b:81/a HTTP/1.0\r\nA: b\r\n\r\n")
        == b"GET /a HTTP/1.1\r\nHost: b:81\r\nA: b\r\n\r\n"
    )
    assert b"X-Forwarded-Host" not in forwarded(b"GET /a HTTP/1.0\r\n\r\n")
    assert b"Forwarded: for=192.0.2.1;proto=http\r\n" in forwarded(b"GET /a HTTP/1.0\r\n\r\n")


def test_an_expectation_crosses_from_http_1_1_only() -> None:
    expect = b"Expect: 100-continue\r\nContent-Length: 5\r\n"
    assert bare(post(expect)) == post(expect)
    assert b"Expect" not in bare(post(expect).replace(b"1.1", b"1.0"))


def test_an_upgrade_crosses_where_it_is_allowed() -> None:
    fields = b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n"
    kept = b"Upgrade: websocket\r\nSec-WebSocket-Key: x\r\nConnection: Upgrade\r\n"
    assert bare(post(fields), upgrade=True) == post(kept)
    assert bare(post(fields)) == post(b"Sec-WebSocket-Key: x\r\n")
    assert bare(post(b"Upgrade: websocket\r\n"), upgrade=True) == post(b"")
    again = parse_request(bare(post(fields), upgrade=True), 65536, 100)
    assert again is not None
    assert again.upgrade


CHUNKED = b"Transfer-Encoding: chunked\r\n"
LENGTH = answer(b"Content-Length: 5\r\n")


def started(line: bytes, head: bytes) -> bytes:
    """The head with another status line."""
    return b"HTTP/" + line + head[head.index(b"\r\n") :]


# --- responses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "sent", "written"),
    [
        (b"GET", LENGTH, LENGTH),
        (b"GET", answer(b"Content-Length: 0\r\n"), answer(b"Content-Length: 0\r\n")),
        (b"GET", answer(b"transfer-encoding:CHUNKED\r\n"), answer(b"transfer-encoding: chunked\r\n")),
        (b"GET", answer(b"A: b\r\n"), answer(b"A: b\r\nTransfer-Encoding: chunked\r\n")),
        (b"HEAD", LENGTH, LENGTH),
        (b"HEAD", answer(b"Transfer-Encoding: chunked\r\n"), answer(b"")),
        (b"HEAD", answer(b""), answer(b"")),
        (b"GET", started(b"1.1 304 x", LENGTH), started(b"1.1 304 x", LENGTH)),
        (b"GET", answer(CHUNKED, b"HTTP/1.1 304 x"), answer(b"", b"HTTP/1.1 304 x")),
        (b"GET", answer(b"Content-Length: 0\r\n", b"HTTP/1.1 204 x"), answer(b"", b"HTTP/1.1 204 x")),
        (b"GET", answer(b"Link: x\r\n", b"HTTP/1.1 103 x"), answer(b"Link: x\r\n", b"HTTP/1.1 103 x")),
        (b"GET", started(b"1.0 200 x", LENGTH), started(b"1.1 200 x", LENGTH)),
        (b"GET", started(b"1.1 200", LENGTH), started(b"1.1 200 ", LENGTH)),
        (b"GET", started(b"1.1 200 ", LENGTH), started(b"1.1 200 ", LENGTH)),
        (b"GET", started(b"1.0 299", LENGTH), started(b"1.1 299 ", LENGTH)),
    ],
)  # fmt: skip
def test_responses_are_framed_once(method: bytes, sent: bytes, written: bytes) -> None:
    assert rewrite_response(sent, method=method) == written


def test_an_upstream_does_not_speak_as_a_node() -> None:
    fields = b"Content-Length: 0\r\nBroker-Error: x\r\nBroker_Error: y\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
    assert rewrite_response(answer(fields)) == answer(
        b"Content-Length: 0\r\nSet-Cookie: a\r\nset-cookie: b\r\n"
    )


def test_fields_of_requests_mean_nothing_in_responses() -> None:
    fields = (
        b"Content-Length: 0\r\nX-Forwarded-For: a\r\nHost: b\r\nExpect: c\r\nClient-Cert: d\r\nVia: 1.1 x\r\n"
    )
    assert rewrite_response(answer(fields)) == answer(fields)


SWITCH = b"HTTP/1.1 101 Switching Protocols"


def test_switching_protocols_keeps_its_upgrade() -> None:
    canonical = answer(b"Upgrade: websocket\r\nA: b\r\nConnection: Upgrade\r\n", SWITCH)
    assert (
        rewrite_response(answer(b"Connection: x, upgrade\r\nUpgrade: websocket\r\nA: b\r\n", SWITCH))
        == canonical
    )
    assert rewrite_response(canonical) == canonical
    assert rewrite_reply(canonical, upgrade=True) == canonical
    assert parse_response(canonical, 65536, 100) is not None


# --- replies ----------------------------------------------------------------------------------


def test_a_reply_to_http_1_1() -> None:
    head = answer(b"Content-Length: 5\r\nVia: 1.1 x\r\n")
    assert rewrite_reply(head) == head
    assert rewrite_reply(head, via=b"broker") == answer(b"Content-Length: 5\r\nVia: 1.1 x, 1.1 broker\r\n")
    assert rewrite_reply(answer(b"Content-Length: 5\r\n"), via=b"broker", close=True) == answer(
        b"Content-Length: 5\r\nVia: 1.1 broker\r\nConnection: close\r\n"
    )
    chunked = answer(b"Trailer: X\r\nTransfer-Encoding: chunked\r\nA: b\r\n")
    assert rewrite_reply(chunked) == chunked


def test_what_only_nodes_may_say_is_not_taken_from_a_tunnel() -> None:
    """A client believes Broker-Error and Broker-Delivery: its own node writes them."""
    forged = b"Broker-Error: no-agent\r\nbroker-delivery: never-sent\r\nBroker_Error: x\r\nBROKER-X: y\r\n"
    for minor in (0, 1):
        assert rewrite_reply(answer(forged + b"Content-Length: 0\r\n"), minor=minor) == answer(
            b"Content-Length: 0\r\n"
        )


def test_a_reply_to_http_1_0() -> None:
    chunked = answer(b"Trailer: X\r\nTransfer-Encoding: chunked\r\nA: b\r\n")
    closing = answer(b"A: b\r\nConnection: close\r\n")
    assert rewrite_reply(chunked, minor=0) == closing
    assert rewrite_reply(chunked, minor=0, keep_alive_10=True) == closing
    length = answer(b"Content-Length: 5\r\n")
    assert rewrite_reply(length, minor=0) == length
    assert rewrite_reply(length, minor=0, keep_alive_10=True) == answer(
        b"Content-Length: 5\r\nConnection: keep-alive\r\n"
    )
    assert rewrite_reply(length, minor=0, close=True, keep_alive_10=True) == answer(
        b"Content-Length: 5\r\nConnection: close\r\n"
    )


def test_an_interim_reply_says_nothing_of_the_connection() -> None:
    hints = answer(b"Link: x\r\n", b"HTTP/1.1 103 Early Hints")
    assert rewrite_reply(hints, close=True) == hints


def test_a_reply_without_any_length_ends_with_the_connection() -> None:
    assert rewrite_reply(answer(b"A: b\r\n")) == answer(b"A: b\r\nConnection: close\r\n")


# --- room -----------------------------------------------------------------------------------------


def test_too_little_room_is_told_for_every_size() -> None:
    head = post(b"X:  a\r\nTransfer-Encoding: chunked\r\nVia: 1.1 x\r\n")
    whole = forwarded(head)
    for capacity in range(len(whole)):
        assert rewrite_request(
            head, address=b"192.0.2.1", scheme=b"http", via=b"broker", capacity=capacity
        ) is None  # fmt: skip
    assert rewrite_request(
        head, address=b"192.0.2.1", scheme=b"http", via=b"broker", capacity=len(whole)
    ) == whole  # fmt: skip
    reply = answer(b"A:  b\r\n", b"HTTP/1.0 200 OK")
    size = len(rewrite_response(reply) or b"")
    assert [rewrite_response(reply, capacity=capacity) for capacity in range(size)] == [None] * size
    size = len(rewrite_reply(reply, via=b"x") or b"")
    assert [rewrite_reply(reply, via=b"x", capacity=capacity) for capacity in range(size)] == [None] * size
