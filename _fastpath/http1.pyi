"""HTTP/1.x heads, for the registration handshake and for tests. Connections use what http1.pxd declares."""

from typing import Literal, final

class HeadError(Exception):
    """A head was refused."""

    code: int
    """The scanner's code, negative (ScanError in http1.pxd)."""
    status: int
    """What a client gets: 400, 414, 431, 501 or 505."""
    reason: str
    """Why, for people."""
    def __init__(self, code: int, reason: str) -> None: ...

class ParsedHead:
    """A head that was accepted.

    Of a request: method, target, path, path_and_query, host; of a response: status, phrase.
    """

    method: bytes
    target: bytes
    path: bytes
    path_and_query: bytes
    host: bytes
    phrase: bytes
    status: int
    size: int
    """Bytes of the head, the empty line included."""
    minor: int
    headers: list[tuple[bytes, bytes]]
    hop: list[bool]
    """For each field, whether it stays on its hop."""
    known: list[int]
    """For each field, its FieldName (http1.pxd)."""
    framing: Literal["none", "length", "chunked", "close"]
    content_length: int | None
    keep_alive: bool
    upgrade: bool
    expect_continue: bool
    idempotent: bool
    absolute_form: bool

@final
class HeadScanner:
    """Scans growing prefixes of one head, as a connection does."""

    def __new__(
        cls,
        kind: Literal["request", "response"] = "request",
        *,
        head_limit: int = 65536,
        header_limit: int = 100,
        uri_limit: int | None = None,
        method: bytes = b"GET",
    ) -> HeadScanner: ...
    def scan(self, data: bytes) -> ParsedHead | None:
        """Return the parsed head, or None where `data` is only the beginning of one. Raises HeadError."""
    def bench(self, data: bytes, rounds: int) -> int:
        """Scan one head again and again: what a scan costs without Python. Returns the last result."""

def parse_request(data: bytes, head_limit: int, header_limit: int) -> ParsedHead | None:
    """Parse a request's head; None where more bytes are needed. Raises HeadError."""

def parse_response(
    data: bytes, head_limit: int, header_limit: int, method: bytes = b"GET"
) -> ParsedHead | None:
    """Parse the head of a response to `method`; None where more bytes are needed. Raises HeadError."""

def byte_classes() -> list[int]:
    """The table of character classes (grammar.pxd), for tests."""

def known_field(name: bytes) -> int:
    """The FieldName of a name, for tests."""
