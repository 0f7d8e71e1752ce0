"""What the scanner says of heads that it accepts, and of limits."""

import pytest

from _fastpath.http1 import HeadError, HeadScanner, ParsedHead, parse_request, parse_response


def request(data: bytes, **limits: int) -> ParsedHead:
    head = HeadScanner("request", **limits).scan(data)
    assert head is not None
    return head


def fields(data: bytes, *, version: bytes = b"1.1") -> ParsedHead:
    return request(b"POST /x HTTP/" + version + b"\r\nHost: a\r\n" + data + b"\r\n")


def response(data: bytes, method: bytes = b"GET") -> ParsedHead:
    head = parse_response(data, 65536, 100, method)
    assert head is not None
    return head


def status_of(data: bytes, **limits: int) -> int:
    with pytest.raises(HeadError) as caught:
        HeadScanner("request", **limits).scan(data)
    return caught.value.status


def test_a_request_in_origin_form() -> None:
    data = b"GET /a/b?c=d HTTP/1.1\r\nHost: example.com:8080\r\nAccept:  */* \t\r\nX-Empty:\r\n\r\n"
    head = request(data + b"rest")
    assert (head.method, head.target, head.path) == (b"GET", b"/a/b?c=d", b"/a/b")
    assert (head.path_and_query, head.host, head.minor) == (b"/a/b?c=d", b"example.com:8080", 1)
    assert head.headers == [(b"Host", b"example.com:8080"), (b"Accept", b"*/*"), (b"X-Empty", b"")]
    assert head.size == len(data)
    assert (head.framing, head.keep_alive, head.idempotent) == ("none", True, True)


def test_an_incomplete_head_needs_more() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    for size in range(len(data)):
        assert parse_request(data[:size], 65536, 100) is None
    assert parse_request(data, 65536, 100) is not None


@pytest.mark.parametrize(
    ("target", "path", "path_and_query", "host"),
    [
        (b"/", b"/", b"/", b"a"),
        (b"/?", b"/", b"/?", b"a"),
        (b"/a?b?c", b"/a", b"/a?b?c", b"a"),
        (b"http://a", b"/", b"", b"a"),
        (b"http://A:80", b"/", b"", b"A:80"),
        (b"http://a/", b"/", b"/", b"a"),
        (b"http://a?q/r", b"/", b"?q/r", b"a"),
        (b"http://a/b/../c?d", b"/b/../c", b"/b/../c?d", b"a"),
        (b"https://a:443/b", b"/b", b"/b", b"a:443"),
    ],
)
def test_target_forms(target: bytes, path: bytes, path_and_query: bytes, host: bytes) -> None:
    head = request(b"GET " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.path, head.path_and_query, head.host) == (path, path_and_query, host)
    assert head.absolute_form == target.startswith(b"http")


def test_the_asterisk_form() -> None:
    head = request(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.path, head.path_and_query, head.host) == (b"*", b"", b"a")


