"""What whole connections have been smuggled with: one line each, with its reason or the flaw it is known by.

A line of ATTACKS ends in an answer of `statuses` and the end of the connection. A line of ODDITIES is legal:
exactly the requests in `served` reach the service, each with the body bytes given. `/first` becomes a target of
its own in every line; SMUGGLED never reaches a service, not even in a body; INNER is a body and nothing else.
A line of ANSWERS is what a service sends.
"""

# ruff: noqa: E501

from collections.abc import Sequence
from typing import NamedTuple


class Attack(NamedTuple):
    data: bytes
    why: str
    statuses: list[int]
    served: Sequence[tuple[str, int]] = ()
    """Requests that a service may see whole: the start line without its version, the body's size."""


# fmt: off
ATTACKS: list[Attack] = []
ODDITIES: list[Attack] = []

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
INNER = b"GET /inner HTTP/1.1\r\nHost: a\r\n\r\n"
FIRST = b"GET /first HTTP/1.1\r\nHost: a\r\n\r\n"
HEAD = b"POST /first HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
SIZE = b"%d" % len(INNER)


def attack(data: bytes, why: str, status: int = 400) -> None:
    """Refused as a whole; a service may have seen the head, never a complete request."""
    ATTACKS.append(Attack(data + SMUGGLED, why, [status]))


def after(data: bytes, why: str, status: int = 400) -> None:
    """The same behind a request that is answered."""
    ATTACKS.append(Attack(FIRST + data + SMUGGLED, why, [200, status], [("GET /first", 0)]))


def head(fields: bytes, why: str, status: int = 400) -> None:
    attack(HEAD + fields + b"\r\n\r\n", why, status)


def chunks(data: bytes, why: str) -> None:
    attack(CHUNKED + data, why)


def odd(data: bytes, why: str, *served: tuple[str, int], statuses: list[int] | None = None) -> None:
    ODDITIES.append(Attack(data, why, statuses or [200] * len(served), list(served)))


