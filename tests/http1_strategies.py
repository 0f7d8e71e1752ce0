"""Heads for property tests: mostly legal, with what parsers have been tricked with, and some damage."""

from hypothesis import strategies as st

METHODS = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"get",
    b"X-Y", b"",
]  # fmt: skip
TARGETS = [
    b"/", b"/a/b?c=d", b"*", b"//a", b"/..", b"/%2e?", b"http://a/", b"http://a:80", b"https://b:443/x?y",
    b"http://u@a/", b"/a#b", b"/a\\b", b"/a?b\\c", b"a", b"http://[::1]:8/", b"/\x80", b"ftp://a/",
]  # fmt: skip
VERSIONS = [b"HTTP/1.1"] * 12 + [b"HTTP/1.0"] * 3 + [b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.1 ", b""]
NAMES = [
    b"Host", b"Content-Length", b"content-length", b"Transfer-Encoding", b"TRANSFER-ENCODING",
    b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Expect", b"X-Forwarded-For",
    b"X-Forwarded-Proto", b"X-Forwarded-Host", b"X-Forwarded-Port", b"X-Real-IP", b"Forwarded", b"Via",
    b"X-Request-Id", b"Authorization", b"Proxy-Authorization", b"Cookie", b"Client-Cert", b"Broker-User",
    b"Broker_User", b"X_Forwarded_For", b"X.Request.Id", b"Content_Length",
    b"Content.Length", b"Set-Cookie", b"X-A", b"X-B", b"x-b", b"_",
    b"X-Long-Name-That-Is-Longer-Than-Any-Known-One",
]  # fmt: skip
VALUES = [
    b"", b"a", b"a b", b"chunked", b"Chunked", b"gzip, chunked", b"chunked, chunked", b"identity", b"0",
    b"5", b"5, 5", b"+5", b"05", b"9223372036854775807", b"9223372036854775808", b"close", b"keep-alive",
    b"Upgrade", b"close, X-A", b"X-B, x-a", b"Host, Cookie", b"websocket", b"trailers", b"100-continue",
    b"a:80", b"[::1]", b"b", b"u@a", b"1.2.3.4, 5.6.7.8", b"for=a", b"1.1 x", b"\xff\x80", b"a\tb", b",",
    b",,close,",
]  # fmt: skip
STATUSES = [b"200"] * 6 + [b"100", b"101", b"103", b"204", b"205", b"304", b"404", b"599", b"600"]
DAMAGE = [
    b"\r", b"\n", b"\r\n", b" ", b"\t", b"\x00", b":", b",", b"\x0b", b"\x7f", b"\x80", b"_", b"-", b"#",
    b"a", b"0", b";",
]  # fmt: skip


def chosen(values: list[bytes]) -> st.SearchStrategy[bytes]:
    return st.sampled_from(values)


TOKENS = st.text("!#$%&'*+-.^_`|~09azAZ", min_size=1, max_size=20).map(str.encode)
TEXTS = st.binary(max_size=40).map(
    lambda raw: bytes(byte for byte in raw if byte == 9 or 32 <= byte != 127).strip(b" \t")
)
SPACES = st.sampled_from([b" "] * 8 + [b"", b"  ", b"\t", b" \t "])


@st.composite
def field_lines(draw: st.DrawFn) -> bytes:
    name = draw(st.one_of(chosen(NAMES), chosen(NAMES), TOKENS))
    value = draw(st.one_of(chosen(VALUES), chosen(VALUES), TEXTS))
    return name + b":" + draw(SPACES) + value + draw(st.sampled_from([b"", b"", b"", b" ", b"\t"])) + b"\r\n"


FIELDS = st.lists(field_lines(), max_size=8).map(b"".join)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """A request head; many are legal."""
    likely = draw(st.sampled_from([True, True, True, False]))
    method = b"GET" if likely else draw(chosen(METHODS))
    target = b"/a?b" if likely else draw(chosen(TARGETS))
    version = b"HTTP/1.1" if likely else draw(chosen(VERSIONS))
    host = draw(st.sampled_from([b"Host: a\r\n"] * 6 + [b"Host: b:443\r\n", b"", b"Host: a\r\nHost: a\r\n"]))
    return method + b" " + target + b" " + version + b"\r\n" + host + draw(FIELDS) + b"\r\n"


@st.composite
def responses(draw: st.DrawFn) -> bytes:
    version = draw(chosen(VERSIONS[:15]))
    status = draw(chosen(STATUSES))
    phrase = draw(st.one_of(st.just(b" OK"), st.just(b""), TEXTS.map(lambda text: b" " + text)))
    return version + b" " + status + phrase + b"\r\n" + draw(FIELDS) + b"\r\n"


@st.composite
def damaged(draw: st.DrawFn, heads: st.SearchStrategy[bytes]) -> bytes:
    """A head with up to three bytes put in, replaced or taken away."""
    data = draw(heads)
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 3]))):
        at = draw(st.integers(0, len(data)))
        cut = draw(st.integers(0, 2))
        data = data[:at] + draw(st.one_of(chosen(DAMAGE), st.binary(max_size=2))) + data[at + cut :]
    return data


def cuts(size: int) -> st.SearchStrategy[list[int]]:
    """Where to cut `size` bytes: growing prefixes' sizes, the last one whole."""
    inner = st.lists(st.integers(0, size), max_size=12)
    return inner.map(lambda places: [*sorted(places), size])
