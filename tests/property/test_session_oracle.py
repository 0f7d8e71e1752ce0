"""Two sessions, wired together with random cuts, against the plain-Python multiplexer.

Whatever is done to them in whatever order: each side hears exactly what the other has said and what the bytes
on the wire say, nothing is stuck once everybody reads, and all memory is given back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from _fastpath.events import EventSession, EventStream, promised
from _fastpath.memory import memory_usage
from tests.property.oracle_mux import HTTP, TCP, OracleMux, Watched

HEAD_END, HEAD_INTERIM, HEAD_TCP = 1, 2, 4
TUNNEL_LOST = 18
NEVER_SENT = 0

picks = st.integers(0, 1 << 16)
sizes = st.one_of(st.integers(0, 40), st.integers(0, 3000), st.sampled_from([16384, 65536, 200_000]))
heads = st.binary(min_size=1, max_size=60) | st.binary(min_size=1, max_size=3).map(lambda part: part * 9000)
windows = st.integers(1, 70) | st.integers(1000, 70_000)


@dataclass
class Talk:
    """One stream as one side has it: what it said, what it heard."""

    end: EventStream
    kind: int
    said: Watched
    heard: Watched
    backlog: bytearray = field(default_factory=bytearray)
    trailers: bytes | None = None  # the end that follows the backlog
    head_said: bool = False
    ended: bool = False
    gone: bool = False
    held: int = 0
    reset_when_heard: bool = False

    @classmethod
    def of(cls, end: EventStream, kind: int) -> Talk:
        said, heard = (Watched(end.id, kind, None, None) for _ in range(2))  # type: ignore[arg-type]
        return cls(end, kind, said, heard)


class Side:
    """A session with its oracle, and its user."""

    def __init__(self, name: str, session: EventSession, oracle: OracleMux, prompt: bool) -> None:
        self.name = name
        self.session = session
        self.oracle = oracle
        self.talks: dict[EventStream, Talk] = {}
        self.control: list[bytes] = []
        self.said_control: list[bytes] = []
        self.reserve = False
        self.prompt = prompt
        self.noise = 0
        if prompt:
            # Its user acts inside the callbacks, as compiled Ends do.
            session.on_event = self.on_event

    def body(self, size: int) -> bytes:
        """Bytes that differ from place to place, so that a mix-up shows."""
        self.noise += size
        return bytes((self.noise + index * 7) & 0xFF for index in range(min(size, 251))) * (size // 251 + 1)

    def catch_up(self) -> None:
        events = self.session.events()
        if not self.prompt:
            for event in events:
                self.on_event(event)

    def on_event(self, event: tuple[Any, ...]) -> None:
        name = event[0]
        if name == "control":
            self.control.append(event[1])
        if name in ("control", "output", "release", "goaway"):
            return
        end = event[1]
        if name == "open":
            self.talks[end] = Talk.of(end, TCP if event[5] & HEAD_TCP else HTTP)
        talk = self.talks[end]
        if talk.gone and not self.prompt:
            return  # its user learnt of an earlier event, and reset it, only now
        assert not talk.gone, f"{name} for a stream that is over"
        getattr(self, "on_" + name)(talk, *event[2:])
        if talk.reset_when_heard and not talk.gone and name in ("data", "head", "end"):
            self.reset(talk)

    def on_open(self, talk: Talk, meta: bytes, head: bytes, body: bytes, flags: int) -> None:
        assert meta == b"\x01\x01m"
        self.on_head(talk, head, body, flags)

    def on_head(self, talk: Talk, head: bytes, body: bytes, flags: int) -> None:
        talk.heard.hear("interim" if flags & HEAD_INTERIM else "head", head)
        self.on_data(talk, body, bool(flags & HEAD_END))

    def on_data(self, talk: Talk, body: bytes, end: bool) -> None:
        talk.heard.hear("body", body)
        talk.held += len(body)
        if end:
            talk.heard.hear("end", b"")

    def on_end(self, talk: Talk, trailers: bytes) -> None:
        talk.heard.hear("end", trailers)

    def on_reset(self, talk: Talk, code: int, delivery: int, reason: bytes) -> None:
        talk.gone = True
        talk.heard.hear("reset", code, delivery, reason)

    def on_room(self, talk: Talk) -> None:
        assert talk.end.free() > 0, "woken without room"
        self.pump(talk)

    # --- what its user does ---------------------------------------------------

    def pump(self, talk: Talk) -> None:
        while talk.backlog and not talk.gone:
            room = talk.end.free()
            if room == 0:
                return  # on_room continues, or nothing does
            part = bytes(talk.backlog[:room])
            last = len(part) == len(talk.backlog) and talk.trailers == b""
            size = len(part)
            if self.reserve:
                size = talk.end.send_reserved(part, last)
                part = part[:size]
                last = last and size == len(talk.backlog)
                assert size, "room, but no memory to reserve"
            else:
                talk.end.send_data(part, last)
            del talk.backlog[:size]
            talk.said.hear("body", part)
            if last:
                talk.ended = True
                talk.said.hear("end", b"")
        if talk.trailers is not None and not talk.ended and not talk.gone:
            talk.ended = True
            talk.end.send_end(talk.trailers)
            talk.said.hear("end", talk.trailers)

    def say_head(self, talk: Talk, head: bytes, body: bytes, end: bool) -> None:
        body = body[: talk.end.free()]
        talk.head_said = True
        talk.said.hear("head", head)
        talk.said.hear("body", body)
        if end:
            talk.ended = True
            talk.trailers = b""
            talk.said.hear("end", b"")
        talk.end.send_head(head, body, end=end, tcp=talk.kind == TCP, meta=b"\x01\x01m")

    def reset(self, talk: Talk) -> None:
        talk.gone = True
        self.oracle.reset_here(talk.end.id)
        talk.end.cancel(9, 1, b"why")

    def consume(self, talk: Talk, size: int) -> None:
        size = min(size, talk.held)
        talk.held -= size
        talk.end.consume(size)


class TwoSessions(RuleBasedStateMachine):
    """Random use of two sessions."""

    @initialize(
        window=st.tuples(windows, windows),
        streams=st.tuples(st.integers(1, 5), st.integers(1, 5)),
        prompt=st.booleans(),
    )
    def begin(self, window: tuple[int, int], streams: tuple[int, int], prompt: bool) -> None:
        self.before = memory_usage(), promised()
        self.sides = []
        for index in (0, 1):
            limits = {
                "local_window": window[index],
                "peer_window": window[1 - index],
                "local_streams": streams[index],
                "peer_streams": streams[1 - index],
            }
            session = EventSession(dialled=index == 0, tunnel_memory=400_000, **limits)
            oracle = OracleMux(dialled=index == 0, **limits)
            self.sides.append(Side(["dialler", "acceptor"][index], session, oracle, prompt))

    def talk(self, which: bool, pick: int) -> tuple[Side, Talk | None]:
        side = self.sides[which]
        talks = [talk for talk in side.talks.values() if not talk.gone]
        return side, talks[pick % len(talks)] if talks else None

    @rule(which=st.booleans(), head=heads, size=sizes, end=st.booleans(), tcp=st.booleans())
    def open(self, which: bool, head: bytes, size: int, end: bool, tcp: bool) -> None:
        side = self.sides[which]
        stream = side.session.open()
        if stream is not None:
            side.talks[stream] = talk = Talk.of(stream, TCP if tcp else HTTP)
            side.say_head(talk, head, side.body(size), end)
            side.catch_up()

    @rule(which=st.booleans(), pick=picks, head=heads, size=sizes, end=st.booleans(), interim=st.booleans())
    def reply(self, which: bool, pick: int, head: bytes, size: int, end: bool, interim: bool) -> None:
        side, talk = self.talk(which, pick)
        if talk is None or talk.head_said or talk.ended:
            return
        if interim and talk.kind == HTTP:
            talk.said.hear("interim", head)
            talk.end.send_head(head, interim=True)
        else:
            side.say_head(talk, head, side.body(size), end)
        side.catch_up()

    @rule(
        which=st.booleans(),
        pick=picks,
        size=sizes,
        reserve=st.booleans(),
        end=st.booleans(),
        trailers=st.just(b"") | st.binary(max_size=20),
    )
    def write(self, which: bool, pick: int, size: int, reserve: bool, end: bool, trailers: bytes) -> None:
        side, talk = self.talk(which, pick)
        if talk is None or not talk.head_said or talk.trailers is not None:
            return
        waits = bool(talk.backlog)
        side.reserve = reserve
        talk.backlog += side.body(size)[:size]
        if end:
            talk.trailers = trailers
        if not waits:
            side.pump(talk)
        side.catch_up()

    @rule(which=st.booleans(), pick=picks, size=sizes)
    def consume(self, which: bool, pick: int, size: int) -> None:
        side, talk = self.talk(which, pick)
        if talk is not None:
            side.consume(talk, size)
            side.catch_up()

    @rule(which=st.booleans(), pick=picks, later=st.booleans())
    def reset(self, which: bool, pick: int, later: bool) -> None:
        side, talk = self.talk(which, pick)
        if talk is None:
            return
        if later:
            talk.reset_when_heard = True
        elif talk.end.alive:
            side.reset(talk)
            side.catch_up()

    @rule(which=st.booleans(), payload=st.binary(min_size=1, max_size=5000))
    def control(self, which: bool, payload: bytes) -> None:
        side = self.sides[which]
        assert side.session.control(payload) == 0
        side.said_control.append(payload)

    @rule(which=st.booleans())
    def tick(self, which: bool) -> None:
        assert self.sides[which].session.tick() == 0

    @precondition(lambda self: not self.sides[0].session.going_away)
    @rule(which=st.booleans(), really=st.integers(0, 5))
    def goaway(self, which: bool, really: int) -> None:
        if really == 0:
            self.sides[which].session.goaway()

    @rule(
        which=st.booleans(),
        limit=st.sampled_from([1, 100, 1 << 30]),
        take=st.none() | st.integers(0, 70_000),
        cuts=st.lists(st.integers(1, 1000), max_size=6),
        microseconds=st.integers(0, 100_000),
    )
    def carry(self, which: bool, limit: int, take: int | None, cuts: list[int], microseconds: int) -> None:
        self.move(which, limit, take, cuts, microseconds)

    def move(self, which: bool, limit: int, take: int | None, cuts: list[int], microseconds: int) -> int:
        source, sink = self.sides[which], self.sides[not which]
        for side in self.sides:
            side.session.now += microseconds
        data = source.session.gather(limit, take)
        moved = len(data)
        source.oracle.sent(data)
        source.catch_up()
        for cut in [*cuts, 1000]:  # thousandths of what is left
            size = -(-len(data) * cut // 1000)
            part, data = data[:size], data[size:]
            sink.oracle.received(part)
            recorded = sink.session.receive(part)
            if not sink.prompt:
                for event in recorded:
                    sink.on_event(event)
            assert sink.session.error == -1, sink.session.why
        return moved

    @invariant()
    def bounded(self) -> None:
        for side in getattr(self, "sides", []):
            assert side.session.committed <= 262144 + 65536 + 70_000
            for talk in side.talks.values():
                if not talk.gone:
                    assert talk.end.queued <= 262144 + 70_000

    def teardown(self) -> None:
        if not hasattr(self, "sides"):
            return
        self.finish()
        for side in self.sides:
            self.compare(side)
            assert side.session.active == 0, f"{side.name}: streams are left"
        assert self.sides[0].control == self.sides[1].said_control == self.sides[0].oracle.control
        assert self.sides[1].control == self.sides[0].said_control
        for side in self.sides:
            side.session.abort()
        assert (memory_usage(), promised()) == self.before

    def finish(self) -> None:
        """Everybody ends what was begun, reads everything, and the bytes flow."""
        quiet = 0
        while quiet < 3:
            moved = 0
            for side in self.sides:
                for talk in list(side.talks.values()):
                    if talk.gone:
                        continue
                    if not talk.head_said and not talk.ended:
                        side.say_head(talk, b"late", b"", True)
                    elif talk.trailers is None:
                        talk.trailers = b""
                        if not talk.backlog:
                            side.pump(talk)
                    moved += talk.held
                    side.consume(talk, talk.held)
                side.catch_up()
            moved += self.move(False, 1 << 30, None, [], 1000) + self.move(True, 1 << 30, None, [], 1000)
            quiet = quiet + 1 if moved == 0 else 0

    def compare(self, side: Side) -> None:
        other = self.sides[side is self.sides[0]]
        said = {talk.end.id: talk.said.heard for talk in other.talks.values()}
        for talk in side.talks.values():
            assert not talk.end.alive
            watched = side.oracle.past.get(talk.end.id)
            if watched is None:
                assert talk.heard.heard == []  # its OPEN never left
                continue
            if not talk.gone:
                assert talk.ended and not talk.backlog, f"{side.name}: a writer is stuck"
                if watched.heard[-1][0] == "reset":  # too late: both ends were committed here
                    watched.heard.pop()
                assert talk.heard.heard == watched.heard == said[talk.end.id]
            else:
                short, long = sorted((flat(talk.heard), flat(watched)), key=len)
                assert long[: len(short)] == short


def flat(watched: Watched) -> list[object]:
    """What was heard, with a body byte by byte: two that stopped at different bytes can be compared."""
    parts: list[object] = []
    for what in watched.heard:
        parts.extend(what[1] if what[0] == "body" else [what])  # type: ignore[arg-type]
    return parts


TestTwoSessions = TwoSessions.TestCase
TestTwoSessions.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
