"""HTTP/1.x heads and chunked bodies again, slowly and in another way: regular expressions from the grammar.

Written from RFC 9110, RFC 9112 and the decisions at the top of `_fastpath/http1.pyx`. It reads whole heads
only, and says yes or no, and what it read. It shares no code with the scanner.
"""

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
REQUEST_LINE = re.compile(rb"(?:\r\n)?(" + TOKEN + rb") ([!-\"$-~]+) HTTP/1\.([01])\r\n")
STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?\r\n")
VALUE = rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?"
FIELD_LINE = re.compile(rb"(" + TOKEN + rb"):[ \t]*(" + VALUE + rb")[ \t]*\r\n")
PLAIN = re.compile(rb"[^:]+: *[^ \t\r](?:.*[^ \t\r])?\r\n")
ADDRESS = rb"\[[0-9A-Fa-f.]*:[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*\]"
HOST = re.compile(rb"(?:([A-Za-z0-9._~-]+)|(" + ADDRESS + rb"))(?::([0-9]{1,5}))?")
ABSOLUTE = re.compile(rb"(https?)://([^/?]*)([^?]*)((?:\?.*)?)", re.IGNORECASE)
LENGTH = re.compile(rb"0|[1-9][0-9]*")
OPTIONS = re.compile(rb"[ \t,]*(?:" + TOKEN + rb"[ \t]*(?:,[ \t,]*|$))*")
ALWAYS_HOP = set(
    b"connection keep-alive proxy-connection te transfer-encoding upgrade http2-settings"
    b" proxy-authorization proxy-authenticate".split()
)
NEVER_NAMED = re.compile(
    rb"host|content-.+|expect|x-forwarded-.+|x-real-ip|forwarded|via|x-request-id|authorization|traceparent|trailer"
    rb"|client-cert(-chain)?|broker-.*|date|set-cookie|cookie|cache-control"
)
# RFC 9110 6.5.1; of names as `as_cgi` makes them.
FORBIDDEN_TRAILER = re.compile(
    rb"host|connection|keep-alive|proxy-.*|te|trailer|transfer-encoding|upgrade|expect|x-forwarded-.+|x-real-ip"
    rb"|forwarded|via|authorization|client-cert(-chain)?|broker-.*|date|set-cookie2?|http2-settings"
    rb"|content-(?!digest$|md5$).+|if-.+|accept-ranges|age|cache-control|cookie2?|expires|location|max-forwards|pragma"
    rb"|range|retry-after|vary|warning|www-authenticate"
)


def as_cgi(name: bytes) -> bytes:
    """What is one variable to CGI is one name here: all but letters and digits is '-' (RFC 3875 4.1.18)."""
    return re.sub(rb"[^0-9a-z]", b"-", name.lower())


class Refused(Exception):
    """The oracle says no."""


@dataclass
class Reading:
    size: int
    minor: int
    headers: list[tuple[bytes, bytes]]
    method: bytes = b""
    target: bytes = b""
    status: int = 0
    framing: str = "none"
    content_length: int | None = None
    keep_alive: bool = True
    host: bytes = b""
    hop: list[bool] = field(default_factory=list)

    def all(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.headers if key.lower() == name]

    def one(self, name: bytes) -> bytes | None:
        values = self.all(name)
        if len(values) > 1:
            raise Refused(f"more than one {name!r}")
        return values[0] if values else None


Fields = list[tuple[bytes, bytes]]


def read_fields(data: bytes, at: int, limit: int, *, trailers: bool = False) -> tuple[Fields, int]:
    fields = []
    while not data.startswith(b"\r\n", at):
        match = FIELD_LINE.match(data, at)
        if match is None or len(fields) == limit:
            raise Refused(f"no field line at {at}")
        if not trailers and match[1].lower() == b"transfer-encoding" and not PLAIN.fullmatch(match[0]):
            raise Refused("whitespace around a coding")
        fields.append((match[1], match[2]))
        at = match.end()
    return fields, at + 2


def read_host(value: bytes) -> bytes:
    match = HOST.fullmatch(value)
    if match is None or len(value) > 261 or (match[2] and len(match[2]) > 47):
        raise Refused("not a host")
    if match[3] is not None and not 1 <= int(match[3]) <= 65535:
        raise Refused("not a port")
    return value


def without_default_port(value: bytes, scheme: bytes) -> bytes:
    return value.lower().removesuffix({b"http": b":80", b"https": b":443"}[scheme.lower()])


