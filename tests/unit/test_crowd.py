"""Connections by address in a table that several workers share."""

import mmap
import os
import random

import pytest

from _fastpath.crowd import KEY_SIZE, PLACES, Crowd, clear_row, crowd_size

KEY = bytes(range(KEY_SIZE))
NOWHERE = -1


def crowds(workers: int, port: int = 0) -> list[Crowd]:
    memory = bytearray(crowd_size(workers))
    return [Crowd(memory, KEY, workers, index, port) for index in range(workers)]


def test_addresses_are_counted_apart() -> None:
    [crowd] = crowds(1)
    first, again, other = crowd.come(b"192.0.2.1"), crowd.come(b"192.0.2.1"), crowd.come(b"192.0.2.2")
    assert first == again != other
    assert (crowd.total(first), crowd.total(other)) == (2, 1)
    crowd.go(first)
    assert crowd.total(first) == 1


def test_all_workers_count_together() -> None:
    three = crowds(3)
    places = [crowd.come(b"2001:db8::1") for crowd in three]
    assert len(set(places)) == 1
    assert [crowd.total(places[0]) for crowd in three] == [3, 3, 3]
    three[1].go(places[1])
    assert three[0].total(places[0]) == 2


def test_ports_are_counted_apart() -> None:
    memory = bytearray(crowd_size(1))
    first, second = (Crowd(memory, KEY, 1, 0, port) for port in (0, 1))
    assert first.come(b"192.0.2.1") != second.come(b"192.0.2.1")


def test_a_worker_that_is_gone_is_not_counted() -> None:
    memory = bytearray(crowd_size(2))
    one, two = (Crowd(memory, KEY, 2, index) for index in range(2))
    place = one.come(b"192.0.2.1")
    two.come(b"192.0.2.1")
    clear_row(memory, 2, 1)
    assert one.total(place) == 1
    clear_row(memory, 2, 0)
    assert one.total(place) == 0


def test_places_of_those_who_have_gone_are_taken_again() -> None:
    """Many more addresses than places, one after the other; and who stays is counted rightly meanwhile."""
    [crowd] = crowds(1)
    stays = crowd.come(b"stays")
    for number in range(2 * PLACES):
        place = crowd.come(b"%d" % number)
        assert place not in (NOWHERE, stays)
        assert crowd.total(place) == 1
        crowd.go(place)
    assert crowd.come(b"stays") == stays
    assert crowd.total(stays) == 2


def test_a_full_table_says_so() -> None:
    [crowd] = crowds(1)
    places = [crowd.come(b"%d" % number) for number in range(2 * PLACES)]
    taken = [place for place in places if place != NOWHERE]
    assert len(set(taken)) == len(taken)
    assert 0.8 * PLACES < len(taken) <= PLACES


def test_workers_that_meet_lose_no_count() -> None:
    """Real processes, few addresses, places taken over all the time: at the end nobody is there."""
    workers, rounds = 3, 30_000
    memory = mmap.mmap(-1, crowd_size(workers))
    children = []
    for index in range(workers):
        pid = os.fork()
        if pid == 0:
            os._exit(0 if come_and_go(Crowd(memory, KEY, workers, index), rounds) else 1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * workers
    crowd = Crowd(memory, KEY, workers, 0)
    assert not any(crowd.total(place) for place in range(PLACES))


def come_and_go(crowd: Crowd, rounds: int) -> bool:
    draw = random.Random(os.getpid())
    here: list[int] = []
    for _ in range(rounds):
        if here and draw.random() < 0.5:
            crowd.go(here.pop(draw.randrange(len(here))))
        else:
            here.append(crowd.come(b"%d" % draw.randrange(20)))
    well = NOWHERE not in here and all(crowd.total(place) >= here.count(place) for place in here)
    for place in here:
        crowd.go(place)
    return well


@pytest.mark.parametrize(
    ("size", "key", "workers", "mine"),
    [
        (crowd_size(2) - 1, KEY, 2, 0),
        (crowd_size(1), KEY, 2, 0),
        (crowd_size(2), KEY[1:], 2, 0),
        (crowd_size(2), KEY, 2, 2),
        (crowd_size(2), KEY, 0, 0),
    ],
)
def test_what_does_not_fit_is_refused(size: int, key: bytes, workers: int, mine: int) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Crowd(bytearray(size), key, workers, mine)
