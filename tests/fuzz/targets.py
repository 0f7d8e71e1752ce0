"""What the fuzzer calls: bytes from outside, and what must hold whatever they are.

A target returns, or raises what is then a finding. `scripts/fuzz` runs them under libFuzzer on a build with
sanitizers; test_corpus.py replays what was found on every build.
"""

from __future__ import annotations

import base64
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress

from _fastpath.chunked import ChunkedError, ChunkedReader, are_canonical
from _fastpath.events import EventSession, EventStream, promised
from _fastpath.forward import rewrite_reply, rewrite_request, rewrite_response
from _fastpath.hello import read_hello
from _fastpath.http1 import HeadError, HeadScanner, ParsedHead
from _fastpath.memory import memory_usage
from _fastpath.meta import understand_meta
from _fastpath.networks import Networks
from _fastpath.proxy import make_proxy, read_proxy
from _fastpath.websocket import frame_boundaries
from broker.tunnel.handshake import Refusal, read_answer, read_registration, refusal_bytes
from broker.tunnel.messages import read_control
from tests import http1_oracle as oracle

Target = Callable[[bytes], None]
ANYBODY = Networks(["0.0.0.0/0", "::/0"])


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


# --- heads -----------------------------------------------------------------------------------------------


def scan(scanner: HeadScanner, data: bytes, step: int = 0) -> ParsedHead | str | None:
    """The head, why it is refused, or None; `step`: in growing prefixes."""
    found: ParsedHead | None = None
    try:
        for size in range(step, len(data), step) if step else ():
            found = scanner.scan(data[:size])
            if found is not None:
                return found
        return scanner.scan(data)
    except HeadError as error:
        return error.reason


def same(one: ParsedHead | str | None, other: ParsedHead | str | None) -> bool:
    if isinstance(one, ParsedHead) and isinstance(other, ParsedHead):
        return vars(one) == vars(other)
    return one == other


def request(data: bytes) -> None:
    """One answer in any segments, the oracle's; what crosses is canonical, and means the same."""
    head = scan(HeadScanner("request"), data)
    for step in (1, 7):
        assert same(head, scan(HeadScanner("request"), data, step)), "segments change the answer"
    try:
        expected = oracle.read_request(data)
    except oracle.Refused:
        assert not isinstance(head, ParsedHead), "the oracle refuses what was accepted"
        return
    if len(data) > 60000:
        return  # the oracle knows no limits
    assert isinstance(head, ParsedHead), f"the oracle accepts what was refused: {head}"
    assert (head.size, head.framing, head.host) == (expected.size, expected.framing, expected.host)
    check_canonical(data[: head.size], head)


def check_canonical(data: bytes, head: ParsedHead) -> None:
    crossed = rewrite_request(data, address=b"192.0.2.1", scheme=b"http", via=b"x")
    assert crossed is not None
    again = HeadScanner("request", head_limit=1 << 20, header_limit=1000).scan(crossed)
    assert again is not None and again.size == len(crossed)
    assert (again.method, again.path, again.framing) == (head.method, head.path, head.framing)
    assert again.content_length == head.content_length
    for (name, _), hop in zip(again.headers, again.hop, strict=True):
        assert not hop or name.lower() == b"transfer-encoding", name
    hosts = [value for name, value in again.headers if name.lower() == b"host"]
    assert len(hosts) == (1 if head.host else 0)
    assert rewrite_request(crossed) is not None
    # What a trusted proxy says crosses; it is a head that is read in one way all the same.
    told = rewrite_request(
        data, address=b"192.0.2.1", scheme=b"http", via=b"x", proxies=ANYBODY, upgrade=True, new_id=b"0" * 32
    )
    assert told is not None
    again = HeadScanner("request", head_limit=1 << 20, header_limit=1000).scan(told)
    assert again is not None and again.size == len(told)
    assert head.absolute_form or again.host == head.host


