"""The parts of a node with several workers that decide something by themselves."""

import asyncio
import os
import pickle
import socket

import pytest

from broker.config import Flags, load
from broker.config.cores import usable_cores
from broker.config.model import Match
from broker.node.channel import Channel, ChannelLost, pair
from broker.node.crew import how_it_ended
from broker.node.reception import Reception
from broker.node.worker import share_of
from broker.ports.sockets import share
from broker.tunnel.handshake import Refusal
from broker.tunnel.ledger import (
    Claim,
    Ledger,
    Verdict,
    pack_claim,
    pack_verdict,
    parse_claim,
    parse_verdict,
)
from tests.unit.node_support import run, until

A, B = Match(host="a.example"), Match(host="b.example")


def claim(user: str, index: int = 0, *services: Match, may: int | None = None, port: int = 100) -> Claim:
    return Claim("green", (user, "agent", "0" * 32, index), "192.0.2.1", services, may, port)


# --- the ledger ---------------------------------------------------------------------------------


def test_limits_count_the_tunnels_of_all_workers():
    ledger = Ledger()
    for worker in (0, 1):
        verdict, evict = ledger.claim(worker, claim("one", worker, A, may=2))
        assert verdict.refusal is None and evict is None
    refused, _ = ledger.claim(2, claim("one", 2, A, may=2))
    assert refused.refusal is not None and refused.refusal.status == 429
    full, _ = ledger.claim(2, claim("two", 0, B, port=2))
    assert full.refusal is not None and full.refusal.status == 503
    first, _ = ledger.claim(0, claim("one", 0, A, may=2))  # the same tunnel once more is no further one
    assert first.refusal is None
    ledger.left(0, "green", claim("one", 0).key, first.generation)
    assert ledger.claim(2, claim("one", 2, A, may=2))[0].refusal is None
    assert (ledger.tunnels(0), ledger.tunnels(1), ledger.tunnels(2, "192.0.2.1")) == (0, 1, 1)
    assert ledger.tunnels(1, "192.0.2.9") == 0


def test_a_service_belongs_to_the_user_who_claimed_it_first():
    ledger = Ledger()
    held, _ = ledger.claim(0, claim("one", 0, A))
    partly, _ = ledger.claim(1, claim("two", 0, A, B))
    assert partly.refusal is None and partly.conflicts == {A}
    refused, _ = ledger.claim(1, claim("three", 0, A))
    assert refused.refusal is not None and refused.refusal.status == 409
    ledger.left(0, "green", claim("one", 0).key, held.generation)
    assert ledger.claim(1, claim("three", 0, A))[0].refusal is None
    # A list that is announced anew takes the place of the old one, and what it loses is free.
    ledger.claim(1, claim("two", 0))
    assert ledger.claim(0, claim("four", 0, B))[0].conflicts == frozenset()


def test_an_eviction_in_another_worker_is_fenced():
    ledger = Ledger()
    old, _ = ledger.claim(0, claim("one", 0, A))
    new, evict = ledger.claim(1, claim("one", 0, A))
    assert evict == 0
    ledger.left(0, "green", claim("one", 0).key, old.generation)  # comes late
    assert ledger.tunnels(1) == 1
    assert ledger.claim(1, claim("one", 0, A))[1] is None  # in the same worker its registry sees to it
    assert new.generation > old.generation
    ledger.lost(1)
    assert ledger.keys() == []
    assert ledger.claim(0, claim("two", 0, A))[0].refusal is None


def test_claims_and_verdicts_travel():
    asked = claim("one", 3, A, Match(name="db"), Match(name="tls/x.example"), may=7)
    assert parse_claim(pack_claim(asked)) == asked
    for verdict in (Verdict(5, conflicts=frozenset({A})), Verdict(refusal=Refusal(429, "x", "No.", 2))):
        back = parse_verdict(pack_verdict(verdict))
        assert (back.generation, back.conflicts) == (verdict.generation, verdict.conflicts)
        if verdict.refusal is not None:
            assert back.refusal is not None
            assert (back.refusal.status, back.refusal.retry_after) == (429, 2)


# --- what each worker gets ------------------------------------------------------------------------


@pytest.mark.parametrize(("tunnels", "count"), [(2, 1), (2, 2), (2, 3), (7, 3), (64, 5)])
def test_workers_dial_their_share(tunnels, count):
    flags = Flags(
        external=("http://127.0.0.1:0",),
        connect=("http://127.0.0.1:1",),
        services=("http://127.0.0.1:2",),
        tunnels=tunnels,
    )
    config = load(None, flags)
    shares = [share_of(config, index, count) for index in range(count)]
    assert sum(each.tunnels for config in shares for each in config.connect) == tunnels
    assert pickle.loads(pickle.dumps(config)) == config


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_limits_on_those_that_wait_are_the_nodes(count):
    flags = Flags(external=("http://127.0.0.1:0",), registration=("http://127.0.0.1:0",))
    config = load(None, flags)
    shares = [share_of(config, index, count) for index in range(count)]
    [strangers], [port] = [each.strangers for each in config.registration], config.external
    for name in ("early", "most", "per_address"):
        total = sum(getattr(each.strangers, name) for share in shares for each in share.registration)
        assert 0 <= total - getattr(strangers, name) < count
    assert (
        0
        <= sum(each.limits.waiting for share in shares for each in share.external) - port.limits.waiting
        < count
    )