# --- anything after an error -------------------------------------------------------------------------------
after(b"GET / HTTP/1.1\r\n\r\n", "a request without Host behind a good one")
after(b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n", "a malformed request behind a good one")
after(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "the HTTP/2 preface behind a request", 505)
after(b"GET /\r\n", "HTTP/0.9 behind a request")
after(b"\r\n\r\n", "two empty lines behind a request")
after(b"\x00", "a NUL behind a request")
after(b"garbage\r\n\r\n", "garbage behind a request")
after(b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT behind a request")
after(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "a response behind a request")
after(b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked in HTTP/1.0 behind a request")

# --- the classes of desynchronisation -----------------------------------------------------------------------
head(b"Content-Length: 4\r\nTransfer-Encoding: chunked", "CL.TE")
head(b"Transfer-Encoding: chunked\r\nContent-Length: 4", "TE.CL")
head(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x", "TE.TE, the second one unknown")
head(b"Transfer-Encoding: x\r\nTransfer-Encoding: chunked", "TE.TE, the first one unknown")
head(b"Content-Length: 0\r\nContent-Length: 44", "CL.CL, the first one 0")
head(b"Content-Length: 44\r\nContent-Length: 0", "CL.CL, the second one 0")
head(b"Content-Length:\r\n 44", "0.CL: a folded length")
head(b"Content-Length: 0\r\n\t44", "CL.0: a folded length behind a 0")
head(b"Content-Length: 0,44", "CL.CL in one list")
head(b"X: x\nContent-Length: 44", "a length behind a bare LF")
head(b"X: x\rContent-Length: 44", "a length behind a bare CR")
head(b"X: x\r\rContent-Length: 44", "a length behind two bare CR")
head(b"X: x\n\nContent-Length: 44", "a length behind two bare LF")
head(b"\x00Content-Length: 44", "a NUL before a length's name")
head(b"Content-Length\x00: 44", "a NUL behind a length's name")
head(b"Content-Length \t: 44", "whitespace behind a length's name")
head(b"\tContent-Length: 44", "a tab before a length's name")
head(b"Content-Length: 44\x0b", "a vertical tab behind a length")
head(b"Foo: bar\r\n\rContent-Length: 44", "a bare CR as an empty line")
head(b"Transfer-Encoding: chunked\r\n\rX: y", "a bare CR behind chunked")
head(b"Transfer\x2dEncoding:\x0c chunked", "a form feed before chunked")
head(b"Transfer-Encoding: chunked, cow", "an unknown coding behind chunked")
head(b"Transfer-Encoding: cow, chunked", "an unknown coding before chunked", 501)
head(b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\nContent-Length: 6", "three framings")
chunks(b"0\r\n\r\x00", "a NUL in the empty line of the last chunk")
chunks(b"0\r\n\rX", "something else in the empty line of the last chunk")
chunks(b"1\r\nZ\r\nQ\r\n\r\n", "the time-out probe of CL.TE")
chunks(b"-0\r\n\r\n", "a negative last chunk")
chunks(b"0 \r\n\r\n", "a space behind the last chunk's size")
chunks(b"0;\r\n\r\n", "an empty extension of the last chunk")
chunks(b"\r\n0\r\n\r\n", "an empty line before a size")
chunks(b"0x0\r\n\r\n", "a last chunk in hexadecimal notation")

# --- chunk extensions and terminators ("funky chunks") ------------------------------------------------------
chunks(b"2;\nxx\r\n45\r\n0\r\n\r\n", "TERM.EXT: a bare LF in an extension")
chunks(b"2;\rxx\r\n45\r\n0\r\n\r\n", "TERM.EXT: a bare CR in an extension")
chunks(b"2;a=\"\r\n\"\r\nxx\r\n0\r\n\r\n", "a line break in a quoted extension")
chunks(b"5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n", "TERM.SPILL: any two bytes as a terminator")
chunks(b"5\r\nAAAAA\r2\r\n45\r\n0\r\n\r\n", "TERM.SPILL: a bare CR as a terminator")
chunks(b"5\r\nAAAAA\n2\r\n45\r\n0\r\n\r\n", "ONE.TWO: a bare LF as a terminator")
chunks(b"5\r\nAAAAA\r\n\r\n0\r\n\r\n", "an empty line between chunks")
chunks(b"5\r\nAAAAA0\r\n\r\n", "ZERO.TWO: no terminator")
chunks(b"5\n\nAAAAA\r\n0\r\n\r\n", "two bare LF behind a size")
chunks(b"5\r\r\nAAAAA\r\n0\r\n\r\n", "two CR behind a size")

# --- known flaws of others ---------------------------------------------------------------------------------
chunks(b"5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n", "h11, CVE-2025-43859: any two bytes behind a chunk")
chunks(b"5\nAAAAA\r\n0\r\n\r\n", "Go, CVE-2025-22871: a bare LF behind a size")
chunks(b"2;\n\r\nAA\r\n0\r\n\r\n", "netty, CVE-2025-58056: a bare LF ends an extension")
chunks(b"1;" + b"x" * 20000 + b"\r\nA\r\n0\r\n\r\n", "Go, CVE-2023-39326; Puma, CVE-2024-21647: an endless extension")
chunks(b"5;x\n\r\nAAAAA\r\n0\r\n\r\n", "aiohttp, CVE-2024-52304: a line end in an extension")
chunks(b"5 ;x\r\nAAAAA\r\n0\r\n\r\n", "fasthttp: whitespace before an extension")
chunks(b"5\t\r\nAAAAA\r\n0\r\n\r\n", "fasthttp: a tab behind a size")
chunks(b"0\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "aiohttp, CVE-2025-53643: trailers that were not read")
chunks(b"f0000000000000003\r\nabc\r\n0\r\n\r\n", "hyper, CVE-2021-32714; Jetty, CVE-2017-7657: a size that overflows")
chunks(b"0x3\r\nabc\r\n0\r\n\r\n", "waitress, CVE-2022-24761; twisted, CVE-2022-24801: 0x in a size")
chunks(b"+3\r\nabc\r\n0\r\n\r\n", "Go and waitress: a plus in a size")
chunks(b"3_0\r\nabc\r\n0\r\n\r\n", "aiohttp, CVE-2023-47627: an underscore in a size")
chunks(b"3;a\r\nabc\r\n0;" + b"b" * 100 + b"\r\n\r\n", "Node, CVE-2021-22960: extensions that were skipped")
chunks(b"0\r\n" + b"A: " + b"b" * 9000 + b"\r\n\r\n", "Tomcat, CVE-2023-46589: a trailer over the limit")
head(b"Transfer-Encoding: chunked\r\n , identity", "llhttp, CVE-2022-32215: a list over two lines")
head(b"Transfer-Encoding: chunkedchunked", "llhttp, CVE-2022-32213: a coding that begins like chunked", 501)
attack(b"POST /first HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\n\n", "llhttp, CVE-2022-32214: bare LF as line ends")
head(b"X: a\rTransfer-Encoding: chunked", "llhttp, CVE-2022-35256: a line that CR alone ends")
head(b"X:\rTransfer-Encoding: chunked\r\nContent-Length: 5", "llhttp, CVE-2023-30589: an empty value and CR alone")
head(b" Content-Length: 44", "llhttp, CVE-2024-27982: a space before Content-Length")
head(b"X-Abc: \rxTransfer-Encoding: chunked", "llhttp in aiohttp, CVE-2023-37276: a bare CR in a value")
head(b"Content-Length : 44", "Node, CVE-2021-22959; netty, CVE-2019-16869: a space before the colon")
head(b"Content-Length: +44", "hyper, CVE-2021-32715; Jetty, CVE-2023-40167: a plus in a length")
head(b"Content-Length: 4_4", "Tornado, GHSA-qppv-j76h-2rpx: an underscore in a length")
head(b"Content-Length: \xd9\xa4\xd9\xa4", "aiohttp, CVE-2023-47627: digits that are not ASCII")
head(b"Content-Length: -1", "Go, CVE-2019-16276 and others: a negative length")
head(b"Content-Length: 4 4", "Tomcat, CVE-2022-42252: an invalid length that was ignored")
head(b"Content-Length:", "HAProxy, CVE-2023-40225: an empty length")
head(b": x\r\nContent-Length: 44", "HAProxy, CVE-2023-25725: an empty name hides what follows")
odd(HEAD + b"Content-Length0" + b"a" * 255 + b":\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "HAProxy, CVE-2021-40346: a name of 270 bytes that begins like a length", ("POST /first", len(INNER)))
attack(b"GET /first#.html HTTP/1.1\r\nHost: a\r\n\r\n", "HAProxy, CVE-2023-45539: '#' in a path")
head(b"Transfer-Encoding: chunked\r\nX", "netty, CVE-2019-20444: a line without a colon")
head(b"Transfer-Encoding:\x00chunked", "Squid, CVE-2020-15810: a control character before chunked")
head(b"Transfer-Encoding\xa0: chunked", "Apache Traffic Server: a no-break space in a name")
head(b"Transfer-Encoding: identity, chunked", "twisted, CVE-2022-24801: identity in a list", 501)
head(b"Transfer-Encoding: \x0bchunked\r\nContent-Length: 5", "waitress, CVE-2019-16786: a vertical tab before chunked")
head(b"Content-Length: 44\r\nContent-Length: 0", "twisted, CVE-2020-10108: two lengths")
head(b"Transfer-Encoding: chunked\r\nContent-Length: 44", "WEBrick, CVE-2024-47220: both framings")
head(b"Transfer-Encoding: \"chunked\"", "WEBrick, CVE-2020-25613: chunked in quotes")
head(b"Transfer-Encoding: chunked\x20", "gunicorn, CVE-2024-1135: chunked that is not quite chunked")
head(b"Transfer-Encoding: xchunked\r\nContent-Length: 44", "gunicorn, CVE-2024-6827: an unknown coding falls back to a length")
head(b"Host: b", "h2, CVE-2026-71554: several Host fields")
head(b"host: a", "h2: the same Host in another spelling")
head(b"X: a\r\n\tb", "Squid, CVE-2019-18678 and others: a folded field")
attack(b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", "Jetty, CVE-2017-7656: HTTP/0.9 with a version", 505)
attack(b"POST /first HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", "Tomcat, CVE-2021-33037: a coding in HTTP/1.0")
attack(b"GET http://b/first HTTP/1.1\r\nHost: a\r\n\r\n", "the target and Host name two services")
attack(b"GET http://b@a/first HTTP/1.1\r\nHost: a\r\n\r\n", "user information that looks like a host")
attack(b"GET http://a:80@b/first HTTP/1.1\r\nHost: a\r\n\r\n", "user information that looks like an authority")
attack(b"GET /first HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", "the same Host twice")
attack(b"GET /first HTTP/1.1\r\nHost: a, b\r\n\r\n", "a list of hosts")
attack(b"GET /first HTTP/1.1\r\nHost: a b\r\n\r\n", "two hosts in one value")
attack(b"GET /first HTTP/1.1\r\nHost: a/b\r\n\r\n", "a path in Host")
attack(b"GET /first HTTP/1.1\r\nHost: a\\b\r\n\r\n", "a backslash in Host")
attack(b"GET /first HTTP/1.1\r\nHost: a?b\r\n\r\n", "a query in Host")
attack(b"GET /first HTTP/1.1\r\nHost: a@b\r\n\r\n", "user information in Host")
attack(b"GET /first HTTP/1.1\r\nHost: a%00\r\n\r\n", "an encoded NUL in Host")

# --- legal, and made unambiguous -----------------------------------------------------------------------------
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "CL.0: a request as the body of GET", ("GET /first", len(INNER)))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n",
    "TE.0: a request as the chunked body of GET", ("GET /first", len(INNER)))
odd(b"OPTIONS /first HTTP/1.1\r\nHost: a\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "CL.0 with OPTIONS", ("OPTIONS /first", len(INNER)))
odd(b"DELETE /first HTTP/1.1\r\nHost: a\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "CL.0 with DELETE", ("DELETE /first", len(INNER)))
odd(HEAD + b"Connection: Content-Length\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "Connection names Content-Length", ("POST /first", len(INNER)))
odd(HEAD + b"Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n",
    "Connection names Transfer-Encoding", ("POST /first", len(INNER)))
odd(HEAD + b"Connection: Host\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "Connection names Host", ("POST /first", len(INNER)))
odd(HEAD + b"Sec-WebSocket-Key1: x\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "gunicorn: a field that once meant 8 bytes of body", ("POST /first", len(INNER)))
odd(HEAD + b"Content-Length:" + SIZE + b"\r\n\r\n" + INNER, "no space before a length", ("POST /first", len(INNER)))
odd(HEAD + b"Content-Length: \t " + SIZE + b" \t\r\n\r\n" + INNER,
    "whitespace around a length", ("POST /first", len(INNER)))
odd(HEAD + b"transfer-ENCODING: CHUNKED\r\n\r\n%X\r\n" % len(INNER) + INNER + b"\r\n0\r\n\r\n",
    "chunked in capitals", ("POST /first", len(INNER)))
odd(CHUNKED + b"0000000000000001\r\nx\r\n000\r\n\r\n", "sizes with leading zeros", ("POST /first", 1))
odd(CHUNKED + b"1\r\nx\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\nHost: b\r\nX-Ok: 1\r\n\r\n",
    "lighttpd, CVE-2025-12642: trailers that frame and route", ("POST /first", 1))
odd(FIRST + b"\r\n" + FIRST, "an empty line between two requests", ("GET /first", 0), ("GET /first", 0))
odd(HEAD + b"Content-Length: 0\r\n\r\n" + FIRST, "a length of 0", ("POST /first", 0), ("GET /first", 0))
odd(b"GET /first HTTP/1.0\r\nHost: a\r\n\r\n" + SMUGGLED, "HTTP/1.0 ends after one request", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + SMUGGLED,
    "nothing behind Connection: close is a request", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: CLOSE, x\r\n\r\n" + SMUGGLED,
    "the same in a list and in capitals", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n" + SMUGGLED,
    "close beats keep-alive", ("GET /first", 0))
odd(b"HEAD /first HTTP/1.1\r\nHost: a\r\n\r\nGET /\r\n", "an error behind HEAD is answered with a body",
    ("HEAD /first", 0), statuses=[200, 400])
odd(b"GET http://a/first HTTP/1.1\r\nHost: a\r\n\r\n", "an absolute form", ("GET /first", 0))
odd(b"GET http://a:80/first HTTP/1.1\r\nHost: a\r\n\r\n", "an absolute form with the default port", ("GET /first", 0))
odd(b"GET http://A/first HTTP/1.1\r\nHost: a\r\n\r\n", "an absolute form in capitals", ("GET /first", 0))
odd(b"GET /first?%0d%0aHost:%20b HTTP/1.1\r\nHost: a\r\n\r\n",
    "httpd, CVE-2023-25690: encoded line ends stay encoded", ("GET /first?%0d%0aHost:%20b", 0))
odd(b"GET /first?x=%20HTTP/1.1 HTTP/1.1\r\nHost: a\r\n\r\n", "an encoded version in a target",
    ("GET /first?x=%20HTTP/1.1", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nX: GET /smuggle HTTP/1.1\r\n\r\n", "a request line in a value", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\nPRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "h2c smuggling: the upgrade stays here, and the preface is refused", ("GET /first", 0), statuses=[200, 505])
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    "h2c smuggling without settings", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n", "Upgrade without Connection", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: H2C\r\nHTTP2-Settings: AA\r\n\r\n",
    "h2c in capitals, settings that Connection does not name", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings, HTTP2-Settings\r\nUpgrade: h2c\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AA\r\nHTTP2-Settings: BB\r\n\r\n", "h2c and its settings twice", ("GET /first", 0))
odd(HEAD + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "h2c with a body", ("POST /first", len(INNER)))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2, h2c-14, TLS/1.2, HTTP/2.0, h2c\r\n\r\n",
    "h2c among others", ("GET /first", 0))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: \"websocket\r\n\r\n" + FIRST,
    "an Upgrade that is no token", ("GET /first", 0), ("GET /first", 0))
odd(b"POST /first HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "a body that does not wait", ("POST /first", len(INNER)))
odd(b"GET /first HTTP/1.1\r\nHost: a\r\nExpect: y 100-continue\r\nContent-Length: " + SIZE + b"\r\n\r\n" + INNER,
    "0.CL by an odd Expect", ("GET /first", len(INNER)))


class Answer(NamedTuple):
    data: bytes
    why: str
    outcome: str
    """502: refused; cut: it has begun and can't be completed; one: the client gets the first answer, whose body is `real`."""
    method: str = "GET"
    ends: bool = False
    """The upstream closes behind it."""


ANSWERS: list[Answer] = []
OK = b"HTTP/1.1 200 OK\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nX-Forged: 1\r\nContent-Length: 6\r\n\r\nforged"
REAL = OK + b"Content-Length: 4\r\n\r\nreal"


def answer(data: bytes, why: str, outcome: str, method: str = "GET", ends: bool = False) -> None:
    ANSWERS.append(Answer(data, why, outcome, method, ends))


# --- more than one answer, or more than the answer --------------------------------------------------------------
answer(REAL + FORGED, "two answers to one request", "one")
answer(REAL + FORGED * 20, "many answers to one request", "one")
answer(REAL + b"x", "one byte behind a body", "one")
answer(REAL + b"\r\n", "an empty line behind a body", "one")
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\n\r\n" + FORGED, "an answer behind the last chunk", "one")
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\n\r\nx", "a byte behind the last chunk", "one")
answer(b"HTTP/1.1 204 No Content\r\n\r\n" + FORGED, "an answer behind 204", "one")
answer(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\nreal", "a body of 204", "one")
answer(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nreal", "a body of 304", "one")
answer(b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\n\r\n", "a chunked body of 304", "one")
answer(OK + b"Content-Length: 4\r\n\r\nreal", "a body of an answer to HEAD", "one", "HEAD")
answer(OK + b"Content-Length: 0\r\n\r\n" + FORGED, "an answer behind an answer to HEAD", "one", "HEAD")
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "a chunked body of an answer to HEAD", "one", "HEAD")
answer(OK + b"Content-Length: 0\r\n\r\n" + FORGED, "an answer behind an empty body", "one")
answer(b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n" + FORGED, "an answer behind 205", "one")
answer(OK + b"Connection: close\r\nContent-Length: 4\r\n\r\nreal" + FORGED, "an answer behind the last one", "one")
answer(b"HTTP/1.1 100 Continue\r\n\r\n" + REAL + FORGED, "two answers behind an interim one", "one")
answer(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + REAL + b"HTTP/1.1 103 Early Hints\r\n\r\n",
       "an interim answer behind the final one", "one")
answer(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nreal" + FORGED, "an answer behind one in HTTP/1.0", "one")

# --- an upgrade nobody asked for, interim answers, bombs ------------------------------------------------------------
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "
answer(SWITCH + b"websocket\r\n\r\n", "a 101 nobody asked for", "502")
answer(SWITCH + b"h2c\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", "a 101 to HTTP/2", "502")
answer(SWITCH + b"broker-tunnel\r\n\r\n", "a 101 to our own tunnel", "502")
answer(SWITCH + b"websocket\r\n\r\n" + REAL, "a 101 before the answer", "502")
answer(b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCH + b"websocket\r\n\r\n", "a 101 behind an interim answer", "502")
answer(SWITCH + b"websocket\r\n\r\n", "a 101 to HEAD", "502", "HEAD")
answer(SWITCH + b"websocket\r\n\r\n", "a 101 to POST", "502", "POST")
answer(b"HTTP/1.1 100 Continue\r\n\r\n" * 20000, "a flood of 100 Continue", "502")
answer(b"HTTP/1.1 103 Early Hints\r\nLink: <%s>\r\n\r\n" % (b"a" * 2000) * 200, "a flood of 103 Early Hints", "502")
answer(b"HTTP/1.1 199 Odd\r\n\r\n" * 20000 + REAL, "a flood of an unknown interim status, then the answer", "502")
answer(b"HTTP/1.1 102 Processing\r\nContent-Length: 9\r\n\r\n", "an interim answer with a length", "502")
answer(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nX : a\r\n\r\n", "a malformed answer behind an interim one", "502")
answer(b"HTTP/1.1 100 Continue\r\n\r\n", "nothing behind an interim answer", "502", ends=True)
answer(OK + b"X: a\r\n" * 1001 + b"Content-Length: 0\r\n\r\n", "a bomb of 1,001 fields", "502")
answer(OK + b"X: " + b"a" * 300000 + b"\r\nContent-Length: 0\r\n\r\n", "a field of 300,000 bytes", "502")
answer(OK + b"X: " + b"a" * 300000, "a field without end", "502")
answer(OK + b"X" * 300000, "a name without end", "502")
answer(b"HTTP/1.1 200 " + b"a" * 300000, "a reason phrase without end", "502")
answer(OK + (b"X: " + b"a" * 1000 + b"\r\n") * 400 + b"Content-Length: 0\r\n\r\n", "a head of 400,000 bytes", "502")

# --- response splitting --------------------------------------------------------------------------------------------
answer(b"HTTP/1.1 302 Found\r\nLocation: /a\rX: b\r\nContent-Length: 0\r\n\r\n", "a bare CR in Location", "502")
answer(b"HTTP/1.1 302 Found\r\nLocation: /a\nX: b\r\nContent-Length: 0\r\n\r\n", "a bare LF in Location", "502")
answer(b"HTTP/1.1 302 Found\r\nLocation: /a\r\r\nContent-Length: 0\r\n\r\n", "two CR behind Location", "502")
answer(b"HTTP/1.1 200 OK\rX: a\r\nContent-Length: 0\r\n\r\n", "uvicorn, CVE-2020-7695: a CR in the status line", "502")
answer(OK + b"Set-Cookie: a=b\x00; c\r\nContent-Length: 0\r\n\r\n", "a NUL in a cookie", "502")
answer(OK + b"X: a\x1b[2J\r\nContent-Length: 0\r\n\r\n", "uvicorn, CVE-2020-7694: a terminal escape in a value", "502")

# --- what ends too early -------------------------------------------------------------------------------------------
answer(b"", "nothing", "502", ends=True)
answer(b"HTTP/1.1 200 OK\r\nContent-Le", "half a head", "502", ends=True)
answer(OK + b"Content-Length: 9\r\n\r\nreal", "less than the length", "cut", ends=True)
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n", "no last chunk", "cut", ends=True)
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\nreal", "half a chunk", "cut", ends=True)
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\n", "half a last chunk", "cut", ends=True)
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n4\r\nreal\r\n0\r\nX: a\r\n", "half the trailers", "cut", ends=True)
answer(OK + b"Content-Length: 9223372036854775807\r\n\r\nreal", "the greatest length", "cut", ends=True)
answer(OK + b"Transfer-Encoding: chunked\r\n\r\n7fffffffffffffff\r\nreal", "the greatest chunk", "cut", ends=True)