def response(data: bytes) -> None:
    method = b"HEAD" if data[:1] == b"\x01" else b"GET"
    data = data[1:]
    head = scan(HeadScanner("response", method=method), data)
    for step in (1, 7):
        assert same(head, scan(HeadScanner("response", method=method), data, step)), (
            "segments change the answer"
        )
    try:
        expected = oracle.read_response(data, method)
    except oracle.Refused:
        assert not isinstance(head, ParsedHead), "the oracle refuses what was accepted"
        return
    if len(data) > 60000:
        return
    assert isinstance(head, ParsedHead), f"the oracle accepts what was refused: {head}"
    assert (head.size, head.status, head.framing) == (expected.size, expected.status, expected.framing)
    if head.status == 101:
        return
    crossed = rewrite_response(data[: head.size], method=method)
    assert crossed is not None
    again = HeadScanner("response", head_limit=1 << 20, header_limit=1000, method=method).scan(crossed)
    assert again is not None and again.size == len(crossed)
    for (name, _), hop in zip(again.headers, again.hop, strict=True):
        assert not hop or name.lower() == b"transfer-encoding", name
    reply = rewrite_reply(crossed, method=method, via=b"x")
    assert (
        reply is not None
        and HeadScanner("response", head_limit=1 << 20, header_limit=1000, method=method).scan(reply)
        is not None
    )


# --- bodies ----------------------------------------------------------------------------------------------


def decode(parts: Iterator[bytes]) -> tuple[bytes, bytes, bytes, bool] | str:
    reader = ChunkedReader()
    body = b""
    try:
        for part in parts:
            body += reader.feed(part)
    except ChunkedError as error:
        return str(error)
    return body, reader.trailers, reader.unused, reader.done


def chunked(data: bytes) -> None:
    """One answer in any segments, the oracle's; the trailers that are left are canonical."""
    whole = decode(iter([data]))
    for size in (1, 3, 7):
        assert decode(pieces(data, size)) == whole, "segments change the answer"
    try:
        body, _, size = oracle.read_chunked(data)
    except oracle.Refused:
        assert isinstance(whole, str), "the oracle refuses what was accepted"
    except EOFError:
        assert isinstance(whole, str) or not whole[3], "the oracle waits for more"
    else:
        assert not isinstance(whole, str), f"the oracle accepts what was refused: {whole}"
        assert whole[0] == body and whole[2] == data[size:] and whole[3]
    if not isinstance(whole, str):
        assert are_canonical(whole[1]) or not whole[3]


def trailers(data: bytes) -> None:
    """What another node calls trailers: where they pass, a strict reader finds them and nothing behind."""
    if not are_canonical(data):
        return
    body, fields, size = oracle.read_chunked(b"0\r\n" + data + b"\r\n")
    assert body == b"" and size == 5 + len(data)
    assert b"".join(name + b": " + value + b"\r\n" for name, value in fields) == data
    for name, _ in fields:
        assert not oracle.FORBIDDEN_TRAILER.fullmatch(oracle.as_cgi(name))


# --- the tunnel --------------------------------------------------------------------------------------------

ACCEPTOR = 0x8000_0000
OPEN, REPLY, DATA, TRAILERS, WINDOW, RESET, PING, GOAWAY, CONTROL = range(1, 10)
HEAD_END, HEAD_INTERIM, HEAD_TCP = 1, 2, 4


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">IBBHI", len(payload), kind, flags, 0, stream) + payload


def frames(data: bytes) -> None:
    """Any bytes as a tunnel's, at either side; segments change nothing, and all memory is given back."""
    before = memory_usage(), promised()
    heard = []
    for size in (len(data) or 1, 1, 5):
        session = EventSession(dialled=data[:1] > b"\x7f", local_streams=4, local_window=100)
        events = []
        for part in pieces(data[1:], size):
            events += session.receive(part)
        error = session.error
        session.gather_all()
        session.abort()
        session.events()
        heard.append((error, flat(events)))
    del session, events
    assert heard[0] == heard[1] == heard[2], "segments change what is heard"
    assert (memory_usage(), promised()) == before