def read_target(reading: Reading) -> None:
    host = reading.one(b"host")
    if host is not None:
        reading.host = read_host(host)
    elif reading.minor == 1:
        raise Refused("no Host")
    if reading.method == b"CONNECT" or len(reading.method) > 32:
        raise Refused("method")
    path = reading.target.partition(b"?")[0]
    if reading.target == b"*" and reading.method == b"OPTIONS":
        return
    absolute = ABSOLUTE.fullmatch(reading.target)
    if absolute is not None:
        path = absolute[3]
        read_host(absolute[2])
        if host is not None and without_default_port(host, absolute[1]) != without_default_port(
            absolute[2], absolute[1]
        ):
            raise Refused("two hosts")
        reading.host = absolute[2]
    elif not reading.target.startswith(b"/"):
        raise Refused("no target form")
    if b"\\" in path:
        raise Refused("a backslash")


def read_framing(reading: Reading) -> None:
    coding, length = reading.one(b"transfer-encoding"), reading.one(b"content-length")
    if coding is not None:
        if coding.lower() != b"chunked" or length is not None or reading.minor == 0:
            raise Refused("transfer coding")
        reading.framing = "chunked"
    elif length is not None:
        if LENGTH.fullmatch(length) is None or int(length) >= 2**63:
            raise Refused("length")
        reading.content_length = int(length)
        reading.framing = "length" if reading.content_length else "none"


def read_connection(reading: Reading) -> set[bytes]:
    options: set[bytes] = set()
    named = 0
    for value in reading.all(b"connection"):
        if OPTIONS.fullmatch(value) is None:
            raise Refused("Connection")
        names = [name.lower() for name in re.findall(TOKEN, value)]
        options.update(names)
        own = ALWAYS_HOP | {b"close"}
        named += sum(name not in own and not NEVER_NAMED.fullmatch(name) for name in names)
    if named > 32:
        raise Refused("too many options")
    reading.keep_alive = b"close" not in options and (reading.minor == 1 or b"keep-alive" in options)
    reading.hop = [
        key.lower() in ALWAYS_HOP or (key.lower() in options and not NEVER_NAMED.fullmatch(key.lower()))
        for key, value in reading.headers
    ]
    return options


def read_request(data: bytes, limit: int = 100) -> Reading:
    """Read a whole request head at the start of `data`, or raise Refused."""
    match = REQUEST_LINE.match(data)
    if match is None:
        raise Refused("no request line")
    fields, size = read_fields(data, match.end(), limit)
    reading = Reading(size, int(match[3]), fields, method=match[1], target=match[2])
    for key, _ in fields:
        if key.lower() != as_cgi(key) and as_cgi(key) in (b"content-length", b"transfer-encoding"):
            raise Refused("look-alike")
    reading.one(b"authorization")
    reading.one(b"proxy-authorization")
    read_target(reading)
    read_framing(reading)
    read_connection(reading)
    return reading


def read_response(data: bytes, method: bytes = b"GET", limit: int = 100) -> Reading:
    """Read a whole response head at the start of `data`, or raise Refused."""
    match = STATUS_LINE.match(data)
    if match is None:
        raise Refused("no status line")
    fields, size = read_fields(data, match.end(), limit)
    reading = Reading(size, int(match[1]), fields, status=int(match[2]))
    read_framing(reading)
    options = read_connection(reading)
    status, framed = reading.status, reading.framing == "chunked" or reading.content_length is not None
    if (status < 200 and framed) or (status == 204 and reading.framing != "none"):
        raise Refused("a body where none may be")
    if status < 200 or status in (204, 304) or method == b"HEAD":
        reading.framing = "none"
    elif not framed:
        reading.framing = "close"
        reading.keep_alive = False
    if status == 101 and not (reading.minor == 1 and b"upgrade" in options and reading.all(b"upgrade")):
        raise Refused("101")
    return reading


def read_chunked(data: bytes) -> tuple[bytes, Fields, int]:
    """Read a whole chunked body: its bytes, all its trailers, its size.

    Raises Refused, or EOFError where the body goes on.
    """
    body, at = b"", 0
    while True:
        match = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n").match(data, at)
        if match is None:
            if re.compile(rb"(?:[0-9A-Fa-f]{1,16}\r?)?").fullmatch(data, at):
                raise EOFError
            raise Refused("size")
        size, at = int(match[1], 16), match.end()
        if size >= 2**63:
            raise Refused("too large")
        if size == 0:
            break
        if not b"\r\n".startswith(data[at + size : at + size + 2]):
            raise Refused("terminator")
        if len(data) < at + size + 2:
            raise EOFError
        body += data[at : at + size]
        at += size + 2
    start = at
    end = re.compile(rb"\r\n").match(data, at) or re.compile(rb"\r\n\r\n").search(data, at)
    if end is None:
        raise EOFError
    fields, at = read_fields(data, at, 1000, trailers=True)
    if at - start > 8192:
        raise Refused("trailers")
    return body, fields, at