def test_sockets_are_shared_out_by_address():
    sockets = []
    for address in ("127.0.0.1", "127.0.0.2"):
        port = 0
        for _ in range(3):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((address, port))
            port = sock.getsockname()[1]
            sockets.append(sock)
    three = [share(sockets, index, 3) for index in range(3)]
    assert [len(each) for each in three] == [2, 2, 2] and len({s for each in three for s in each}) == 6
    two = [share(sockets, index, 2) for index in range(2)]
    assert sorted(len(each) for each in two) == [2, 4], "none is left out"
    assert all(share(sockets, index, 4) == sockets for index in range(4)), "too few: everybody has all"
    for sock in sockets:
        sock.close()


def test_cores_of_a_container(tmp_path):
    here = len(os.sched_getaffinity(0))
    quota = tmp_path / "cpu.max"
    assert usable_cores(tmp_path) == here
    for text, expected in (("max 100000", here), ("50000 100000", 1), ("9900000 100000", here), ("x", here)):
        quota.write_text(text)
        assert usable_cores(tmp_path) == expected
    quota.write_text("150000 100000")
    assert usable_cores(tmp_path) == min(2, here)


def test_agents_go_to_the_worker_that_has_the_fewest_of_them():
    async def main():
        passed = []
        has = {(1, "127.0.0.1"): 1}

        def tunnels(worker, host):
            return has.get((worker, host), 0)

        def pass_on(worker, port, sock, address):
            passed.append((worker, port, address[0]))

        reception = Reception(lambda: [0, 1, 2], tunnels, pass_on)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setblocking(False)
            reception.serve([("green", [listener])])
            clients = []
            for number in range(1, 4):
                clients.append(socket.create_connection(listener.getsockname()))
                await until(lambda n=number: len(passed) == n)
            reception.hold()
            clients.append(socket.create_connection(listener.getsockname()))
            await asyncio.sleep(0.02)
            assert [worker for worker, _, _ in passed] == [0, 2, 0], "those under way count"
            reception.resume()
            await until(lambda: len(passed) == 4)
            reception.serve([])
            for client in clients:
                client.close()

    run(main())


def test_how_a_process_ended_is_said_in_words():
    assert how_it_ended(-9) == "was ended by SIGKILL" and how_it_ended(3) == "ended with exit code 3"


# --- channels -------------------------------------------------------------------------------------


def test_a_channel_carries_messages_with_descriptors_and_blobs():
    async def main():
        ours, theirs = pair()
        seen, ended = [], asyncio.Event()

        def on_message(message, sockets, blob):
            seen.append((message, [sock.getsockname() for sock in sockets], len(blob)))
            for sock in sockets:
                sock.close()
            if "id" in message:
                far.answer(message, {"twice": message["n"] * 2}, blob=blob)

        near = Channel(ours, lambda *_: None, ended.set)
        far = Channel(theirs, on_message, lambda: None)
        with (
            socket.create_server(("127.0.0.1", 0)) as first,
            socket.create_server(("127.0.0.1", 0)) as second,
        ):
            near.send({"do": "a"}, [first, second])
            near.send({"do": "b"}, [second], blob=b"x" * 3_000_000)  # more than the kernel takes at once
            answer, blob = await near.ask({"n": 21}, blob=b"y" * 100_000)
            assert answer["twice"] == 42 and blob == b"y" * 100_000
            assert [len(sockets) for _, sockets, _ in seen] == [2, 1, 0]
            assert seen[0][1] == [first.getsockname(), second.getsockname()]
            assert seen[1][1] == [second.getsockname()] and seen[1][2] == 3_000_000
        far._on_message = lambda *_: None
        with pytest.raises(ChannelLost):
            await near.ask({"n": 1}, timeout_s=0.01)
        # The other end goes away with unread bytes: an error of the socket, and an end all the same.
        far._loop.remove_reader(far._epoll.fileno())
        near.send({"do": "unread"})
        waiting = asyncio.create_task(near.ask({"n": 1}))
        await asyncio.sleep(0)
        far.close()
        await ended.wait()
        with pytest.raises(ChannelLost):
            await waiting
        with pytest.raises(ChannelLost):
            await near.ask({"n": 1})

    run(main())
