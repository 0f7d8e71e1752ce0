"""The application log: two forms, no control characters, and no flood that strangers could cause."""

import io
import json
import logging
import sys

import pytest

from broker.node.status import by_code
from broker.observe import logs
from broker.observe.limited import MAX_KINDS, Limiter
from broker.ports.external import add_counters


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log_to():
    """Sets the log up as a program would, and puts back what pytest had."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def set_up(stream: io.StringIO) -> logging.Logger:
        logs.set_up(stream)
        return logging.getLogger("broker.test")

    yield set_up
    root.handlers[:] = handlers
    root.setLevel(level)


def test_json_where_nobody_looks(log_to):
    out = io.StringIO()
    log_to(out).info(
        "listening %s", "here\n\x1b[31m", extra={"fields": {"event": "listening", "url": "http://x"}}
    )
    (line,) = out.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["message"] == "listening here\n\x1b[31m"
    assert (entry["level"], entry["logger"], entry["event"]) == ("info", "broker.test", "listening")
    assert entry["time"].endswith("Z")
    assert "\x1b" not in line


def test_lines_for_people(log_to, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = Terminal()
    log_to(out).warning("from %s", "a stranger\r\n\x1b[2J")
    (line,) = out.getvalue().splitlines()
    assert "\x1b[33mwarning\x1b[0m" in line
    assert line.endswith(r"from a stranger\r\n\x1b[2J")


def test_no_colours_where_they_are_not_wanted(log_to, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    log_to(out).error("no")
    assert "\x1b" not in out.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal])
def test_a_failure_shows_where(log_to, stream):
    out = stream()
    log = log_to(out)
    try:
        sys.intern(5)
    except TypeError:
        log.exception("failed")
    assert "TypeError" in out.getvalue()


def test_one_line_per_kind_and_interval():
    now = [0.0]
    limiter = Limiter(10, clock=lambda: now[0])
    assert limiter.passes("a") == 0
    assert [limiter.passes("a") for _ in range(5)] == [None] * 5
    assert limiter.passes("b") == 0
    now[0] = 10
    assert limiter.passes("a") == 5
    assert limiter.passes("a") is None


def test_kinds_are_forgotten_not_collected():
    limiter = Limiter()
    for i in range(MAX_KINDS * 2):
        assert limiter.passes(i) == 0
    assert len(limiter._kinds) == MAX_KINDS
    assert limiter.passes(0) == 0


def test_counters_of_several_listeners_add_up():
    total: dict = {}
    for _ in range(2):
        add_counters(total, {"n": 1, "statuses": [1, 2], "failures": {5: 1}})
    assert total == {"n": 2, "statuses": [2, 4], "failures": {5: 2}}
    assert by_code({0: 1, 17: 2, 12: 1, 999: 1}) == {"upstream-protocol": 3, "body-too-large": 1, "999": 1}
