"""Exchanges that must pass unchanged: what is sent, what the service answers, and what it is.

tests/e2e/test_unchanged.py holds each of them, through the broker, against the same one without it.
"""

from typing import NamedTuple


class Exchange(NamedTuple):
    what: str
    request: bytes
    answer: bytes
    closes: bool = False  # the service closes after its answer
    waits: bool = False  # the service answers before it reads the body


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
EXCHANGES: list[Exchange] = []


def request(what: str, data: bytes, answer: bytes = OK) -> None:
    EXCHANGES.append(Exchange(what, data, answer))


def target(value: bytes, what: str) -> None:
    request(f"target: {what}", b"GET %b HTTP/1.1\r\nHost: a.example\r\n\r\n" % value)


def fields(lines: bytes, what: str) -> None:
    request(f"request: {what}", b"GET /x HTTP/1.1\r\nHost: a.example\r\n" + lines + b"\r\n")


def body(head: bytes, data: bytes, what: str) -> None:
    request(f"body: {what}", b"POST /x HTTP/1.1\r\nHost: a.example\r\n" + head + b"\r\n" + data)


def answer(data: bytes, what: str, method: bytes = b"GET", closes: bool = False) -> None:
    asked = b"%b /x HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\n\r\n" % method
    EXCHANGES.append(Exchange(f"answer: {what}", asked, data, closes))


target(b"/", "the root")
target(b"/a?b=c&d=%20e", "a query")
target(b"/%2e%2E/%2f%5c%00%ff", "percent-encoding of anything, in the case it has")
target(b"/a/../b/./c//d", "dot segments and empty segments")
target(b"/../../x", "dot segments above the root")
target(b"/%zz%", "percent signs that encode nothing")
target(b"/a;b=c,d:e@f!$&'()*+", "sub-delimiters")
target(b"/?", "an empty query")
target(b'/a?b?c="<>^`{|}[]\\', "what browsers leave bare in a query")
target(b"/" + b"a" * 8000, "8,001 bytes")
target(b"http://a.example/abs?q=1", "the absolute form")
target(b"http://a.example", "the absolute form without a path")
for method in (b"OPTIONS", b"PROPFIND", b"M-SEARCH", b"get", b"PURGE", b"DELETE"):
    request(f"method: {method.decode()}", b"%b /x HTTP/1.1\r\nHost: a.example\r\n\r\n" % method)
