"""A raw recording origin: every byte it receives is kept per connection, every byte it sends is scripted."""

import contextlib
import hashlib
import json
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any, Self

from tests.harness.client import reset
from tests.harness.message import Body, Closed, Head, Headers, Reader
from tests.harness.waiting import DEADLINE

RECORD = 1 << 22  # bytes kept per connection; all are counted


class Connection:
    """One accepted connection, as a script sees it."""

    def __init__(self, origin: "Origin", sock: socket.socket, number: int) -> None:
        self.origin = origin
        self.number = number
        self.sock = sock
        self.received = bytearray()
        self.received_size = 0
        self.requests: list[Head] = []
        self.ended = threading.Event()  # the thread is done with it
        self.reader = Reader(sock, self._record)

    def _record(self, data: bytes) -> None:
        if self.received_size < RECORD:
            self.received += data
        self.received_size += len(data)

    # --- for scripts ------------------------------------------------------

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def wait(self, event: threading.Event, what: str = "an event of the test") -> None:
        if not event.wait(DEADLINE):
            raise AssertionError(f"the origin waited in vain for {what}")

    def read_head(self) -> Head | None:
        head = self.reader.head("a request head")
        if head is not None:
            self.requests.append(head)
        return head

    def read_body(self, head: Head, keep: int = 1 << 27, digest: bool = False) -> tuple[Body, Headers]:
        """The body as the head frames it, and the trailers."""
        body = Body(keep, digest)
        if "Transfer-Encoding" in head.headers:
            assert head.headers.tokens("Transfer-Encoding") == ["chunked"], f"coding: {head.headers}"
            assert "Content-Length" not in head.headers, f"ambiguous framing forwarded: {head.headers}"
            return body, self.reader.chunks(body)
        for piece in self.reader.pieces(int(head.headers.get("Content-Length") or 0)):
            body(piece)
        return body, Headers([])

    def answer(
        self,
        status: int = 200,
        body: bytes = b"",
        fields: list[tuple[str, str]] | None = None,
        reason: str = "OK",
        pause: float = 0.0,
    ) -> None:
        """Send a whole response; with a pause (seconds) in the middle of its body."""
        lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in fields or [])]
        if status not in (204, 304) and not any(n.lower() == "content-length" for n, _ in fields or []):
            lines.append(f"Content-Length: {len(body)}")
        first = len(body) // 2 if pause else len(body)
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + body[:first])
        if pause:
            time.sleep(pause)
            self.send(body[first:])

    def reset(self) -> None:
        """Cut it with RST."""
        reset(self.sock)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()


# Plays one request; what it returns false-like goes on with keep-alive, True ends the connection.
Script = Callable[[Connection, Head], Any]


def echo(connection: Connection, head: Head) -> None:
    """The default script: says as JSON what it was asked, with the body's hash.

    `Test-Pause`: seconds to wait in the middle of it.
    """
    body, trailers = connection.read_body(head, keep=0, digest=True)
    seen = {
        "origin": connection.origin.name,
        "connection": connection.number,
        "start": head.start,
        "fields": head.headers.fields,
        "size": body.size,
        "sha256": body.digest,
        "trailers": trailers.fields,
    }
    answer = json.dumps(seen).encode()
    connection.answer(
        200,
        b"" if head.method == "HEAD" else answer,
        [("Content-Type", "application/json")]
        + ([("Content-Length", str(len(answer)))] if head.method == "HEAD" else []),
        pause=float(head.headers.get("Test-Pause") or 0),
    )


class Origin:
    """A threaded server on loopback TCP, on IPv6, or on a Unix socket."""

    def __init__(
        self,
        name: str = "origin",
        family: str = "tcp",
        path: str | None = None,
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.name = name
        self.connections: list[Connection] = []
        self.default: Script = echo
        self.raw: Callable[[Connection], Any] | None = None  # plays whole connections (not HTTP)
        self._scripts: dict[str, Script] = {}
        self._errors: list[Exception] = []
        self._lock = threading.Lock()
        if family == "unix":
            self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._listener.bind(path or "")
        else:
            self._listener = socket.socket(socket.AF_INET6 if family == "tcp6" else socket.AF_INET)
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("::1" if family == "tcp6" else "127.0.0.1", port))
        self._family, self._path, self.tls = family, path, tls
        self.handshake_errors: list[str] = []
        self._listener.listen(1024)
        self._closing = False
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def address(self) -> tuple[str, int] | str:
        if self._family == "unix":
            return self._path or ""
        host, port = self._listener.getsockname()[:2]
        return host, port

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        """As an upstream in a configuration."""
        if self._family == "unix":
            return f"unix:{self._path}"
        if self.tls is not None:
            return f"https://localhost:{self.port}"
        return f"http://[::1]:{self.port}" if self._family == "tcp6" else f"http://127.0.0.1:{self.port}"

    @property
    def tcp_url(self) -> str:
        return self.url.replace("http://", "tcp://")

    def on(self, target: str, script: Script) -> str:
        """Play `script` for this exact target (query excluded); returns the target."""
        self._scripts[target] = script
        return target

    # --- what was received ------------------------------------------------

    @property
    def requests(self) -> list[Head]:
        return [head for connection in list(self.connections) for head in connection.requests]

    def requests_for(self, target: str) -> list[Head]:
        return [head for head in self.requests if head.target.partition("?")[0] == target]

    def received(self, mark: bytes) -> bool:
        """Whether these bytes arrived on any connection."""
        return any(mark in connection.received for connection in list(self.connections))

    @property
    def open_connections(self) -> int:
        return sum(not connection.ended.is_set() for connection in list(self.connections))

    def raise_errors(self) -> None:
        """Failures of scripts (a bad request reached the origin) fail the test."""
        with self._lock:
            errors, self._errors = self._errors, []
        if errors:
            raise errors[0]

    # --- the server -------------------------------------------------------

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            if self._family != "unix":
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.tls is not None:
                threading.Thread(target=self._secure, args=(sock,), daemon=True).start()
            else:
                self._begin(sock)

    def _secure(self, sock: socket.socket) -> None:
        assert self.tls is not None
        try:
            self._begin(self.tls.wrap_socket(sock, server_side=True))
        except OSError as error:
            self.handshake_errors.append(str(error))
            sock.close()

    def _begin(self, sock: socket.socket) -> None:
        connection = Connection(self, sock, len(self.connections))
        self.connections.append(connection)
        threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            if self.raw is not None:
                self.raw(connection)
            else:
                while (head := connection.read_head()) is not None:
                    script = self._scripts.get(head.target.partition("?")[0], self.default)
                    if script(connection, head):
                        break
        except (OSError, Closed):
            pass  # the other side left: what came is recorded
        except Exception as error:
            with self._lock:
                self._errors.append(error)
        finally:
            connection.close()
            connection.ended.set()

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in list(self.connections):
            connection.close()
        if self._family == "unix" and self._path:
            with contextlib.suppress(OSError):
                os.unlink(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close()
        if kind is None:
            self.raise_errors()


def refused_port() -> socket.socket:
    """A bound socket that does not listen: connecting to its port is refused, and nobody else can take it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that differ at every place and for every seed, cheap to make."""
    block = b"".join(hashlib.sha256(b"%d:%d" % (seed, i)).digest() for i in range(32))
    return (block * (size // len(block) + 1))[:size]


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
