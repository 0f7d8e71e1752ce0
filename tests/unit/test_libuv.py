"""Who sleeps in the loop, and that the loop misses nothing meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest

from _fastpath import libuv
from _fastpath.reactor import Reactor
from tests.unit.node_support import run

# What is not noticed is found by the reactor's next tick, and as each try begins right after one, that takes
# nearly 50 ms each time but the first. A busy machine makes some tries slow, not all.
SOON_S = 0.025
TRIES = 20

Body = Callable[[Reactor], Awaitable[None]]
Loop = asyncio.AbstractEventLoop
Woken = asyncio.Future[None]


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    """Whoever began a turn has ended it."""
    yield
    assert libuv.held == set()


async def with_reactor(body: Body) -> None:
    reactor = Reactor(asyncio.get_running_loop())
    reactor.start()
    try:
        await body(reactor)
    finally:
        reactor.close()


async def delay_of(wake: Callable[[Loop, Woken], None]) -> float:
    """The shortest delay between a cause in another thread and its callback, the first left out."""
    loop = asyncio.get_running_loop()
    delays = []
    for _ in range(TRIES):
        woken = loop.create_future()
        moment: list[float] = []

        def cause(woken: Woken = woken, moment: list[float] = moment) -> None:
            time.sleep(0.002)  # so that the loop sleeps
            moment.append(time.monotonic())
            wake(loop, woken)

        thread = threading.Thread(target=cause)
        thread.start()
        await woken
        delays.append(time.monotonic() - moment[0])
        thread.join()
    return min(delays[1:])


def test_uvloop_offers_a_turn() -> None:
    assert libuv.direct


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_calls_from_other_threads_wake_the_loop(loop: str) -> None:
    async def body(reactor: Reactor) -> None:
        def wake(loop: Loop, woken: Woken) -> None:
            loop.call_soon_threadsafe(woken.set_result, None)

        assert await delay_of(wake) < SOON_S

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_descriptors_of_the_loop_wake_it(loop: str) -> None:
    async def body(reactor: Reactor) -> None:
        ours, theirs = socket.socketpair()
        waiting: list[Woken] = []

        def read() -> None:
            ours.recv(10)
            waiting.pop().set_result(None)

        def wake(loop: Loop, woken: Woken) -> None:
            waiting.append(woken)
            theirs.send(b"x")

        asyncio.get_running_loop().add_reader(ours, read)
        assert await delay_of(wake) < SOON_S
        asyncio.get_running_loop().remove_reader(ours)
        ours.close()
        theirs.close()

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_signals_wake_the_loop(loop: str) -> None:
    async def body(reactor: Reactor) -> None:
        waiting: list[Woken] = []
        running = asyncio.get_running_loop()
        running.add_signal_handler(signal.SIGUSR1, lambda: waiting.pop().set_result(None))

        def wake(loop: Loop, woken: Woken) -> None:
            waiting.append(woken)
            os.kill(os.getpid(), signal.SIGUSR1)

        assert await delay_of(wake) < SOON_S
        running.remove_signal_handler(signal.SIGUSR1)

    run(with_reactor(body), loop)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_timers_are_not_late(loop: str) -> None:
    async def body(reactor: Reactor) -> None:
        late = []
        for _ in range(TRIES):
            begun = time.monotonic()
            await asyncio.sleep(0.005)
            late.append(time.monotonic() - begun - 0.005)
        assert -0.002 < min(late) < SOON_S  # libuv counts in milliseconds

    run(with_reactor(body), loop)


def test_a_second_reactor_in_the_loop_is_watched_by_it() -> None:
    async def body(first: Reactor) -> None:
        held = set(libuv.held)
        assert len(held) == 1

        async def inner(second: Reactor) -> None:
            assert libuv.held == held

        await with_reactor(inner)
        assert libuv.held == held

    run(with_reactor(body))


def test_a_turn_ends_with_its_reactor_and_can_be_had_again() -> None:
    async def body() -> None:
        for _ in range(3):
            await with_reactor(lambda reactor: asyncio.sleep(0))
            assert libuv.held == set()

    run(body())


def test_a_closed_reactor_is_let_go() -> None:
    async def body() -> None:
        reactor = Reactor(asyncio.get_running_loop())
        before = sys.getrefcount(reactor)
        reactor.start()
        reactor.close()
        await asyncio.sleep(0)
        assert sys.getrefcount(reactor) == before

    run(body())