request("target: the asterisk", b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n\r\n")
request("version: 1.0", b"GET /x HTTP/1.0\r\nHost: a.example\r\nX: y\r\n\r\n")
request("version: 1.0, kept open", b"GET /x HTTP/1.0\r\nHost: a.example\r\nConnection: keep-alive\r\n\r\n")

fields(b"X:\r\nY: \r\nZ: \t \r\n", "empty values")
fields(b'X: a  b\tc\r\nx-y_z.!#$%&\'*+^`|~09: "q\\" ,;\r\n', "odd but legal names and values")
fields(b"X: \xc3\xa4\x80\xff\r\n", "bytes above 0x7f")
fields(b"b: 1\r\na: 2\r\nB: 3\r\nA: 4\r\nb: 5\r\n", "order, spelling and repetition")
fields(b"Cookie: a=b; c=d\r\nCookie: e=f\r\n", "two Cookies")
fields(b"Authorization: Basic dTpw\r\n", "credentials")
fields(b'Range: bytes=0-0,-1\r\nIf-Range: "x"\r\n', "a range")
fields(b'If-None-Match: "a", W/"b"\r\nIf-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n', "conditions")
fields(b"Accept-Encoding: gzip;q=1.0, *;q=0\r\nAccept: */*\r\nTE: trailers\r\n", "what is accepted")
fields(b"X-Request-Id: abc-123\r\n", "an id of a request")
fields(
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=b\r\n", "a trace"
)
fields(
    b"Upgrade-Insecure-Requests: 1\r\nMax-Forwards: 5\r\nX-Real-Ip-Not: 1\r\n", "names that look like others"
)
fields(b"Connection: X-Private, close\r\nX-Private: 1\r\nX-Public: 2\r\n", "a field that stays on its hop")
fields(b"X: " + b"v" * 30000 + b"\r\n", "a long value")
fields(b"".join(b"X-%d: %d\r\n" % (at, at) for at in range(80)), "80 fields")

body(b"Content-Length: 0\r\n", b"", "of length 0")
body(b"Content-Length: 5\r\n", b"\x00\r\n\xff\n", "of bytes that look like lines")
body(b"Content-Length: 70000\r\n", bytes(range(256)) * 273 + b"x" * 112, "of 70,000 bytes")
body(b"Transfer-Encoding: chunked\r\n", b"1\r\na\r\n3\r\nbcd\r\n0\r\n\r\n", "in chunks of unknown number")
body(b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", "in no chunk at all")
body(
    b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n",
    b"2\r\nab\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\n\r\n",
    "with trailers",
)
body(
    b'Content-Encoding: gzip\r\nContent-Type: a/b;c="d"\r\nContent-Length: 3\r\n',
    b"\x1f\x8b\x08",
    "with a content coding",
)
body(
    b"Content-MD5: xyz\r\nContent-Range: bytes 0-2/9\r\nContent-Length: 3\r\n", b"abc", "with fields about it"
)
for method in (b"PUT", b"PATCH", b"DELETE", b"GET", b"OPTIONS"):
    request(
        f"body: of {method.decode()}",
        b"%b /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc" % method,
    )

answer(
    b"HTTP/1.1 200 OK\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\nset-cookie: e\r\nContent-Length: 0\r\n\r\n",
    "repeated Set-Cookie",
)
answer(
    b"HTTP/1.1 200 OK\r\nB: 1\r\na: 2\r\nb: 3\r\nContent-Length: 1\r\nX:\r\n\r\nx",
    "order, spelling, empty values",
)
answer(
    b"HTTP/1.1 299 As \t you \xc3\xa4 like\r\nContent-Length: 0\r\n\r\n",
    "an unknown status and an odd reason",
)
answer(b"HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", "an empty reason")
answer(
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n1\r\na\r\n0\r\nX-Sum: 7\r\n\r\n",
    "trailers",
)
answer(b"HTTP/1.1 200 OK\r\n\r\nuntil the end", "a body until close", closes=True)
answer(b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end", "HTTP/1.0", closes=True)
answer(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.0 with a length", closes=True)
answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nX: 1\r\n\r\n" + OK, "103")
answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK, "100 and 102")
answer(b'HTTP/1.1 204 No Content\r\nETag: "x"\r\n\r\n', "204")
answer(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n", "205")
answer(
    b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 500\r\n\r\n',
    "304 with the length it would have",
)
answer(
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nok", "a range"
)
answer(
    b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Range: bytes */9\r\nContent-Length: 0\r\n\r\n",
    "no such range",
)
answer(
    b"HTTP/1.1 301 Moved\r\nLocation: http://10.0.0.1:8080/x\r\nContent-Length: 0\r\n\r\n",
    "a redirect to anywhere",
)
answer(
    b"HTTP/1.1 401 No\r\nWWW-Authenticate: Basic realm=a\r\nWWW-Authenticate: B\r\nContent-Length: 0\r\n\r\n",
    "two challenges",
)
answer(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nX: y\r\n\r\n", "HEAD with a length", b"HEAD")
answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD with a coding", b"HEAD")
answer(b"HTTP/1.1 204 No Content\r\n\r\n", "OPTIONS without a body", b"OPTIONS")
answer(
    b"HTTP/1.1 500 Oh\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n\x00\xff\n",
    "an error of the service's own",
)
answer(
    b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nVary: *\r\nContent-Length: 3\r\n\r\n\x1f\x8b\x08",
    "a content coding",
)
answer(
    b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\nVia: 1.0 old\r\n"
    b"Content-Length: 0\r\n\r\n",
    "Via, Date, Server",
)
answer(
    b"HTTP/1.1 200 OK\r\nConnection: X-Private\r\nX-Private: 1\r\nContent-Length: 0\r\n\r\n",
    "a field that stays on its hop",
)
answer(b"HTTP/1.1 200 OK\r\nX: " + b"v" * 30000 + b"\r\nContent-Length: 0\r\n\r\n", "a long value")
answer(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"y" * 300000, "300,000 bytes")
answer(
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9\r\ndata: 1\n\n\r\n0\r\n\r\n",
    "an event stream",
)
EXCHANGES.append(
    Exchange(
        "answer: before the body",
        b"POST /x HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\n\r\nabc",
        OK,
        waits=True,
    )
)
