"""The application log: two forms, no control characters, and no flood that strangers could cause."""

import io
import json
import logging
import os
import re
import sys

import pytest

from broker.node.status import by_code
from broker.observe import logs
from broker.observe.limited import MAX_KINDS, Limiter
from broker.observe.logs import AS_USUAL, LogOptions, TextFormatter
from broker.ports.external import add_counters


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def log_to():
    """Sets the log up as a program would, and puts back what pytest had."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level

    def set_up(stream: io.StringIO, options: LogOptions = AS_USUAL) -> logging.Logger:
        logs.set_up(options, stream)
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
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    log_to(out).warning("from %s", "a stranger\r\n\x1b[2J")
    (line,) = out.getvalue().splitlines()
    assert "\x1b[33mwarning\x1b[0m" in line
    assert line.endswith(r"from a stranger\r\n\x1b[2J")


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_where_they_are_not_wanted(log_to, monkeypatch, name, value):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv(name, value)
    out = Terminal()
    log_to(out).error("no")
    assert "\x1b" not in out.getvalue()


def test_an_empty_no_color_says_nothing(log_to, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "")
    monkeypatch.setenv("TERM", "xterm")
    out = Terminal()
    log_to(out).error("colourful")
    assert "\x1b[31merror" in out.getvalue()


def test_the_format_that_was_asked_for(log_to):
    terminal, file = Terminal(), io.StringIO()
    log_to(terminal, LogOptions("json")).info("a")
    log_to(file, LogOptions("text")).info("b")
    assert json.loads(terminal.getvalue())["message"] == "a"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z info b\n", file.getvalue())


def test_the_level_that_was_asked_for(log_to):
    for level, shown in (("debug", "dwe"), ("info", "we"), ("error", "e")):
        out = io.StringIO()
        log = log_to(out, LogOptions("text", level))
        log.debug("d")
        log.warning("w")
        log.error("e")
        assert "".join(line[-1] for line in out.getvalue().splitlines()) == shown


@pytest.mark.parametrize("form", ["auto", "text"])
def test_the_journal_gets_priorities(log_to, monkeypatch, tmp_path, form):
    """sd-daemon(3): each line begins with its priority, where standard error is the journal's socket."""
    with (tmp_path / "journal").open("w+") as out:
        found = os.fstat(out.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
        log = log_to(out, LogOptions(form))
        log.warning("w")
        try:
            sys.intern(5)
        except TypeError:
            log.exception("e")
        out.seek(0)
        first, *rest = out.read().splitlines()
    assert first.startswith("<4>")
    assert all(line.startswith("<3>") for line in rest), "of several lines each"
    assert len(rest) == 1 or form == "text"
    if form == "auto":
        assert json.loads(first.removeprefix("<4>"))["message"] == "w"
    else:
        assert first == "<4>w"


def test_another_stream_than_the_journal_has_no_priorities(log_to, monkeypatch, tmp_path):
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    with (tmp_path / "file").open("w+") as out:
        log_to(out).info("a")
        out.seek(0)
        assert json.loads(out.read())["message"] == "a"


def test_what_an_exception_says_is_escaped():
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        record = logging.getLogger("x").makeRecord("x", 40, "f", 1, "m", (), sys.exc_info())
    assert "\x1b" not in TextFormatter().format(record)


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
