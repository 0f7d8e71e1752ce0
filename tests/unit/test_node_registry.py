"""Who is registered: eviction, fencing by generation, groups, rights, and the table made of it."""

import asyncio

import msgpack
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from broker.config.model import Match, Rights, User
from broker.identity.login import Evidence, Wants
from broker.identity.users import Users
from broker.tunnel import directory as directory_module
from broker.tunnel.handshake import Refusal
from broker.tunnel.messages import announce_bytes
from broker.tunnel.registry import CONTROL_BURST
from tests.unit.node_support import (
    FRAME_CONTROL,
    FRAME_GOAWAY,
    RegistryRig,
    digest,
    registration,
    run,
    until,
    user,
    with_registry,
)


def refused(rig: RegistryRig, wanted) -> Refusal:
    with pytest.raises(Refusal) as caught:
        rig.admit(wanted)
    return caught.value


# --- coming and going ---------------------------------------------------------------------------


def test_a_login_opens_its_services():
    async def test(rig: RegistryRig) -> None:
        rig.login(registration("a", 1, 0, "x.example", "y.example"))
        assert rig.hosts() == {"x.example", "y.example"}
        assert rig.tables[-1] is rig.table
        assert rig.tunnels_of("x.example") == 1

    with_registry(test)


def test_replicas_and_tunnels_of_one_agent_join_as_a_group():
    async def test(rig: RegistryRig) -> None:
        for instance in (1, 2):
            for index in (0, 1):
                rig.login(registration("a", instance, index, "x.example"))
        assert rig.tunnels_of("x.example") == 4
        assert len(rig.tables) == 1, "the table changes with the services, not with the agents"

    with_registry(test)


def test_a_new_login_of_the_same_agent_evicts_the_old_one_at_once():
    async def test(rig: RegistryRig) -> None:
        old, old_peer = rig.login(registration("a", 1, 0, "x.example"))
        new, _ = rig.login(registration("a", 1, 0, "x.example"))
        assert not old.link.alive
        assert new.link.alive
        assert new.generation > old.generation
        assert rig.tunnels_of("x.example") == 1
        assert rig.registry.evicted == 1
        assert FRAME_GOAWAY in [kind for kind, _, _ in old_peer.frames()]

    with_registry(test)


def test_the_late_end_of_an_evicted_tunnel_takes_nothing_from_its_successor():
    async def test(rig: RegistryRig) -> None:
        old, _ = rig.login(registration("a", 1, 0, "x.example"))
        new, _ = rig.login(registration("a", 1, 0, "x.example"))
        await asyncio.sleep(0)
        rig.registry.on_close(old, 18, "late")
        rig.registry.on_control(old, announce_bytes([]))
        assert rig.registry.members() == [new]
        assert rig.tunnels_of("x.example") == 1
        assert rig.registry.lost == 0

    with_registry(test)


def test_an_agent_that_is_draining_is_succeeded_but_not_cut():
    async def test(rig: RegistryRig) -> None:
        old, peer = rig.login(registration("a", 1, 0, "x.example"))
        old.link.goaway(0, "as if it had streams that still run")
        new, _ = rig.login(registration("a", 1, 0, "x.example"))
        assert old.link.alive
        assert rig.tunnels_of("x.example") == 1
        assert set(rig.registry.members()) == {old, new}
        peer.close()
        await until(lambda: rig.registry.members() == [new])
        assert rig.registry.lost == 0

    with_registry(test)


def test_a_farewell_is_answered_by_closing_once_idle():
    async def test(rig: RegistryRig) -> None:
        _, peer = rig.login(registration("a", 1, 0, "x.example"))
        peer.goaway()
        await until(lambda: rig.registry.tunnels == 0)
        assert rig.registry.lost == 0
        assert rig.hosts() == {"x.example"}

    with_registry(test)


def test_a_service_whose_agents_are_away_stays_known():
    async def test(rig: RegistryRig) -> None:
        _, peer = rig.login(registration("a", 1, 0, "x.example"))
        peer.close()
        await until(lambda: rig.registry.tunnels == 0)
        assert rig.registry.lost == 1
        assert rig.tunnels_of("x.example") == 0
        rig.login(registration("a", 2, 0, "x.example"))
        assert rig.tunnels_of("x.example") == 1
        assert len(rig.tables) == 1

    with_registry(test)


