"""Finds the end of HTTP/1.1 responses to GET requests, which is all that a load generator must know."""

from __future__ import annotations

HEAD_END = b"\r\n\r\n"
UNTIL_CLOSE = -1


class BadResponse(Exception):
    """What arrived is no HTTP/1.1 response."""


class ResponseReader:
    """One response at a time: feed it what arrives until it gives the status; then the next one may begin.

    The body is counted, not kept. A response whose end is the end of the connection never completes here.
    """

    def __init__(self) -> None:
        self._head = b""
        self._left = 0  # of the body, UNTIL_CLOSE where nobody says how much
        self._status = 0  # 0: the head is not complete yet
        self._chunks: ChunkReader | None = None
        self.keep_alive = True

    def feed(self, data: bytes) -> int:
        """The status of the response that is complete with these bytes, or 0 while it is not."""
        if not self._status:
            head = self._head + data if self._head else data
            end = head.find(HEAD_END)
            if end < 0:
                self._head = head
                return 0
            self._head = b""
            self._read_head(head[: end + 2])
            if self._status < 200:  # an interim response: the real one follows
                self._status = 0
                return self.feed(head[end + 4 :])
            data = head[end + 4 :]
        return self._read_body(data)

    def _read_head(self, head: bytes) -> None:
        try:
            self._status = int(head[9:12])
        except ValueError:
            raise BadResponse("the status line is malformed") from None
        lower = head.lower()
        self.keep_alive = b"\r\nconnection: close\r\n" not in lower
        self._chunks = None
        if self._status in (204, 304):
            self._left = 0
            return
        if b"\r\ntransfer-encoding:" in lower:
            self._chunks = ChunkReader()
            return
        self._left = _content_length(lower)

    def _read_body(self, data: bytes) -> int:
        if self._chunks is not None:
            if not self._chunks.feed(data):
                return 0
        elif self._left == UNTIL_CLOSE:
            return 0
        else:
            if len(data) > self._left:
                raise BadResponse("there is more than the announced body")
            self._left -= len(data)
            if self._left:
                return 0
        status, self._status = self._status, 0
        return status


class ChunkReader:
    """Finds the end of a chunked body."""

    def __init__(self) -> None:
        self._line = b""  # the beginning of a line whose end has not arrived
        self._left = 0  # bytes of the chunk and its line end still to come
        self._last = False  # the chunk of size 0 was seen: only trailers follow

    def feed(self, data: bytes) -> bool:
        """Whether the body is complete with these bytes."""
        while data:
            if self._left:
                taken = min(self._left, len(data))
                self._left -= taken
                data = data[taken:]
                continue
            end = data.find(b"\n")
            if end < 0:
                self._line += data
                return False
            line, data = (self._line + data[:end]).strip(), data[end + 1 :]
            self._line = b""
            if self._end_of_line(line):
                return True
        return False

    def _end_of_line(self, line: bytes) -> bool:
        if self._last:
            return not line
        try:
            size = int(line.partition(b";")[0], 16)
        except ValueError:
            raise BadResponse("a chunk has no size") from None
        self._last = size == 0
        self._left = size + 2 if size else 0
        return False


def _content_length(head: bytes) -> int:
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return UNTIL_CLOSE
    try:
        return int(head[start + 17 : head.index(b"\r\n", start + 2)])
    except ValueError:
        raise BadResponse("the length of the body is malformed") from None
