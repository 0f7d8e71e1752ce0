"""When a session asks for a sign of life, gives one, and takes its peer for dead. Time is the test's."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from _fastpath.events import EventSession
from tests.unit.wiring import ACK, PING, carry, frames

TICK = 250_000
SILENCE = 5_000_000
QUARTER = SILENCE // 4


@pytest.fixture
def pair() -> Iterator[tuple[EventSession, EventSession]]:
    sides = EventSession(dialled=True, silence_us=SILENCE), EventSession(dialled=False, silence_us=SILENCE)
    for side in sides:
        side.tick()
    carry(sides[0], sides[1])  # the first measurement
    carry(sides[1], sides[0])
    carry(sides[0], sides[1])
    yield sides
    for side in sides:
        side.abort()


def pass_time(*sides: EventSession, us: int = TICK) -> None:
    for side in sides:
        side.now += us


def test_an_idle_pair_stays_alive_and_says_little(pair):
    seen = 0
    for _ in range(40 * SILENCE // TICK):
        pass_time(*pair)
        for source, sink in (pair, pair[::-1]):
            assert source.tick() == 0
            data = source.gather_all()
            seen += len(frames(data))
            sink.receive(data)
    assert 0 < seen <= 4 * 40 * 4 + 8, "a PING and its answer from either side, per quarter of the silence"


def test_silence_means_death_but_a_single_byte_is_life(pair):
    near, far = pair
    for _ in range(SILENCE // TICK - 1):
        pass_time(near)
        assert near.tick() == 0
    far.now = near.now
    far.control(b"x" * 100)
    data = far.gather_all()
    near.receive(data[:1])
    for _ in range(SILENCE // TICK - 1):
        pass_time(near)
        assert near.tick() == 0
    pass_time(near)
    assert near.tick() == -1


def test_who_hears_but_waits_for_an_answer_still_speaks(pair):
    """The answers to its PINGs are stuck behind data; the other side must hear something all the same."""
    near, far = pair
    stream = far.open()
    stream.send_head(b"head")
    near.receive(far.gather_all())
    spoke = 0
    for _ in range(4 * SILENCE // TICK):
        pass_time(near, far)
        stream.send_data(b"d")
        near.receive(far.gather_all())  # its data trickles in; it is never handed what near says
        assert near.tick() == 0
        said = frames(near.gather_all())
        spoke += bool(said)
    assert spoke >= 4 * 4 - 2, "something every quarter of the silence"


def test_a_sign_of_life_is_not_taken_for_an_answer(pair):
    near, far = pair
    pass_time(near, us=QUARTER)
    near.tick()
    (ping,) = frames(near.gather_all())
    assert ping[:2] == (PING, 0)
    rtt = near.rtt_us
    pass_time(far, us=QUARTER)
    far.receive(b"\0")  # part of a header: it hears, so that it does not ask
    pass_time(far, us=QUARTER - 1)
    far.receive(b"\0")
    pass_time(far, us=1)
    far.tick()
    (sign,) = frames(far.gather_all())
    assert sign[:2] == (PING, ACK)
    assert sign[3] != ping[3]
    pass_time(near, us=1000)
    near.receive(b"".join([len(sign[3]).to_bytes(4, "big"), bytes([PING, ACK, 0, 0, 0, 0, 0, 0]), sign[3]]))
    assert near.rtt_us == rtt


def test_a_process_that_stood_still_first_reads_what_came_meanwhile(pair):
    near, far = pair
    pass_time(near, us=10 * SILENCE)
    assert near.tick() == 0, "its own silence is not the peer's"
    far.now = near.now
    far.tick()
    near.receive(far.gather_all())
    pass_time(near)
    assert near.tick() == 0


def test_a_process_that_stood_still_gives_a_dead_peer_no_more_than_a_quarter(pair):
    near, _ = pair
    pass_time(near, us=10 * SILENCE)
    assert near.tick() == 0
    for _ in range(QUARTER // TICK - 1):
        pass_time(near)
        assert near.tick() == 0
    pass_time(near)
    assert near.tick() == -1