def test_services_that_are_away_are_bounded_in_number(monkeypatch):
    monkeypatch.setattr(directory_module, "MAX_AWAY", 3)

    async def test(rig: RegistryRig) -> None:
        for i in range(6):
            member, _ = rig.login(registration("a", i, 0, f"h{i}.example"))
            member.link.close(18, "lost")
            await until(lambda: rig.registry.tunnels == 0)
        rig.registry.directory.publish()
        await until(lambda: rig.hosts() == {"h3.example", "h4.example", "h5.example"})

    with_registry(test)


# --- announcements ------------------------------------------------------------------------------


def test_an_announcement_replaces_the_list():
    async def test(rig: RegistryRig) -> None:
        _, peer = rig.login(registration("a", 1, 0, "x.example", "y.example"))
        peer.send(
            FRAME_CONTROL,
            announce_bytes([Match(host="y.example"), Match(host="z.example"), Match(name="db")]),
        )
        await until(lambda: rig.hosts() == {"y.example", "z.example"})
        assert set(rig.table.names) == {"db"}
        assert rig.table.lookup(b"x.example", b"/") is None, "withdrawn: nobody is waited for"

    with_registry(test)


def test_a_service_stays_while_another_agent_has_it():
    async def test(rig: RegistryRig) -> None:
        _, peer = rig.login(registration("a", 1, 0, "x.example"))
        rig.login(registration("a", 2, 0, "x.example"))
        peer.send(FRAME_CONTROL, announce_bytes([]))
        await until(lambda: rig.tunnels_of("x.example") == 1)

    with_registry(test)


def test_too_many_control_messages_end_the_tunnel():
    async def test(rig: RegistryRig) -> None:
        member, peer = rig.login(registration("a", 1, 0, "x.example"))
        other, _ = rig.login(registration("b", 1, 0, "x.example"))
        for _ in range(int(CONTROL_BURST) + 5):
            peer.send(FRAME_CONTROL, msgpack.packb({"type": "noise"}))
        await until(lambda: not member.link.alive)
        assert rig.registry.members() == [other]
        assert other.link.alive

    with_registry(test)


@pytest.mark.parametrize("payload", [b"", b"\xc1", msgpack.packb([]), msgpack.packb({"type": "announce"})])
def test_a_malformed_control_message_ends_the_tunnel(payload):
    async def test(rig: RegistryRig) -> None:
        member, peer = rig.login(registration("a", 1, 0, "x.example"))
        peer.send(FRAME_CONTROL, payload)
        await until(lambda: not member.link.alive)
        assert rig.registry.tunnels == 0

    with_registry(test)


# --- rights -------------------------------------------------------------------------------------

ORDERS = user("orders", "o.example", "*.shop.example", tunnels=2, streams=50)
STOCK = user("stock", "s.example", "o.example")


def test_an_unknown_token_is_refused():
    async def test(rig: RegistryRig) -> None:
        for token in (None, "", "nobody"):
            refusal = refused(rig, registration("a", 1, 0, "o.example", token=token))
            assert (refusal.status, refusal.code) == (401, "unauthenticated")

    with_registry(test, [ORDERS])


def test_services_without_a_right_are_refused():
    async def test(rig: RegistryRig) -> None:
        refusal = refused(rig, registration("a", 1, 0, "x.example", token="orders"))
        assert (refusal.status, refusal.code) == (403, "forbidden")
        member, peer = rig.login(registration("a", 1, 0, "a.shop.example", "x.example", token="orders"))
        assert rig.hosts() == {"a.shop.example"}
        await until(lambda: member.link.counters()["frames_out"])
        messages: list[dict] = []
        await until(lambda: messages.extend(peer.controls()) or messages)
        (service,) = messages[0]["services"]
        assert (messages[0]["type"], service["match"], service["code"]) == (
            "refused",
            "x.example/",
            "forbidden",
        )

    with_registry(test, [ORDERS])


def test_a_service_of_another_user_is_refused_until_he_is_gone():
    async def test(rig: RegistryRig) -> None:
        member, _ = rig.login(registration("a", 1, 0, "o.example", token="orders"))
        refusal = refused(rig, registration("b", 1, 0, "o.example", token="stock"))
        assert (refusal.status, refusal.code) == (409, "conflict")
        member.link.close(18, "lost")
        await until(lambda: rig.registry.tunnels == 0)
        rig.login(registration("b", 1, 0, "o.example", token="stock"))
        refusal = refused(rig, registration("a", 2, 0, "o.example", token="orders"))
        assert refusal.code == "conflict"

    with_registry(test, [ORDERS, STOCK])


