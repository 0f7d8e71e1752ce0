"""What must pass, however odd it looks: one line each, with what it is. See malformed.py for the opposite."""

from typing import NamedTuple


class Wellformed(NamedTuple):
    data: bytes
    what: str
    framing: str = "none"


# fmt: off
REQUESTS: list[Wellformed] = []
RESPONSES: list[Wellformed] = []


def line(data: bytes, what: str) -> None:
    REQUESTS.append(Wellformed(data + b"\r\nHost: a\r\n\r\n", what))


def field(data: bytes, what: str, framing: str = "none") -> None:
    REQUESTS.append(Wellformed(b"POST /x HTTP/1.1\r\nHost: a\r\n" + data + b"\r\n\r\n", what, framing))


def whole(data: bytes, what: str, framing: str = "none") -> None:
    REQUESTS.append(Wellformed(data, what, framing))


def host(value: bytes, what: str) -> None:
    whole(b"GET / HTTP/1.1\r\nHost: " + value + b"\r\n\r\n", what)


line(b"GET / HTTP/1.1", "the simplest request")
line(b"GET / HTTP/1.0", "HTTP/1.0 with Host")
whole(b"GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 without Host or any field")
whole(b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "one empty line before the request")
line(b"get / HTTP/1.1", "a method in lower case is another method")
line(b"M-SEARCH / HTTP/1.1", "a method with a hyphen")
line(b"!#$%&'*+-.^_`|~ / HTTP/1.1", "a method of all other token characters")
line(b"X / HTTP/1.1", "a method of one letter")
line(b"M" * 32 + b" / HTTP/1.1", "the longest method")
line(b"OPTIONS * HTTP/1.1", "the asterisk form")
line(b"OPTIONS http://a HTTP/1.1", "the absolute form of the asterisk")
line(b"GET http://a HTTP/1.1", "an absolute form without a path")
line(b"GET http://a/ HTTP/1.1", "an absolute form")
line(b"GET HTTP://A/ HTTP/1.1", "an absolute form in upper case")
line(b"GET http://a?q HTTP/1.1", "an absolute form with a query and no path")
line(b"GET http://a:80/b HTTP/1.1", "an absolute form with the default port, which Host leaves out")
line(b"GET https://a:443/b HTTP/1.1", "the same for https")
whole(b"GET http://a/ HTTP/1.0\r\n\r\n", "an absolute form in HTTP/1.0 without Host")
whole(b"GET http://[::1]:81/ HTTP/1.1\r\nHost: [::1]:81\r\n\r\n", "an absolute form with IPv6")
line(b"GET // HTTP/1.1", "two slashes")
line(b"GET //b/c HTTP/1.1", "what looks like a network path")
line(b"GET /? HTTP/1.1", "an empty query")
line(b"GET /?? HTTP/1.1", "two question marks")
line(b"GET /a/../b/./c HTTP/1.1", "dot segments")
line(b"GET /../../etc HTTP/1.1", "dot segments above the root")
line(b"GET /%2e%2e/%2F%00%ff HTTP/1.1", "percent-encoding of anything")
line(b"GET /%zz% HTTP/1.1", "a percent sign that encodes nothing")
line(b"GET /a;b=c,d HTTP/1.1", "path parameters")
line(b"GET /a:b@c!d$e&f'g(h)i*j+k=l HTTP/1.1", "all sub-delimiters")
line(b"GET /a?b=\"<>^`{|}\\[] HTTP/1.1", "what browsers leave bare in a query")
line(b"GET /http://b/ HTTP/1.1", "a URI as the path")
line(b"GET /a?b=http://c@d/ HTTP/1.1", "a URI in a query")
line(b"GET /" + b"a" * 8191 + b" HTTP/1.1", "the longest target")
host(b"example.com", "a name")
host(b"EXAMPLE.com.", "a name with a dot at the end, in upper case")
host(b"a_b.c~d-e", "a name with unreserved characters")
host(b"127.0.0.1:65535", "an IPv4 address and the highest port")
host(b"a:00080", "a port with leading zeros")
host(b"[::1]", "an IPv6 address")
host(b"[2001:DB8::192.0.2.1]:8080", "an IPv6 address with an IPv4 part, and a port")
host(b"xn--bcher-kva.example", "an international name")
host(b" \t a \t ", "whitespace around the value")
field(b"X:", "an empty value")
field(b"X: \t ", "a value of whitespace")
field(b"X:a", "no space after the colon")
field(b"X: a  b\tc", "whitespace in a value")
field(b"X: \xc3\xa4\x80\xff", "bytes above 0x7f in a value")
field(b"X: !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", "all visible characters in a value")
field(b"!#$%&'*+-.^_`|~09azAZ: a", "a name of all token characters")
field(b"1: a", "a name of a digit")
field(b"-: a", "a name of a hyphen")
field(b"_: a", "a name of an underscore")
field(b"X_Y: a", "a name with an underscore")
field(b"X" * 1000 + b": a", "a long name")
field(b"X: " + b"a" * 60000, "a long value")
field(b"X: a\r\nX: b\r\nx: c", "a repeated field")
field(b"\r\n".join(b"X-%d: a" % at for at in range(99)), "100 fields with Host")
field(b"Cookie: a=b; c=d\r\nCookie: e=f", "two Cookies")
field(b"Content-Length: 0", "length 0")
field(b"Content-Length: 5", "a length", "length")
field(b"content-LENGTH:5", "a length in mixed case, without a space", "length")
field(b"Content-Length: \t 5 \t", "whitespace around a length", "length")
field(b"Content-Length: 9223372036854775807", "the largest length", "length")
field(b"Transfer-Encoding: chunked", "chunked", "chunked")
field(b"TRANSFER-ENCODING:CHUNKED", "chunked in upper case, without a space", "chunked")
field(b"transfer-encoding:   Chunked", "chunked after several spaces", "chunked")
field(b"TE: trailers, deflate;q=0.5", "TE")
field(b"Expect: 100-continue\r\nContent-Length: 5", "an expectation", "length")
field(b"Expect: something-else", "an unknown expectation")
field(b"Connection: close", "close")
field(b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket", "an upgrade")
field(b"Connection: ,,close,\t, ,", "empty elements in Connection")
field(b"Connection:", "an empty Connection")
field(b"Connection: a\r\nConnection: b", "two Connections")
field(b"Connection: Host, Content-Length, X-Forwarded-For, Cookie", "Connection names what it may not remove")
field(b"Upgrade: h2c, foo/2\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA", "an offer of h2c")
field(b"Content-Encoding: gzip\r\nContent-Length: 5", "a content coding", "length")
field(b"Trailer: X-Sum\r\nTransfer-Encoding: chunked", "announced trailers", "chunked")
field(b"Range: bytes=0-0,-1", "a range")
field(b"X-Http-Method-Override: DELETE", "a method in a field")


def answer(data: bytes, what: str, framing: str = "close") -> None:
    RESPONSES.append(Wellformed(b"HTTP/1.1 200 OK\r\n" + data + b"\r\n", what, framing))


def response(data: bytes, what: str, framing: str = "close") -> None:
    RESPONSES.append(Wellformed(data, what, framing))


response(b"HTTP/1.1 200 OK\r\n\r\n", "no field at all")
response(b"HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.0")
response(b"HTTP/1.1 200 \r\n\r\n", "an empty reason phrase")
response(b"HTTP/1.1 200\r\n\r\n", "no reason phrase and no space")
response(b"HTTP/1.1 200  a \t b \r\n\r\n", "whitespace in the reason phrase")
response(b"HTTP/1.1 200 \xc3\xa4\x80\r\n\r\n", "bytes above 0x7f in the reason phrase")
response(b"HTTP/1.1 299 x\r\n\r\n", "an unknown status")
response(b"HTTP/1.1 599 x\r\n\r\n", "the highest status")
response(b"HTTP/1.1 100 Continue\r\n\r\n", "100", "none")
response(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", "103", "none")
response(b"HTTP/1.1 199 x\r\n\r\n", "an unknown 1xx", "none")
response(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", "101", "none")
response(b"HTTP/1.1 204 No Content\r\n\r\n", "204", "none")
response(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n", "204 with length 0", "none")
response(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "205", "none")
response(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n", "304 with a length", "none")
response(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n", "304 with a coding", "none")
answer(b"Content-Length: 0\r\n", "length 0", "none")
answer(b"Content-Length: 5\r\n", "a length", "length")
answer(b"Transfer-Encoding: chunked\r\n", "chunked", "chunked")
answer(b"Set-Cookie: a=b\r\nSet-Cookie: c=d\r\n", "two cookies")
answer(b"X:\r\nY: \r\n", "empty values")
answer(b"Content_Length: 5\r\n", "an odd name that a client does not read as Content-Length")
answer(b"Connection: close, X\r\nX: a\r\nContent-Length: 5\r\n", "a field that stays on its hop", "length")
