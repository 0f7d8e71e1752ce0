"""How a stream's window grows with use: not at all for a slow reader, fast where round trips are long."""

import pytest

from _fastpath.events import EventCredit

MIB = 1 << 20
NEAR, FAR = 500, 100_000  # microseconds


def use_up(credit: EventCredit, now: int, rtt: int, parts: int = 8) -> int:
    """A window's worth arrives and is consumed; what was granted meanwhile."""
    window = credit.window
    granted = 0
    for part in range(parts):
        size = min(window * (part + 1) // parts - window * part // parts, credit.receivable)
        credit.arrive(size, now)
        granted += credit.consume(size, now, rtt)
    credit.check()
    return granted


@pytest.mark.parametrize(("rtt", "factor"), [(FAR, 4), (NEAR, 2)])
def test_it_grows_faster_where_round_trips_are_long(rtt, factor):
    credit = EventCredit(65536, 65536)
    use_up(credit, 1000 + rtt, rtt)
    assert credit.window == 65536 * factor
    credit.stop()


def test_it_grows_no_further_than_its_maximum():
    credit = EventCredit(65536, 65536, 1 << 30)
    for turn in range(12):
        use_up(credit, 1000 + turn * FAR, FAR)
    assert credit.window == 16 * MIB
    credit.stop()


def test_a_slow_reader_keeps_the_window_that_was_announced():
    credit = EventCredit(65536, 65536)
    credit.arrive(1000, 1)
    credit.consume(1000, 1, FAR)
    use_up(credit, 10 * FAR, FAR)
    assert credit.window == 65536
    credit.stop()


def test_a_large_window_is_granted_in_smaller_parts():
    """Otherwise half of it would be idle for a round trip."""
    credit = EventCredit(65536, 65536, 1 << 30)
    for turn in range(12):
        use_up(credit, 1000 + turn * FAR, FAR)
    now = 1000 + 13 * FAR
    held = 0
    grants = []
    while held < credit.window and len(grants) < 4:
        credit.arrive(65536, now)
        grant = credit.consume(65536, now, FAR)
        if grant:
            grants.append(grant)
        held += 65536
    assert len(grants) == 4 and max(grants) <= 16 * MIB // 8 + 65536
    credit.stop()