def test_another_user_cannot_evict_with_the_same_names():
    async def test(rig: RegistryRig) -> None:
        member, _ = rig.login(registration("a", 1, 0, "o.example", token="orders"))
        rig.login(registration("a", 1, 0, "s.example", token="stock"))
        assert member.link.alive

    with_registry(test, [ORDERS, STOCK])


def test_numbers_of_tunnels():
    async def test(rig: RegistryRig) -> None:
        rig.login(registration("a", 1, 0, "o.example", token="orders"))
        rig.login(registration("a", 1, 1, "o.example", token="orders"))
        refusal = refused(rig, registration("a", 1, 2, "o.example", token="orders"))
        assert (refusal.status, refusal.code) == (429, "rate-limited")
        assert refusal.retry_after > 0
        rig.login(registration("a", 1, 1, "o.example", token="orders"))
        rig.login(registration("b", 1, 0, "s.example", token="stock"))
        refusal = refused(rig, registration("b", 1, 1, "s.example", token="stock"))
        assert (refusal.status, refusal.code) == (503, "overloaded")

    with_registry(test, [ORDERS, STOCK], max_tunnels=3)


def test_streams_are_the_least_of_both_limits():
    async def test(rig: RegistryRig) -> None:
        wanted = registration("b", 1, 0, "s.example", token="stock", streams=1000)
        assert rig.registry.streams_for(rig.admit(wanted)) == 70
        wanted = registration("b", 1, 0, "s.example", token="stock", streams=7)
        assert rig.registry.streams_for(rig.admit(wanted)) == 7

    with_registry(test, [ORDERS, STOCK], max_streams=70)


# --- reload -------------------------------------------------------------------------------------


def test_a_reload_that_takes_a_right_away_ends_it_for_live_tunnels():
    async def test(rig: RegistryRig) -> None:
        member, peer = rig.login(registration("a", 1, 0, "o.example", "a.shop.example", token="orders"))
        narrower = user("orders", "o.example")
        rig.registry.apply(Users([narrower]), Wants(), max_tunnels=100, max_streams=1000)
        assert member.link.alive
        assert rig.hosts() == {"o.example"}
        rig.registry.apply(Users([ORDERS]), Wants(), max_tunnels=100, max_streams=1000)
        assert rig.hosts() == {"o.example", "a.shop.example"}
        del peer

    with_registry(test, [ORDERS])


def test_a_reload_that_takes_the_token_away_ends_the_tunnel():
    async def test(rig: RegistryRig) -> None:
        member, _ = rig.login(registration("a", 1, 0, "o.example", token="orders"))
        other, _ = rig.login(registration("b", 1, 0, "s.example", token="stock"))
        rig.registry.apply(Users([STOCK]), Wants(), max_tunnels=100, max_streams=1000)
        assert not member.link.alive
        assert other.link.alive

    with_registry(test, [ORDERS, STOCK])


def test_a_reload_that_allows_fewer_tunnels_ends_the_newest():
    async def test(rig: RegistryRig) -> None:
        first, _ = rig.login(registration("a", 1, 0, "o.example", token="orders"))
        second, _ = rig.login(registration("a", 1, 1, "o.example", token="orders"))
        fewer = user("orders", "o.example", tunnels=1)
        rig.registry.apply(Users([fewer, STOCK]), Wants(), max_tunnels=100, max_streams=1000)
        assert (first.link.alive, second.link.alive) == (True, False)
        assert rig.tunnels_of("o.example") == 1

    with_registry(test, [ORDERS, STOCK])


