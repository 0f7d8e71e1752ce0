"""What takes time says what it does: on standard error, in a terminal, and nothing without one."""

import os
import pty
import re
import subprocess
import sys
import threading

import pytest

from tests.harness.nodes import World
from tests.harness.ports import free_port
from tests.harness.process import environment, run_broker

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def in_terminal(*args: str, env: dict[str, str] | None = None) -> tuple[str, str]:
    """What a command writes to standard output, a pipe, and to standard error, a terminal."""
    ours, theirs = pty.openpty()
    shown: list[bytes] = []

    def collect() -> None:
        while True:
            try:
                data = os.read(ours, 4096)
            except OSError:  # as a terminal says that nobody is left
                return
            shown.append(data)

    reader = threading.Thread(target=collect)
    process = subprocess.Popen(
        [sys.executable, "-m", "broker", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment({"TERM": "xterm", "NO_COLOR": "", "COLUMNS": "100", **(env or {})}),
        text=True,
    )
    os.close(theirs)
    reader.start()
    out, _ = process.communicate(timeout=60)
    reader.join()
    os.close(ours)
    return out, b"".join(shown).decode()


COMMANDS = {
    "demo": (("demo", "--once"), "starting the agent"),
    "bench": (("bench", "--seconds", "0.5", "--connections", "4"), "starting a DMZ node and an agent"),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_in_a_terminal(name: str) -> None:
    args, what = COMMANDS[name]
    out, shown = in_terminal(*args)
    assert what in ESCAPES.sub("", shown)
    assert what not in out
    assert "\x1b" not in out


def test_the_doctor_in_a_terminal(world: World) -> None:
    out, shown = in_terminal("doctor", world.dmz().registration_url())
    assert "looking" in shown
    assert "\x1b" not in out
    assert "round trip" in out


@pytest.mark.parametrize("quiet", ["--quiet", "--json"])
def test_quiet_is_quiet(quiet: str) -> None:
    _, shown = in_terminal(*COMMANDS["bench"][0], quiet)
    assert shown == ""


def test_without_colours() -> None:
    """NO_COLOR takes colours away, and leaves what is said."""
    _, shown = in_terminal("demo", "--once", env={"NO_COLOR": "1"})
    assert "starting the agent" in shown
    assert not re.search(r"\x1b\[[0-9;]*m", shown)


@pytest.mark.parametrize(
    "args", [COMMANDS["demo"][0], COMMANDS["bench"][0], ("doctor", "http://127.0.0.1:{port}")]
)
def test_without_a_terminal(args: tuple[str, ...]) -> None:
    _, out, err = run_broker(*(each.format(port=free_port()) for each in args))
    assert err == ""
    assert out
    assert "\x1b" not in out
