"""A program in a terminal of its own: what it draws, what is typed, how large the window is."""

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from typing import Self

from tests.harness.process import environment
from tests.harness.waiting import DEADLINE, wait_until

CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


class Terminal:
    """`broker ARGS` in a window; use as a context manager."""

    def __init__(
        self, *args: str, width: int = 120, height: int = 30, env: dict[str, str] | None = None
    ) -> None:
        self._master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self._slave = slave  # kept open, to look at its settings afterwards
        self.resize(width, height)
        self.raw = b""
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "broker", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment({"TERM": "xterm-256color", **(env or {})}),
            start_new_session=True,
        )

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: str) -> None:
        os.write(self._master, keys.encode())

    def read(self) -> None:
        while select.select([self._master], [], [], 0.02)[0]:
            self.raw += os.read(self._master, 65536)

    @property
    def screen(self) -> str:
        """What was drawn last: everything since the cursor went home."""
        self.read()
        return CONTROL.sub(b"", self.raw.rpartition(b"\x1b[H")[2]).decode("utf-8", "replace")

    def wait(self, words: str, deadline: float = DEADLINE) -> None:
        wait_until(lambda: words in self.screen or None, f"{words!r} on the screen: {self.screen}", deadline)

    def expect_exit(self, code: int) -> None:
        """It has ended so, and left the terminal as it was."""
        seen = wait_until(
            lambda: (self._popen.poll() is not None and [self._popen.returncode]) or self.read()
        )
        assert seen == [code], self.raw[-2000:]
        assert termios.tcgetattr(self._slave) == self.before
        self.read()
        assert self.raw.count(b"\x1b[?1049h") == self.raw.count(b"\x1b[?1049l")

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._popen.poll() is None:
            self._popen.kill()
            self._popen.wait()
        os.close(self._master)
        os.close(self._slave)
