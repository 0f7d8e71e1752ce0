"""Who gives way at a registration port, and who is not let in for a while."""

import ipaddress
import random
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.model import Penalties as PenaltySettings
from broker.config.model import Strangers as Limits
from broker.ports import penalties as penalties_module
from broker.ports.penalties import TRUSTED_S, Penalties, network_of
from broker.ports.strangers import Strangers


@dataclass(eq=False)
class Visitor:
    network: str


def crowd(early: int = 10, most: int = 20, per_address: int = 100, draw: float = 0.0) -> Strangers[Visitor]:
    return Strangers(Limits(early=early, most=most, per_address=per_address), lambda: draw)


def enter(strangers: Strangers[Visitor], network: str) -> tuple[Visitor, Visitor | None]:
    """A newcomer, and whom he drives out."""
    made = Visitor(network)
    gone = strangers.enter(made)
    if gone is not None:
        strangers.leave(gone)
    return made, gone


# --- who gives way ------------------------------------------------------------------------------


def test_below_the_first_limit_nobody_goes() -> None:
    strangers = crowd()
    assert all(enter(strangers, "a")[1] is None for _ in range(10))
    assert enter(strangers, "b")[1] is not None


def test_the_silent_go_before_those_that_speak() -> None:
    strangers = crowd(early=3)
    first, _ = enter(strangers, "a")
    second, _ = enter(strangers, "a")
    third, _ = enter(strangers, "a")
    strangers.speaks(first)
    strangers.speaks(second)
    assert enter(strangers, "a")[1] is third
    fourth = next(each for each in strangers if each not in (first, second))
    strangers.speaks(fourth)
    assert enter(strangers, "a")[1] is first


def test_a_flood_from_one_place_pays_for_itself() -> None:
    strangers = crowd(early=20)
    honest = [enter(strangers, f"honest-{number}")[0] for number in range(5)]
    flood = [enter(strangers, "flood") for _ in range(1000)]
    assert all(gone is None or gone.network == "flood" for _, gone in flood)
    assert enter(strangers, "another")[1] is honest[0], "nobody is spared who waits the longest"


def test_an_address_has_a_limit_of_its_own() -> None:
    strangers = crowd(early=100, most=100, per_address=3)
    first, _ = enter(strangers, "a")
    for _ in range(2):
        enter(strangers, "a")
    assert enter(strangers, "b")[1] is None
    assert enter(strangers, "a")[1] is first


def test_the_chance_grows_from_three_in_ten_to_certainty() -> None:
    def goes(count: int, draw: float) -> bool:
        strangers = crowd(draw=1.0)
        for number in range(count):
            strangers.enter(Visitor(str(number)))
        strangers._draw = lambda: draw
        return enter(strangers, "new")[1] is not None

    assert goes(10, 0.29) and not goes(10, 0.31)
    assert goes(15, 0.64) and not goes(15, 0.66)
    assert goes(20, 0.999)
    assert not goes(9, 0.0)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from("estl")), max_size=200), st.integers(0, 1000))
def test_the_books_are_right(steps, seed) -> None:
    strangers: Strangers[Visitor] = Strangers(
        Limits(early=6, most=12, per_address=5), random.Random(seed).random
    )
    there: list[Visitor] = []
    for number, step in steps:
        if step == "e":
            made, gone = enter(strangers, f"10.0.0.{number}")
            assert gone is not made
            there.append(made)
            if gone is not None:
                there.remove(gone)
        elif there:
            chosen = there[number % len(there)]
            if step == "l":
                there.remove(chosen)
                strangers.leave(chosen)
            else:
                strangers.speaks(chosen)
        assert set(strangers) == set(there) and len(strangers) == len(there)
        assert len(there) <= 12
        assert max((sum(v.network == each.network for v in there) for each in there), default=0) <= 5
        assert set(strangers._by_network) == {each.network for each in there}


# --- penalties ----------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_mistake_costs_nothing_and_many_do(clock: Clock) -> None:
    penalties = Penalties(PenaltySettings(), clock)
    assert penalties.punish("192.0.2.1", "failed") == 0
    assert penalties.punish("192.0.2.1", "failed") == 0
    assert penalties.wait("192.0.2.1") == 0
    assert penalties.punish("192.0.2.1", "failed") == 15
    assert penalties.wait("192.0.2.1") == 15
    assert penalties.wait("192.0.2.2") == 0
    clock.now += 10
    assert (penalties.wait("192.0.2.1"), penalties.punished) == (5, 1), "it is served to its end"
    clock.now += 6
    assert (penalties.wait("192.0.2.1"), penalties.punished) == (0, 0)
    assert penalties.punish("192.0.2.1", "failed") == 0, "and then one begins anew"


def test_it_runs_off_with_time_and_has_an_end(clock: Clock) -> None:
    penalties = Penalties(PenaltySettings(), clock)
    for _ in range(100):
        assert penalties.punish("192.0.2.1", "broken") == 0
        clock.now += 1
    for _ in range(1000):
        penalties.punish("192.0.2.2", "slow")
    assert penalties.wait("192.0.2.2") == 600


def test_some_are_not_punished(clock: Clock) -> None:
    exempt = (ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("2001:db8::/32"))
    penalties = Penalties(PenaltySettings(exempt=exempt, broken=0.0), clock)
    for network in ("10.1.2.3", network_of("2001:db8::1")):
        for _ in range(10):
            assert penalties.punish(network, "slow") == 0
    for _ in range(100):
        assert penalties.punish("192.0.2.1", "broken") == 0
    default = Penalties(PenaltySettings(), clock)
    for network in ("127.0.0.1", network_of("::1")):
        for _ in range(10):
            assert default.punish(network, "slow") == 0


def test_where_an_agent_is_or_was_nobody_is_punished(clock: Clock) -> None:
    penalties = Penalties(PenaltySettings(), clock)
    for _ in range(10):
        penalties.punish("192.0.2.1", "slow")
    penalties.arrived("192.0.2.1")
    penalties.arrived("192.0.2.1")
    assert penalties.wait("192.0.2.1") == 0
    for _ in range(2):
        assert penalties.punish("192.0.2.1", "slow") == 0
        penalties.left("192.0.2.1")
    assert penalties.punish("192.0.2.1", "slow") == 0
    clock.now += TRUSTED_S + 1
    penalties.punish("192.0.2.1", "slow")
    assert penalties.punish("192.0.2.1", "slow") == 20


def test_memory_is_bounded(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(penalties_module, "MAX_NETWORKS", 10)
    penalties = Penalties(PenaltySettings(threshold=1.0), clock)
    for number in range(100):
        penalties.punish(f"192.0.2.{number}", "slow")
        penalties.arrived(f"198.51.100.{number}")
        penalties.left(f"198.51.100.{number}")
    assert len(penalties._until) == len(penalties._left) == 10
    assert penalties.wait("192.0.2.99") and not penalties.wait("192.0.2.0")
    assert not penalties._tunnels


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("a-unix-socket", "a-unix-socket"),
    ],
)
def test_what_counts_as_one_place(host: str, network: str) -> None:
    assert network_of(host) == network