def flat(events: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """What was heard, with the pieces of a body put together."""
    result: list[tuple[object, ...]] = []
    bodies: dict[int, bytes] = {}
    for name, *rest in events:
        if not rest or not isinstance(rest[0], EventStream):
            if name != "output":
                result.append((name, *rest))
            continue
        end = rest[0].id
        if name == "data":
            bodies[end] = bodies.get(end, b"") + rest[1]  # type: ignore[operator]
            if rest[2]:
                result.append(("ended", end))
        elif name != "room":
            result.append((name, end, *rest[1:]))
    return [*result, *bodies.items()]


class End:
    """One stream of the session under test, as its user knows it."""

    def __init__(self, stream: EventStream, tcp: bool) -> None:
        self.stream = stream
        self.tcp = tcp
        self.headed = self.ended = False
        self.held = 0  # body bytes that came and were not reported as done with


class Talk:
    """A session whose user acts, and whose peer sends valid frames in any order, and others."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.dialled = self.byte() & 1 == 1
        self.session = EventSession(
            dialled=self.dialled, local_streams=3, peer_streams=3, local_window=300, peer_window=300
        )
        self.ends: list[End] = []
        self.generation = [0, 0, 0]

    # --- what the input says

    def byte(self) -> int:
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def some(self, limit: int) -> bytes:
        size = self.byte() % (limit + 1)
        self.at += size
        return self.data[self.at - size : self.at]

    def stream(self) -> int:
        """An id: the peer's next one, its last one, one of ours, or any."""
        choice = self.byte()
        slot = choice % 3
        theirs = ACCEPTOR if self.dialled else 0
        if choice < 64:
            self.generation[slot] += 1
        if choice < 128:
            return theirs | self.generation[slot] << 16 | slot
        if choice < 250 and self.ends:
            return self.ends[choice % len(self.ends)].stream.id
        return int.from_bytes(self.some(4))

    def payload(self, kind: int) -> bytes:
        if kind in (OPEN, REPLY):
            head, body = self.some(20), self.some(200)
            size = len(head) if self.byte() < 250 else self.byte() << 8
            if kind == REPLY:
                return struct.pack(">I", size) + head + body
            meta = b"\x01\x01m" if self.byte() & 1 else b""
            return struct.pack(">BBHI", 1 + self.byte() % 2, 0, len(meta), size) + meta + head + body
        if kind == WINDOW:
            return struct.pack(">I", (self.byte() << self.byte() % 24) & 0xFFFFFFFF)
        if kind in (RESET, GOAWAY):
            return struct.pack(">HBB", self.byte(), self.byte() % 4, 0) + self.some(20)
        if kind == PING:
            return self.some(8).ljust(8, b"\0")
        return self.some(250)

    # --- what happens

    def hear(self, data: bytes) -> None:
        for name, *rest in self.session.receive(data):
            if name == "open":
                self.ends.append(End(rest[0], bool(rest[4] & HEAD_TCP)))
                self.ends[-1].held = len(rest[3])
            elif name in ("data", "head"):
                end = next(end for end in self.ends if end.stream is rest[0])
                end.held += len(rest[1] if name == "data" else rest[2])

    def act(self, choice: int) -> None:
        if choice == 0:
            stream = self.session.open()
            if stream is not None:
                self.ends.append(End(stream, self.byte() & 1 == 1))
                self.send_head(self.ends[-1])
        elif choice == 1:
            self.session.gather(take=self.byte())
        elif choice == 2:
            self.session.now += self.byte() << 12
            self.session.tick()
        elif choice == 3:
            self.session.control(self.some(100) or b"c")
        elif choice == 4:
            if self.byte() == 0:
                self.session.goaway(self.byte() % 3, b"x")
        else:
            alive = [end for end in self.ends if end.stream.alive]
            if alive:
                self.act_on(alive[self.byte() % len(alive)], choice)

    def send_head(self, end: End) -> None:
        last = self.byte() & 1 == 1
        end.headed, end.ended = True, last
        end.stream.send_head(b"h" * (1 + self.byte()), end=last, tcp=end.tcp)

    def act_on(self, end: End, choice: int) -> None:
        """What an End may do, and no more: a local mistake is not what is looked for."""
        stream = end.stream
        if choice == 5:
            stream.cancel(self.byte() % 22, self.byte() % 3, self.some(20))
        elif choice == 6:
            done = self.byte() % (end.held + 1)
            end.held -= done
            stream.consume(done)
        elif not end.headed and not end.tcp:
            if choice == 7:
                stream.send_head(b"i", interim=True)
            else:
                self.send_head(end)
        elif not end.ended:
            end.ended = choice == 9
            if choice == 7:
                stream.send_data(self.some(250)[: stream.free()])
            elif choice == 8:
                stream.send_reserved(self.some(250))
            else:
                stream.send_end(b"X: a\r\n" if self.byte() & 1 else b"")

    def run(self) -> None:
        while self.at < len(self.data) and self.session.error < 0:
            choice = self.byte()
            kind = choice % 10
            if choice >= 200:
                self.act(kind)
            elif kind == 0:
                self.hear(self.some(30))
            else:
                self.hear(frame(kind, self.byte() & 7, self.stream(), self.payload(kind)))
        self.session.gather_all()


# --- logins, control messages, ClientHellos -------------------------------------------------------

REGISTRATION = (
    b"GET /tunnel HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: broker-tunnel\r\n"
    b"Broker-Version: 1\r\nBroker-Parameters: %b\r\n\r\n"
)
ACCEPTANCE = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: broker-tunnel\r\n"
    b"Broker-Version: 1\r\nBroker-Parameters: %b\r\n\r\n"
)


