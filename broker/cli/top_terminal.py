"""The terminal of `broker top`: keys, the alternate screen, and asking the node without making keys wait."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from rich.console import Console, ConsoleDimensions
from rich.live import Live

from broker.cli.top_screen import Screen
from broker.errors import AdminError

Ask = Callable[[], dict[str, Any]]

TICK_S = 0.2  # how soon an answer, or another size of the terminal, is seen
WIDTH, HEIGHT = 80, 24  # of a terminal that does not say
RETRY_S = 1.0
QUITS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KEYS = {
    b"\x1b[A": "up",
    b"\x1b[B": "down",
    b"\x1b[C": "right",
    b"\x1b[D": "left",
    b"\x1bOA": "up",
    b"\x1bOB": "down",
    b"\x1bOC": "right",
    b"\x1bOD": "left",
    b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown",
    b"\x1b[H": "home",
    b"\x1b[1~": "home",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\x7f": "backspace",
    b"\x08": "backspace",
    b"\t": "tab",
}


def run(screen: Screen, ask: Ask, console: Console) -> None:
    """Until somebody quits. The terminal is as it was afterwards."""
    with (
        keyboard(screen) as descriptor,
        Live(console=console, screen=True, auto_refresh=False, transient=True) as live,
    ):
        asked: Future[dict[str, Any]] | None = None
        due = time.monotonic() + screen.interval
        while not screen.over:
            # The window itself, whatever COLUMNS says: its size changes. Where nobody has set one, it is 0.
            columns, lines = os.get_terminal_size(sys.stdout.fileno())
            console.size = ConsoleDimensions(columns or WIDTH, lines or HEIGHT)
            live.update(screen.draw(*console.size), refresh=True)
            for key in keys(descriptor, TICK_S):
                screen.key(key)
            if asked is not None and asked.done():
                due = time.monotonic() + take(screen, asked)
                asked = None
            if asked is None and not screen.paused and time.monotonic() >= due:
                asked = in_background(ask)


def in_background(ask: Ask) -> Future[dict[str, Any]]:
    """In a thread that nobody waits for: a node that does not answer does not keep who quits."""
    asked: Future[dict[str, Any]] = Future()

    def work() -> None:
        try:
            asked.set_result(ask())
        except Exception as error:
            asked.set_exception(error)

    threading.Thread(target=work, daemon=True).start()
    return asked


def take(screen: Screen, asked: Future[dict[str, Any]]) -> float:
    """An answer, or why there is none; seconds until the next try."""
    try:
        screen.answered(asked.result())
    except AdminError as error:
        screen.failed(str(error).splitlines()[0])
        return min(RETRY_S, screen.interval)
    return screen.interval


@contextmanager
def keyboard(screen: Screen) -> Iterator[int]:
    """Keys come at once and are not shown. Signals quit, and the terminal is put back.

    They raise nothing: an exception from a handler can come up where Python drops it (a finalizer).
    """

    def quit_(*_: object) -> None:
        screen.over = True

    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    handlers = {number: signal.signal(number, quit_) for number in QUITS}
    try:
        tty.setcbreak(descriptor)
        yield descriptor
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def keys(descriptor: int, timeout_s: float) -> Iterator[str]:
    """What was typed meanwhile; waits so long for something."""
    readable, _, _ = select.select([descriptor], [], [], timeout_s)
    if not readable:
        return
    data = os.read(descriptor, 256)
    if not data:  # the terminal is gone
        yield "q"
    yield from decoded(data)


def decoded(data: bytes) -> Iterator[str]:
    while data:
        found = max((each for each in KEYS if data.startswith(each)), key=len, default=b"")
        if found:
            yield KEYS[found]
            data = data[len(found) :]
        else:
            yield data[:1].decode("latin-1")
            data = data[1:]
