"""A raw HTTP client: sends exactly the bytes it is told to, reads strictly."""

import contextlib
import json
import socket
import ssl
import struct
from collections.abc import Iterable, Sequence
from typing import Any, Self

from tests.harness.message import Closed, Reader, Response, read_response, read_response_head
from tests.harness.waiting import DEADLINE

Address = tuple[str, int] | str
Fields = Sequence[tuple[str, str]]


def connect(address: Address, timeout: float = DEADLINE, receive_buffer: int | None = None) -> socket.socket:
    """A TCP (either family) or Unix socket with a time limit on every operation."""
    if isinstance(address, str):
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    else:
        sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.settimeout(timeout)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def client_hello(name: str) -> bytes:
    """The first bytes of a TLS connection that asks for this name."""
    sent = ssl.MemoryBIO()
    connection = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


def request_head(method: str, target: str, fields: Fields, version: str = "HTTP/1.1") -> bytes:
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def chunked(pieces: Iterable[bytes], trailers: Fields = ()) -> bytes:
    parts = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces if piece]
    ending = "".join(f"{name}: {value}\r\n" for name, value in trailers).encode("latin-1")
    return b"".join(parts) + b"0\r\n" + ending + b"\r\n"


class RawClient:
    """One connection to an external port."""

    def __init__(
        self,
        address: Address,
        host: str = "test.example",
        timeout: float = DEADLINE,
        receive_buffer: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.host = host
        self.sock = connect(address, timeout, receive_buffer)
        if tls is not None:
            self.sock = tls.wrap_socket(self.sock, server_hostname=host)
        self.reader = Reader(self.sock)

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send_request(
        self, method: str = "GET", target: str = "/", fields: Fields = (), body: bytes | None = None
    ) -> None:
        """With Host (where `fields` has none) and Content-Length (where there is a body)."""
        names = {name.lower() for name, _ in fields}
        head = [] if "host" in names else [("Host", self.host)]
        head.extend(fields)
        if body is not None and "transfer-encoding" not in names and "content-length" not in names:
            head.append(("Content-Length", str(len(body))))
        self.send(request_head(method, target, head) + (body or b""))

    def read_head(self) -> Response:
        """One response head, interim or final; its body is left unread."""
        return read_response_head(self.reader)

    def read_response(self, method: str = "GET", keep: int = 1 << 27, digest: bool = False) -> Response:
        return read_response(self.reader, method, keep, digest)

    def request(
        self,
        method: str = "GET",
        target: str = "/",
        fields: Fields = (),
        body: bytes | None = None,
        digest: bool = False,
    ) -> Response:
        self.send_request(method, target, fields, body)
        return self.read_response(method, digest=digest)

    def read_to_end(self) -> bytes:
        """Everything until the peer closes; a reset counts as the end as well."""
        try:
            return self.reader.drain()
        except ConnectionResetError:
            return self.reader.buffered

    def expect_closed(self) -> None:
        """The peer closes and nothing more comes before."""
        rest = self.read_to_end()
        assert not rest, f"expected the end, got {rest[:200]!r}"

    def expect_silence(self, seconds: float = 0.1) -> None:
        """Nothing comes for a moment (only ever shows that something does come)."""
        self.sock.settimeout(seconds)
        try:
            data = self.reader.some()
        except TimeoutError:
            return
        finally:
            self.sock.settimeout(DEADLINE)
        raise AssertionError(f"expected nothing, got {data[:200]!r}" if data else "the connection was closed")

    def end_sending(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        reset(self.sock)

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def fetch(
    address: Address,
    target: str = "/",
    method: str = "GET",
    fields: Fields = (),
    body: bytes | None = None,
    host: str = "test.example",
    timeout: float = DEADLINE,
) -> Response:
    """One request on a connection of its own."""
    with RawClient(address, host, timeout) as client:
        return client.request(method, target, fields, body)


def try_fetch(
    address: Address, target: str = "/", host: str = "test.example", **more: Any
) -> Response | None:
    """The same where the port may be down: None then."""
    try:
        return fetch(address, target, host=host, **more)
    except (OSError, Closed):
        return None


def fetch_json(address: Address, target: str) -> Any:
    response = fetch(address, target, host=host_of(address))
    assert response.status == 200, f"{target}: {response.status} {response.body[:300]!r}"
    return json.loads(response.body)


def host_of(address: Address) -> str:
    if isinstance(address, str):
        return "localhost"
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
