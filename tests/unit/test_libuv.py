"""Who sleeps in the loop, and that the loop misses nothing meanwhile."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import statistics
import threading
import time

import pytest

from _fastpath import libuv
from _fastpath.reactor import Reactor
from tests.unit.node_support import run

# Of the reactor's tick: who waits longer than half of it was not noticed, but found by it.
SOON_S = 0.025
TRIES = 20


@pytest.fixture(autouse=True)
def nobody_is_left():
    """Whoever began a turn has ended it."""
    yield
    assert libuv.held == set()


async def with_reactor(body) -> None:
    reactor = Reactor(asyncio.get_running_loop())
    reactor.start()
    try:
        await body(reactor)
    finally:
        reactor.close()


async def delay_of(wake) -> float:
    """The median of some delays between a cause in another thread and its callback in the loop."""
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(TRIES):
        woken = loop.create_future()
        moment: list[float] = []

        def cause(woken=woken, moment=moment) -> None:
            time.sleep(0.002)  # so that the loop sleeps
            moment.append(time.monotonic())
            wake(loop, woken)

        thread = threading.Thread(target=cause)
        thread.start()
        await woken
        delays.append(time.monotonic() - moment[0])
        thread.join()
    return statistics.median(delays)


def test_uvloop_offers_a_turn():
    assert libuv.direct


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_calls_from_other_threads_wake_the_loop(loop):
    async def body(reactor: Reactor) -> None:
        def wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
            loop.call_soon_threadsafe(woken.set_result, None)

        assert await delay_of(wake) < SOON_S

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_descriptors_of_the_loop_wake_it(loop):
    async def body(reactor: Reactor) -> None:
        ours, theirs = socket.socketpair()
        waiting: list[asyncio.Future[None]] = []

        def read() -> None:
            ours.recv(10)
            waiting.pop().set_result(None)

        def wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
            waiting.append(woken)
            theirs.send(b"x")

        # Watched from outside of a callback that the loop knows of, too: nothing but the turn tells libuv.
        asyncio.get_running_loop().add_reader(ours, read)
        assert await delay_of(wake) < SOON_S
        asyncio.get_running_loop().remove_reader(ours)
        ours.close()
        theirs.close()

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_signals_wake_the_loop(loop):
    async def body(reactor: Reactor) -> None:
        waiting: list[asyncio.Future[None]] = []
        running = asyncio.get_running_loop()
        running.add_signal_handler(signal.SIGUSR1, lambda: waiting.pop().set_result(None))

        def wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
            waiting.append(woken)
            os.kill(os.getpid(), signal.SIGUSR1)

        assert await delay_of(wake) < SOON_S
        running.remove_signal_handler(signal.SIGUSR1)

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_timers_are_not_late(loop):
    async def body(reactor: Reactor) -> None:
        late = []
        for _ in range(TRIES):
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            late.append(time.monotonic() - begun - 0.005)
        assert statistics.median(late) < SOON_S
        assert min(late) > -0.002  # libuv counts in milliseconds

    run(with_reactor(body), loop)


def test_a_second_reactor_in_the_loop_is_watched_by_it():
    async def body(first: Reactor) -> None:
        held = set(libuv.held)
        assert len(held) == 1

        async def inner(second: Reactor) -> None:
            assert libuv.held == held

        await with_reactor(inner)
        assert libuv.held == held

    run(with_reactor(body))


def test_a_turn_ends_with_its_reactor_and_can_be_had_again():
    async def body() -> None:
        for _ in range(3):
            await with_reactor(lambda reactor: asyncio.sleep(0))
            assert libuv.held == set()

    run(body())


def test_a_closed_reactor_is_let_go():
    async def body() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        before = gc.get_referrers(reactor)
        reactor.start()
        reactor.close()
        await asyncio.sleep(0)
        assert len(gc.get_referrers(reactor)) == len(before)

    run(body())
