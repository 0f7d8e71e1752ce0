"""A slow multiplexer in plain Python, written from docs/protocol.md alone.

It stands beside one side of a tunnel, sees the bytes that this side sends and receives, and knows what the
streams of this side must have been given. It also refuses to let this side send what the protocol forbids.
Nothing in it is shared with the compiled one, not even constants.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

OPEN, REPLY, DATA, TRAILERS, WINDOW, RESET, PING, GOAWAY, CONTROL = range(1, 10)
END, INTERIM, ACK = 1, 2, 4
HTTP, TCP = 1, 2
ACCEPTOR = 0x8000_0000


class Forbidden(AssertionError):
    """The side that is watched broke the protocol."""


@dataclass
class Half:
    """One direction of a stream."""

    head: bool = False
    ended: bool = False
    credit: int = 0


@dataclass
class Watched:
    """One stream, as this side must see it."""

    id: int
    kind: int
    ours: Half
    theirs: Half
    heard: list[tuple[object, ...]] = field(default_factory=list)
    deaf: bool = False

    def hear(self, *what: object) -> None:
        """Body bytes join those before; what is empty says nothing."""
        if self.deaf:
            return
        if what[0] == "body":
            if not what[1]:
                return
            if self.heard and self.heard[-1][0] == "body":
                what = ("body", self.heard.pop()[1] + what[1])  # type: ignore[operator]
        self.heard.append(what)


def frames(buffer: bytearray) -> list[tuple[int, int, int, bytes]]:
    """Cut whole frames off the buffer: (type, flags, stream, payload)."""
    found = []
    while len(buffer) >= 12:
        length, kind, flags, reserved, stream = struct.unpack(">IBBHI", buffer[:12])
        if reserved:
            raise Forbidden("reserved bits are set")
        if len(buffer) < 12 + length:
            break
        found.append((kind, flags, stream, bytes(buffer[12 : 12 + length])))
        del buffer[: 12 + length]
    return found


class OracleMux:
    """Watches one side."""

    def __init__(
        self, *, dialled: bool, local_window: int, peer_window: int, local_streams: int, peer_streams: int
    ) -> None:
        self.bit = 0 if dialled else ACCEPTOR
        self.windows = {"ours": peer_window, "theirs": local_window}
        self.limits = {"ours": peer_streams, "theirs": local_streams}
        self.streams: dict[int, Watched] = {}
        self.past: dict[int, Watched] = {}
        self.crossing: set[int] = set()
        self.generations: dict[int, int] = {}
        self.outgoing = bytearray()
        self.incoming = bytearray()
        self.pings: list[bytes] = []
        self.answered = bytes(8)
        self.control: list[bytes] = []
        self.closed_by_peer = False

    # --- what this side does -------------------------------------------------

    def sent(self, data: bytes) -> None:
        """These bytes left this side: check each frame."""
        self.outgoing += data
        for kind, flags, stream, payload in frames(self.outgoing):
            self.check_sent(kind, flags, stream, payload)

    def check_sent(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind in (PING, GOAWAY, CONTROL):
            if stream:
                raise Forbidden("a frame of the tunnel names a stream")
            if kind == PING and flags & ACK:
                if payload in self.pings:
                    self.answered = payload
                    self.pings.clear()
                elif payload != self.answered:  # the last answer again is a sign of life, and answers nothing
                    raise Forbidden("a PING is answered that was not asked")
            return
        if kind == OPEN:
            self.check_open(flags, stream, payload)
            return
        watched = self.streams.get(stream)
        if watched is None:
            if stream in self.crossing or (kind in (RESET, WINDOW) and stream in self.past):
                return  # the other side ended it while this was on its way out
            raise Forbidden(f"frame {kind} of stream {stream:#x}, which is not open")
        if kind == WINDOW:
            (credit,) = struct.unpack(">I", payload)
            watched.theirs.credit += credit
            if credit == 0 or watched.theirs.credit > 0x7FFF_FFFF:
                raise Forbidden("an impossible grant")
        elif kind == RESET:
            self.end(watched)
        else:
            self.check_message(watched, kind, flags, payload)

    def check_open(self, flags: int, stream: int, payload: bytes) -> None:
        kind, zero, meta, head = struct.unpack(">BBHI", payload[:8])
        if zero or stream & ACCEPTOR != self.bit or kind not in (HTTP, TCP) or meta + head > len(payload) - 8:
            raise Forbidden("a malformed OPEN")
        self.take_slot(stream, "ours")
        watched = Watched(
            stream, kind, Half(True, False, self.windows["ours"]), Half(False, False, self.windows["theirs"])
        )
        self.streams[stream] = watched
        self.spend(watched.ours, len(payload) - 8 - meta - head)
        self.direction(watched, watched.ours, flags)

    def check_message(self, watched: Watched, kind: int, flags: int, payload: bytes) -> None:
        half = watched.ours
        if half.ended:
            raise Forbidden("a frame after the end of its direction")
        size = 0
        if kind == REPLY:
            if half.head or watched.id & ACCEPTOR == self.bit:
                raise Forbidden("REPLY out of place")
            (head,) = struct.unpack(">I", payload[:4])
            size = len(payload) - 4 - head
            if size < 0 or (flags & INTERIM and (size or flags & END)):
                raise Forbidden("a malformed REPLY")
            half.head = not flags & INTERIM
        elif kind == DATA:
            size = len(payload)
            if (not half.head and watched.kind != TCP) or (not size and not flags & END) or size > 65536:
                raise Forbidden("DATA out of place")
            half.head = True
        elif kind != TRAILERS or not half.head:
            raise Forbidden(f"frame {kind} out of place")
        self.spend(half, size)
        self.direction(watched, half, END if kind == TRAILERS else flags)

    def spend(self, half: Half, size: int) -> None:
        half.credit -= size
        if half.credit < 0:
            raise Forbidden("more bytes than credit")

    def direction(self, watched: Watched, half: Half, flags: int) -> None:
        if flags & END:
            half.ended = True
        if watched.ours.ended and watched.theirs.ended:
            self.end(watched)

    def end(self, watched: Watched) -> None:
        self.past[watched.id] = self.streams.pop(watched.id)

    def take_slot(self, stream: int, who: str) -> None:
        bit = stream & ACCEPTOR
        if sum(other.id & ACCEPTOR == bit for other in self.streams.values()) >= self.limits[who]:
            raise Forbidden("more streams than announced")
        slot, generation = stream & 0x8000_FFFF, stream >> 16 & 0x7FFF
        if generation != self.generations.get(slot, 0) % 32767 + 1 or stream & 0xFFFF >= self.limits[who]:
            raise Forbidden("not the next generation of its slot")
        self.generations[slot] = generation

    def reset_here(self, stream: int) -> None:
        """This side gave the stream up: what comes for it is ignored from now on."""
        watched = self.streams.get(stream)
        if watched is not None:
            watched.deaf = True

    # --- what this side is given ---------------------------------------------

    def received(self, data: bytes) -> None:
        """These bytes came from the other side, which is trusted to be watched, too."""
        self.incoming += data
        for kind, flags, stream, payload in frames(self.incoming):
            if kind == PING:
                if not flags & ACK:
                    self.pings.append(payload)
            elif kind == CONTROL:
                self.control.append(payload)
            elif kind == GOAWAY:
                self.closed_by_peer = True
            elif kind == OPEN:
                self.accept(flags, stream, payload)
            elif stream in self.streams:
                self.hear(self.streams[stream], kind, flags, payload)

    def accept(self, flags: int, stream: int, payload: bytes) -> None:
        kind, _, meta, head = struct.unpack(">BBHI", payload[:8])
        self.take_slot(stream, "theirs")
        ours, theirs = Half(False, False, self.windows["ours"]), Half(True, False, self.windows["theirs"])
        watched = Watched(stream, kind, ours, theirs)
        self.streams[stream] = watched
        body = payload[8 + meta + head :]
        watched.hear("head", payload[8 + meta : 8 + meta + head])
        watched.hear("body", body)
        self.spend(theirs, len(body))
        if flags & END:
            watched.hear("end", b"")
        self.direction(watched, theirs, flags)

    def hear(self, watched: Watched, kind: int, flags: int, payload: bytes) -> None:
        half = watched.theirs
        if kind == WINDOW:
            watched.ours.credit += struct.unpack(">I", payload)[0]
            return
        if kind == RESET:
            code, delivery = struct.unpack(">HB", payload[:3])
            if watched.id & ACCEPTOR == self.bit and watched.heard:
                delivery = 2  # there was an answer: the request was sent, whatever the other side says now
            watched.hear("reset", code, delivery, payload[4:])
            self.crossing.add(watched.id)
            self.end(watched)
            return
        if kind == REPLY:
            (head,) = struct.unpack(">I", payload[:4])
            watched.hear("interim" if flags & INTERIM else "head", payload[4 : 4 + head])
            payload = payload[4 + head :]
        if kind == TRAILERS:
            watched.hear("end", payload)
        else:
            self.spend(half, len(payload))
            watched.hear("body", payload)
            if flags & END:
                watched.hear("end", b"")
        self.direction(watched, half, END if kind == TRAILERS else flags)