def parameters(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def registration(data: bytes) -> None:
    """A login, whole or its parameters only, at either side: taken, refused, or incomplete."""
    whole = data[:1] < b"\x80"
    try:
        found = read_registration(data[1:] if whole else REGISTRATION % parameters(data[1:]))
        assert found is None or 0 <= found[0].index <= 1023
    except Refusal as refusal:
        if refusal.status < 400 or not refusal_bytes(refusal):
            raise AssertionError(f"a refusal of status {refusal.status}") from refusal
    with suppress(Refusal):
        answer = read_answer(
            data[1:] if whole else ACCEPTANCE % parameters(data[1:]), ended=len(data) % 2 == 1
        )
        assert answer is None or 1 <= answer[0].window <= 2147483647


def control(data: bytes) -> None:
    with suppress(ValueError):
        read_control(data)


SERVER_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def hello(data: bytes) -> None:
    """A name, none, or more bytes wanted; what was said once is not taken back when more comes."""
    verdicts = []
    for size in {len(data), len(data) * 3 // 4, len(data) // 2}:
        try:
            name = read_hello(data[:size])
        except ValueError:
            verdicts.append("refused")
            continue
        if name:
            assert SERVER_NAME.fullmatch(name), name
        if name is not None:
            verdicts.append("read " + name)
    assert len(set(verdicts)) <= 1, verdicts


def is_four(address: bytes) -> bool:
    return address.startswith(bytes(10) + b"\xff\xff")


def proxy(data: bytes) -> None:
    """A PROXY header, or none: not taken back when more comes, and the same in what we would write of it."""
    verdicts = []
    for size in {len(data), len(data) * 3 // 4, len(data) // 2}:
        try:
            found = read_proxy(data[:size])
        except ValueError:
            verdicts.append(None)
            continue
        if found is not None:
            verdicts.append(found)
            size, source, port, target, other = found
            for version in (1, 2):
                written = make_proxy(version, source, port, target, other)
                again = read_proxy(written)
                assert again is not None and again[:3] == (len(written), source, port)
                # A target of the other family can't be said in one header.
                if source is None or target is None or is_four(source) == is_four(target):
                    assert again[3:] == (target, other)
    assert len(set(verdicts)) <= 1, verdicts


def meta(data: bytes) -> None:
    """What another node says of a client: addresses, whatever the bytes."""
    found = understand_meta(data)
    assert found is None or (len(found[0]), len(found[2])) == (16, 16)


def websocket(data: bytes) -> None:
    """Where frames end does not depend on segments."""
    whole = frame_boundaries([data])
    for size in (1, 3):
        assert frame_boundaries(list(pieces(data, size))) == whole


def tunnel(data: bytes) -> None:
    before = memory_usage(), promised()
    talk = Talk(data)
    talk.run()
    talk.session.abort()
    talk.session.events()
    assert (memory_usage(), promised()) == before


TARGETS: dict[str, Target] = {
    "request": request,
    "response": response,
    "chunked": chunked,
    "trailers": trailers,
    "frames": frames,
    "tunnel": tunnel,
    "registration": registration,
    "control": control,
    "hello": hello,
    "proxy": proxy,
    "meta": meta,
    "websocket": websocket,
}