def test_parts_of_what_another_user_has():
    narrow = user("narrow", "o.example")
    part = User(
        name="part", tokens=(digest("part"),), rights=Rights(services=(Match(host="o.example", path="/x"),))
    )
    wide = user("wide", "*.example", "")

    async def test(rig: RegistryRig) -> None:
        mine, _ = rig.login(registration("a", 1, 0, "o.example", token="narrow"))
        below = Match(host="o.example", path="/x")
        for name, verdict in (("wide", "conflict"), ("part", None), ("narrow", None)):
            principal = rig.registry.authenticate(Evidence(name))
            found = rig.registry._verdict(principal, below)
            assert (found and found[0]) == verdict
        rig.login(registration("b", 1, 0, "*.example", token="wide"))
        assert rig.hosts() == {"o.example", "*.example"}
        mine.link.close(18, "lost")
        await until(lambda: rig.registry.tunnels == 1)
        wider = rig.registry.authenticate(Evidence("wide"))
        assert rig.registry._verdict(wider, below) is None, "whose agents are away has nothing"

    with_registry(test, [narrow, part, wide])


# --- the table ----------------------------------------------------------------------------------


def test_a_table_that_takes_long_is_built_less_often(monkeypatch):
    monkeypatch.setattr(directory_module, "REBUILD_FREE_S", -1.0)

    async def test(rig: RegistryRig) -> None:
        rig.login(registration("a", 1, 0, "x.example"))
        planned: list[float] = []
        monkeypatch.setattr(rig.registry.directory, "_call_later", lambda delay, _: planned.append(delay))
        for i in range(50):
            rig.login(registration("b", i, 0, f"h{i}.example"))
        assert len(rig.tables) == 1
        assert len(planned) == 1 and planned[0] > 0
        monkeypatch.setattr(rig.registry.directory, "_not_before", 0.0)
        rig.registry.directory._publish_late()
        assert len(rig.hosts()) == 51

    with_registry(test)


class RegistryMachine(RuleBasedStateMachine):
    """Any order of logins, losses and announcements: the table is what a plain model says."""

    HOSTS = ("a.example", "b.example", "c.example")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.rig: RegistryRig = self.runner.run(self.make())
        self.live: dict[tuple[int, int], tuple] = {}
        self.known: set[str] = set()

    async def make(self) -> RegistryRig:
        return RegistryRig()

    async def settle(self) -> None:
        await until(lambda: self.rig.registry.tunnels == len(self.live))
        self.rig.registry.directory._not_before = 0.0
        self.rig.registry.directory.publish()

    @rule(
        instance=st.integers(1, 3),
        index=st.integers(0, 1),
        hosts=st.sets(st.sampled_from(HOSTS)),
    )
    def login(self, instance: int, index: int, hosts: set[str]) -> None:
        async def step() -> None:
            member, peer = self.rig.login(registration("a", instance, index, *sorted(hosts)))
            self.live[instance, index] = (member, peer, set(hosts))
            self.known |= hosts
            await self.settle()

        self.runner.run(step())

    @precondition(lambda self: self.live)
    @rule(data=st.data(), gracefully=st.booleans())
    def leave(self, data: st.DataObject, gracefully: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.live)))

        async def step() -> None:
            _, peer, _ = self.live.pop(key)
            peer.goaway() if gracefully else peer.close()
            await self.settle()

        self.runner.run(step())

    @precondition(lambda self: self.live)
    @rule(data=st.data(), hosts=st.sets(st.sampled_from(HOSTS)))
    def announce(self, data: st.DataObject, hosts: set[str]) -> None:
        key = data.draw(st.sampled_from(sorted(self.live)))

        async def step() -> None:
            member, _, before = self.live[key]
            member.control_credit = CONTROL_BURST
            self.rig.registry.on_control(member, announce_bytes([Match(host=host) for host in sorted(hosts)]))
            self.live[key] = (*self.live[key][:2], hosts)
            self.known |= hosts
            held = set().union(*(hosts for _, _, hosts in self.live.values()))
            self.known -= (before - hosts) - held
            await self.settle()

        self.runner.run(step())

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        assert self.rig.hosts() == self.known
        for host in self.known:
            expected = sum(host in hosts for _, _, hosts in self.live.values())
            assert self.rig.tunnels_of(host) == expected

    def teardown(self) -> None:
        self.runner.run(self.rig.close())
        self.runner.close()


RegistryMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
test_the_registry_against_a_model = RegistryMachine.TestCase


def test_the_same_on_asyncio():
    async def main() -> None:
        rig = RegistryRig()
        _, peer = rig.login(registration("a", 1, 0, "x.example"))
        peer.goaway()
        await until(lambda: rig.registry.tunnels == 0)
        await rig.close()

    run(main(), "asyncio")