def test_http_1_0_needs_no_host_but_may_have_one() -> None:
    assert request(b"GET / HTTP/1.0\r\n\r\n").host == b""
    assert request(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").host == b"a"
    assert request(b"GET http://b/ HTTP/1.0\r\n\r\n").host == b"b"


@pytest.mark.parametrize(
    ("version", "connection", "keeps"),
    [
        (b"1.1", b"", True),
        (b"1.1", b"Connection: close\r\n", False),
        (b"1.1", b"Connection: CLOSE\r\n", False),
        (b"1.1", b"Connection: keep-alive\r\n", True),
        (b"1.1", b"Connection: x, Close ,y\r\n", False),
        (b"1.1", b"Connection: x\r\nConnection: close\r\n", False),
        (b"1.1", b"Connection: closed\r\n", True),
        (b"1.0", b"", False),
        (b"1.0", b"Connection: Keep-Alive\r\n", True),
        (b"1.0", b"Connection: keep-alive, close\r\n", False),
        (b"1.0", b"Proxy-Connection: keep-alive\r\n", False),
    ],
)
def test_keep_alive(version: bytes, connection: bytes, keeps: bool) -> None:
    assert fields(connection, version=version).keep_alive is keeps


def test_the_framing_of_a_request() -> None:
    assert fields(b"").framing == "none"
    zero = fields(b"Content-Length: 0\r\n")
    assert (zero.framing, zero.content_length) == ("none", 0)
    large = fields(b"Content-Length: 9223372036854775807\r\n")
    assert (large.framing, large.content_length) == ("length", 2**63 - 1)
    chunked = fields(b"Transfer-Encoding: CHUNKED\r\n")
    assert (chunked.framing, chunked.content_length) == ("chunked", None)


@pytest.mark.parametrize(
    ("method", "status", "framed", "expected", "length"),
    [
        (b"GET", b"200", b"", "close", None),
        (b"GET", b"200", b"Content-Length: 5\r\n", "length", 5),
        (b"GET", b"200", b"Content-Length: 0\r\n", "none", 0),
        (b"GET", b"200", b"Transfer-Encoding: chunked\r\n", "chunked", None),
        (b"HEAD", b"200", b"", "none", None),
        (b"HEAD", b"200", b"Content-Length: 5\r\n", "none", 5),
        (b"HEAD", b"200", b"Transfer-Encoding: chunked\r\n", "none", None),
        (b"GET", b"204", b"", "none", None),
        (b"GET", b"205", b"", "close", None),
        (b"GET", b"304", b"Content-Length: 5\r\n", "none", 5),
        (b"GET", b"100", b"", "none", None),
        (b"CONNECT", b"200", b"", "none", None),
        (b"CONNECT", b"400", b"Content-Length: 5\r\n", "length", 5),
    ],
)
def test_the_framing_of_a_response(
    method: bytes, status: bytes, framed: bytes, expected: str, length: int | None
) -> None:
    head = response(b"HTTP/1.1 " + status + b" x\r\n" + framed + b"\r\n", method)
    assert (head.framing, head.content_length) == (expected, length)
    assert head.keep_alive == (expected != "close")


def test_an_upgrade_needs_both_fields_http_1_1_and_no_body() -> None:
    upgrade = b"Upgrade: websocket\r\n"
    assert fields(upgrade + b"Connection: Upgrade\r\n").upgrade
    assert fields(upgrade + b"Connection: keep-alive\r\nConnection: x,UPGRADE\r\n").upgrade
    assert not fields(upgrade).upgrade
    assert not fields(b"Connection: Upgrade\r\n").upgrade
    assert not fields(upgrade + b"Connection: Upgrade\r\n", version=b"1.0").upgrade
    assert not fields(upgrade + b"Connection: Upgrade\r\nContent-Length: 5\r\n").upgrade
    assert fields(upgrade + b"Connection: Upgrade\r\nContent-Length: 0\r\n").upgrade
    assert response(b"HTTP/1.1 101 x\r\n" + upgrade + b"Connection: Upgrade\r\n\r\n").upgrade


def test_an_expectation_counts_in_http_1_1_only() -> None:
    assert fields(b"Expect: 100-Continue\r\n").expect_continue
    assert not fields(b"Expect: 100-continue\r\n", version=b"1.0").expect_continue
    assert not fields(b"Expect: 200-ok\r\n").expect_continue


def test_hop_by_hop_by_name_and_by_connection() -> None:
    head = fields(
        b"Connection: X-A, close, x-a, X-None\r\nX-A: 1\r\nx-a: 2\r\nX-AB: 3\r\nKeep-Alive: 4\r\nTE: x\r\n"
        b"Trailer: X\r\nProxy-Connection: 5\r\nHTTP2-Settings: 6\r\nProxy-Authorization: 7\r\nUpgrade: 8\r\n"
    )
    stay = [name for (name, _), hop in zip(head.headers, head.hop, strict=True) if not hop]
    assert stay == [b"Host", b"X-AB", b"Trailer"]


@pytest.mark.parametrize(
    "name",
    [b"Host", b"Content-Length", b"X-Forwarded-For", b"X-Real-IP", b"Forwarded", b"Via", b"Authorization",
     b"Cookie", b"Cache-Control", b"Content-Type", b"Broker-User", b"Client-Cert",
     b"X-Request-Id", b"Expect", b"Date"],
)  # fmt: skip
def test_nobody_strips_these_by_naming_them(name: bytes) -> None:
    more = b"" if name in (b"Host", b"Content-Length") else name + b": 1\r\n"
    head = fields(b"Content-Length: 5\r\nConnection: close, " + name.lower() + b"\r\n" + more)
    assert [hop for (key, _), hop in zip(head.headers, head.hop, strict=True) if key == name] == [False]


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"])
def test_idempotent_methods(method: bytes) -> None:
    assert request(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n").idempotent
    assert not request(method.lower() + b" / HTTP/1.1\r\nHost: a\r\n\r\n").idempotent


@pytest.mark.parametrize("method", [b"POST", b"PATCH", b"LOCK", b"PUTS", b"GE"])
def test_other_methods_are_not_idempotent(method: bytes) -> None:
    assert not request(method + b" / HTTP/1.1\r\nHost: a\r\n\r\n").idempotent


def test_the_limit_on_the_head_is_exact() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert request(data + b"body", head_limit=len(data)).size == len(data)
    assert status_of(data, head_limit=len(data) - 1) == 431
    scanner = HeadScanner("request", head_limit=len(data) - 1)
    assert scanner.scan(data[:-2]) is None
    with pytest.raises(HeadError):
        scanner.scan(data[:-1])


def test_the_limit_on_fields_is_exact() -> None:
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 9 + b"\r\n"
    assert len(request(data, header_limit=10).headers) == 10
    assert status_of(data, header_limit=9) == 431


def test_the_limit_on_the_target_is_exact() -> None:
    data = b"GET /2345 HTTP/1.1\r\nHost: a\r\n\r\n"
    assert request(data, uri_limit=5).path == b"/2345"
    assert status_of(data, uri_limit=4) == 414
    assert status_of(b"GET /2345", uri_limit=4) == 414
    assert parse_request(b"GET /234", 65536, 100) is None


def test_the_largest_head_that_can_be_configured_comes_byte_by_byte() -> None:
    start = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 998
    data = start + b"Z: " + b"z" * (2**20 - len(start) - 7) + b"\r\n\r\n"
    assert len(data) == 2**20
    scanner = HeadScanner("request", head_limit=2**20, header_limit=1000)
    view = bytearray()
    for at in range(0, len(data), 5003):
        view += data[at : at + 5003]
        head = scanner.scan(bytes(view))
        assert (head is None) == (len(view) < len(data))
    for size in range(len(data) - 10, len(data)):
        assert HeadScanner("request", head_limit=2**20, header_limit=1000).scan(data[:size]) is None


def test_byte_by_byte_is_linear() -> None:
    """The work for the last of many prefixes is that of its new bytes: counted in bytes, not in time."""
    data = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: " + b"x" * 50000
    scanner = HeadScanner("request", head_limit=2**20)
    assert scanner.scan(data) is None
    # What was lexed is not looked at again: damage in it goes unnoticed until the head is complete.
    damaged = data.replace(b"xx", b"\x00x", 1)
    assert scanner.scan(damaged + b"y") is None
    with pytest.raises(HeadError):
        scanner.scan(damaged + b"y\r\n\r\n")


def test_the_phrase_of_a_response() -> None:
    assert response(b"HTTP/1.1 200 Not so OK \r\n\r\n").phrase == b"Not so OK "
    assert response(b"HTTP/1.1 200 \r\n\r\n").phrase == b""
    assert response(b"HTTP/1.1 200\r\n\r\n").phrase == b""


def test_an_error_tells_code_status_and_reason() -> None:
    with pytest.raises(HeadError) as caught:
        parse_request(b"GET / HTTP/3.0\r\n", 65536, 100)
    assert (caught.value.code, caught.value.status) == (-4, 505)
    assert caught.value.reason == str(caught.value) == "this HTTP version is not supported"
