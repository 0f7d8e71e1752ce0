"""Strict reading of HTTP/1.1 messages from a socket: what is not exactly right fails the test."""

import hashlib
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field

STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2}) ([\t \x21-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t \x21-\x7e\x80-\xff]*?)[ \t]*")


class Closed(Exception):
    """The peer closed in the middle of something; `data` is what had come of it."""

    def __init__(self, what: str, data: bytes = b"") -> None:
        super().__init__(f"closed while reading {what}; had {data[:200]!r}")
        self.data = data


class Headers:
    """Header fields in their order and spelling; look-up ignores case."""

    def __init__(self, fields: list[tuple[str, str]]) -> None:
        self.fields = fields

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.fields if key.lower() == name.lower()]

    def get(self, name: str, default: str | None = None) -> str | None:
        """The only value; more than one fails."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} appears {len(values)} times: {values}"
        return values[0] if values else default

    def __getitem__(self, name: str) -> str:
        value = self.get(name)
        assert value is not None, f"no {name} among {self.fields}"
        return value

    def __contains__(self, name: str) -> bool:
        return bool(self.all(name))

    def tokens(self, name: str) -> list[str]:
        return [
            token.strip().lower() for value in self.all(name) for token in value.split(",") if token.strip()
        ]

    def __repr__(self) -> str:
        return f"Headers({self.fields!r})"


@dataclass
class Head:
    """A start line with its fields; `raw` is exactly what came, the empty line included."""

    start: str
    headers: Headers
    raw: bytes

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    @property
    def version(self) -> str:
        return self.start.split(" ")[2]


@dataclass
class Response:
    status: int
    reason: str
    minor: int
    headers: Headers
    body: bytes = b""
    trailers: Headers = field(default_factory=lambda: Headers([]))
    framing: str = "none"  # none | length | chunked | close
    interim: list["Response"] = field(default_factory=list)
    size: int = 0  # of the body, also where it was not kept
    digest: str = ""  # sha256 of the body, where asked for

    @property
    def keeps_open(self) -> bool:
        """Whether the connection may carry another request, by what the response says."""
        tokens = self.headers.tokens("Connection")
        if self.framing == "close" or "close" in tokens:
            return False
        return self.minor == 1 or "keep-alive" in tokens


class Reader:
    """Buffered reading from a socket, with nothing lost and nothing read twice."""

    def __init__(self, sock: socket.socket, recorded: Callable[[bytes], None] | None = None) -> None:
        self.sock = sock
        self._recorded = recorded
        self._buffer = bytearray()

    @property
    def buffered(self) -> bytes:
        return bytes(self._buffer)

    def fill(self) -> bool:
        """One more receive; False at the end."""
        data = self.sock.recv(65536)
        if data and self._recorded:
            self._recorded(data)
        self._buffer += data
        return bool(data)

    def exactly(self, size: int, what: str = "bytes") -> bytes:
        while len(self._buffer) < size:
            if not self.fill():
                raise Closed(what, bytes(self._buffer))
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data

    def until(self, mark: bytes, what: str, limit: int = 1 << 21) -> bytes:
        """Bytes up to and including `mark`."""
        start = 0
        while (at := self._buffer.find(mark, start)) < 0:
            assert len(self._buffer) <= limit, f"{what} is longer than {limit}"
            start = max(0, len(self._buffer) - len(mark) + 1)
            if not self.fill():
                raise Closed(what, bytes(self._buffer))
        return self.exactly(at + len(mark))

    def some(self, limit: int = 65536) -> bytes:
        """At least one byte, at most `limit`; empty at the end."""
        if not self._buffer and not self.fill():
            return b""
        return self.exactly(min(limit, len(self._buffer)))

    def drain(self) -> bytes:
        """Everything until the end of the connection."""
        while self.fill():
            pass
        return self.exactly(len(self._buffer))

    def head(self, what: str = "a head") -> Head | None:
        """A head, or None where the connection ended cleanly before its first byte."""
        try:
            raw = self.until(b"\r\n\r\n", what)
        except Closed as closed:
            if closed.data:
                raise
            return None
        start, *lines = raw[:-4].split(b"\r\n")
        return Head(start.decode("latin-1"), parse_fields(lines), raw)

    def pieces(self, size: int) -> "Pieces":
        return Pieces(self, size)

    def chunks(self, sink: Callable[[bytes], None]) -> Headers:
        """A chunked body, strictly; returns the trailers."""
        while True:
            line = self.until(b"\r\n", "a chunk size")[:-2]
            assert re.fullmatch(rb"[0-9a-fA-F]{1,16}", line), f"bad chunk size {line!r}"
            size = int(line, 16)
            if size == 0:
                break
            for piece in self.pieces(size):
                sink(piece)
            ending = self.exactly(2, "the end of a chunk")
            assert ending == b"\r\n", f"chunk ends with {ending!r}"
        lines = []
        while line := self.until(b"\r\n", "trailers")[:-2]:
            lines.append(line)
        return parse_fields(lines)


class Pieces:
    """`size` bytes in the portions in which they come."""

    def __init__(self, reader: Reader, size: int) -> None:
        self._reader, self._left = reader, size

    def __iter__(self) -> "Pieces":
        return self

    def __next__(self) -> bytes:
        if not self._left:
            raise StopIteration
        piece = self._reader.some(min(self._left, 1 << 20))
        if not piece:
            raise Closed(f"a body, {self._left} bytes short")
        self._left -= len(piece)
        return piece


def parse_fields(lines: list[bytes]) -> Headers:
    fields = []
    for line in lines:
        match = FIELD_LINE.fullmatch(line)
        assert match, f"bad header line {line!r}"
        fields.append((match[1].decode(), match[2].decode("latin-1")))
    return Headers(fields)


class Body:
    """Takes body bytes: keeps them up to a limit, hashes and counts them all."""

    def __init__(self, keep: int = 1 << 27, digest: bool = False) -> None:
        self.size = 0
        self._keep = keep
        self._parts: list[bytes] = []
        self._hash = hashlib.sha256() if digest else None

    def __call__(self, piece: bytes) -> None:
        if self.size < self._keep:
            self._parts.append(piece[: self._keep - self.size])
        self.size += len(piece)
        if self._hash:
            self._hash.update(piece)

    @property
    def data(self) -> bytes:
        return b"".join(self._parts)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest() if self._hash else ""


def read_response(reader: Reader, method: str = "GET", keep: int = 1 << 27, digest: bool = False) -> Response:
    """One final response with the interim ones before it; strict in syntax and framing."""
    interim: list[Response] = []
    while True:
        response = read_response_head(reader)
        if response.status >= 200 or response.status == 101:
            break
        interim.append(response)
    response.interim = interim
    read_body(reader, response, method, keep, digest)
    return response


def read_response_head(reader: Reader) -> Response:
    head = reader.head("a response head")
    if head is None:
        raise Closed("a response: nothing came")
    match = STATUS_LINE.fullmatch(head.start.encode("latin-1"))
    assert match, f"bad status line {head.start!r}"
    return Response(int(match[2]), match[3].decode("latin-1"), int(match[1]), head.headers)


def read_body(reader: Reader, response: Response, method: str, keep: int, digest: bool) -> None:
    headers = response.headers
    codings, lengths = headers.tokens("Transfer-Encoding"), headers.all("Content-Length")
    body = Body(keep, digest)
    if response.status < 200 or response.status in (204, 304) or method == "HEAD":
        assert response.status != 204 or not (codings or lengths), f"204 with framing fields: {headers}"
        return
    if codings:
        assert codings == ["chunked"] and not lengths, f"ambiguous framing: {headers}"
        response.framing = "chunked"
        response.trailers = reader.chunks(body)
    elif lengths:
        assert len(lengths) == 1 and re.fullmatch("[0-9]+", lengths[0]), f"bad Content-Length: {lengths}"
        response.framing = "length"
        for piece in reader.pieces(int(lengths[0])):
            body(piece)
    else:
        response.framing = "close"
        while piece := reader.some(1 << 20):
            body(piece)
    response.body, response.size, response.digest = body.data, body.size, body.digest
