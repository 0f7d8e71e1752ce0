"""Messages with descriptors between processes of one node, over a Unix stream socket.

    u32 size of the JSON, u32 size of the blob, u16 descriptors | JSON object | blob

Descriptors travel beside the first byte of their message (SCM_RIGHTS), so they come in the order of the
messages. A message with an `id` is a question; its answer has the same number as `re`. Both ends run as the
same user on the same machine, yet sizes are checked before memory is taken.
"""

from __future__ import annotations

import array
import asyncio
import itertools
import json
import os
import select
import socket
import struct
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, TypeAlias

Message: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[[Message, list[socket.socket], bytes], None]

HEADER = struct.Struct(">IIH")
MAX_JSON = 256 << 20
MAX_BLOB = 256 << 20
MAX_SOCKETS = 200  # of one message; the kernel's limit is 253
READ_SIZE = 262144
DESCRIPTOR = array.array("i").itemsize


class ChannelLost(Exception):
    """The other process has gone, or does not answer."""


class Channel:
    """One end. `on_message` gets what is no answer, `on_end` is called once, when the other end has gone.

    `sock` is one end of a socket pair; it belongs to the Channel from now on.
    """

    def __init__(self, sock: socket.socket, on_message: Handler, on_end: Callable[[], None]) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._on_message = on_message
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[tuple[Message, bytes]]] = {}
        self._out: deque[tuple[bytes, list[socket.socket]]] = deque()
        self._in = bytearray()
        self._descriptors: deque[int] = deque()
        self._open = True
        # An epoll between the loop and the socket: libuv stops watching a socket that has an error (the other
        # process was killed before it had read everything) and says nothing.
        self._epoll = select.epoll()
        self._epoll.register(sock, select.EPOLLIN)
        self._loop.add_reader(self._epoll.fileno(), self._on_event)

    @property
    def open(self) -> bool:
        return self._open

    def send(self, message: Message, sockets: Sequence[socket.socket] = (), blob: bytes = b"") -> None:
        """Queue it; nothing happens where the other end has gone. Sockets are copied: yours stay yours."""
        if not self._open:
            return
        assert len(sockets) <= MAX_SOCKETS
        data = json.dumps(message).encode()
        frame = HEADER.pack(len(data), len(blob), len(sockets)) + data + blob
        self._out.append((frame, [sock.dup() for sock in sockets]))
        if len(self._out) == 1:
            self._flush()

    async def ask(
        self,
        message: Message,
        sockets: Sequence[socket.socket] = (),
        blob: bytes = b"",
        timeout_s: float = 30.0,
    ) -> tuple[Message, bytes]:
        """The answer. ChannelLost where there is none in time, or will be none."""
        if not self._open:
            raise ChannelLost("the process has ended")
        number = next(self._numbers)
        future: asyncio.Future[tuple[Message, bytes]] = self._loop.create_future()
        self._asked[number] = future
        self.send({**message, "id": number}, sockets, blob)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise ChannelLost(f"the process did not answer within {timeout_s:.0f} s") from None
        finally:
            self._asked.pop(number, None)

    def answer(self, question: Message, message: Message, blob: bytes = b"") -> None:
        self.send({**message, "re": question["id"]}, blob=blob)

    def close(self) -> None:
        """Say no more; what was queued and not sent is lost. `on_end` is not called."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._sock.close()
            for _, sockets in self._out:
                _close(sockets)
            self._out.clear()
            for fd in self._descriptors:
                os.close(fd)
            self._descriptors.clear()
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ChannelLost("the process has ended"))

    async def flushed(self, timeout_s: float) -> None:
        """Until all that was said has been written, or nobody reads it."""
        deadline = self._loop.time() + timeout_s
        while self._out and self._open and self._loop.time() < deadline:
            await asyncio.sleep(0.01)

    # --- out ------------------------------------------------------------------------------------

    def _flush(self) -> None:
        while self._out and self._open:
            frame, sockets = self._out[0]
            try:
                sent = socket.send_fds(self._sock, [frame], [sock.fileno() for sock in sockets])
            except BlockingIOError:
                self._epoll.modify(self._sock, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self._end()
                return
            _close(sockets)
            if sent == len(frame):
                self._out.popleft()
            else:
                self._out[0] = (frame[sent:], [])
        if self._open:
            self._epoll.modify(self._sock, select.EPOLLIN)

    # --- in -------------------------------------------------------------------------------------

    def _on_event(self) -> None:
        for _, events in self._epoll.poll(0):
            if events & select.EPOLLOUT:
                self._flush()
            if self._open and events & ~select.EPOLLOUT:
                self._read()

    def _read(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                READ_SIZE, socket.CMSG_SPACE(MAX_SOCKETS * DESCRIPTOR), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary, flags = b"", [], 0
        for level, kind, payload in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found = array.array("i")
                found.frombytes(payload[: len(payload) - len(payload) % DESCRIPTOR])
                self._descriptors.extend(found)
        if not data or flags & socket.MSG_CTRUNC:
            self._end()
            return
        self._in += data
        while self._open and self._take_one():
            pass

    def _take_one(self) -> bool:
        if len(self._in) < HEADER.size:
            return False
        json_size, blob_size, count = HEADER.unpack_from(self._in)
        if json_size > MAX_JSON or blob_size > MAX_BLOB or count > MAX_SOCKETS:
            self._end()
            return False
        start, end = HEADER.size + json_size, HEADER.size + json_size + blob_size
        if len(self._in) < end:
            return False
        message = json.loads(self._in[HEADER.size : start])
        blob = bytes(self._in[start:end])
        del self._in[:end]
        sockets = [socket.socket(fileno=self._descriptors.popleft()) for _ in range(count)]
        future = self._asked.get(message["re"]) if "re" in message else None
        if "re" not in message:
            self._on_message(message, sockets, blob)
        elif future is not None and not future.done():
            future.set_result((message, blob))
        return True

    def _end(self) -> None:
        if self._open:
            self.close()
            self._on_end()


def _close(sockets: list[socket.socket]) -> None:
    for sock in sockets:
        with suppress(OSError):
            sock.close()
    sockets.clear()


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
