"""`broker top` without a terminal: its screen, its keys, its rates."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from broker.cli.top_screen import INTERVALS, Screen
from broker.cli.top_terminal import decoded
from broker.cli.top_views import NAMES, VIEWS
from broker.observe.rates import Rates
from broker.observe.snapshot import DOCUMENT

SERVICE: dict[str, Any] = {
    "at": None,
    "registration": "green",
    "service": "a.example/",
    "kind": "http",
    "tunnels": 1,
    "exchanges": 0,
    "failures": {},
    "backends": [],
}
TUNNEL: dict[str, Any] = {
    "agent": "a",
    "index": 0,
    "user": "ops",
    "registration": "green",
    "peer": "10.0.0.1:5",
    "since": 90.0,
    "rtt_us": 1500,
    "rate_in": 100,
    "rate_out": 5,
    "streams": 2,
    "window_bytes": 65536,
    "stalls": 0,
    "draining": False,
}


def status(time: float, pid: int = 1, exchanges: int = 0, failed: int = 0, **more: Any) -> dict[str, Any]:
    services = [
        {**SERVICE, "exchanges": exchanges, "failures": {"no-agent": failed}},
        {**SERVICE, "service": "b.example/"},
        {**SERVICE, "service": "c.example/", "tunnels": 0},
    ]
    base = {"node": "dmz", "time": time, "pid": pid, "state": "serving", "ready": True, "uptime_s": 100.0}
    base |= {"process": {"cpu_s": time / 10, "started": pid}, "external": [], "services": services}
    return {**base, "tunnels": [TUNNEL, {**TUNNEL, "agent": "b", "rate_in": 900}], **more}


def drawn(screen: Screen, width: int = 100, height: int = 20) -> list[str]:
    console = Console(width=width, height=height, highlight=False, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(screen.draw(width, height))
    return [line.rstrip() for line in captured.get().splitlines()]


def fed(*documents: dict[str, Any], **settings: Any) -> Screen:
    screen = Screen(**settings)
    for each in documents:
        screen.answered(each)
    return screen


def test_rates_are_those_of_a_window() -> None:
    rates = Rates(window_s=10)
    assert rates.per_second("exchanges") is None
    for moment in range(0, 31, 2):
        rates.add(status(float(moment), exchanges=moment * moment))
    assert rates.seconds == 10
    assert rates.per_second("exchanges") == (30 * 30 - 20 * 20) / 10
    assert rates.per_second("cpu") == pytest.approx(0.1)
    assert rates.per_second("unheard of") == 0


def test_another_process_counts_anew() -> None:
    rates = Rates()
    rates.add(status(1.0, exchanges=1000))
    rates.add(status(2.0, exchanges=1100))
    rates.add(status(3.0, pid=2, exchanges=3))
    assert rates.per_second("exchanges") is None
    rates.add(status(4.0, pid=2, exchanges=7))
    assert rates.per_second("exchanges") == 4


def test_services_by_their_rate() -> None:
    screen = fed(status(1.0), status(3.0, exchanges=50, failed=4))
    lines = drawn(screen, 120)
    assert lines[0] == "dmz: serving, ready, up for 100 s"
    assert lines[1].startswith("25.0 req/s  2.0 failures/s")
    assert "cpu 10 %" in lines[2] and lines[2].startswith("2 tunnels  4 streams")
    assert lines[5].split() == [
        "a.example/",
        "http",
        "green",
        "1",
        "tunnel",
        "25.0",
        "50",
        "-",
        "-",
        "2.0",
        "4",
    ]
    assert "no tunnels" in lines[7]
    assert lines[-1].startswith("1 to 3 of 3  every 2 s")


def test_keys_choose_sort_filter_and_stand_still() -> None:
    screen = fed(status(1.0), status(2.0))
    screen.key("2")
    assert screen.shown.name == "tunnels"
    assert [row["agent"] for row in screen.rows()] == ["b", "a"], "the largest rate first"
    screen.key("r")
    assert [row["agent"] for row in screen.rows()] == ["a", "b"]
    for _ in screen.shown.columns:
        screen.key("right")
    assert screen.sort == ("in_s", False), "once round"
    for key in ("/", "b", "x", "backspace", "enter"):
        screen.key(key)
    assert [row["agent"] for row in screen.rows()] == ["b"]
    assert "only with 'b'" in drawn(screen)[-1]
    screen.key("escape")
    assert len(screen.rows()) == 2
    screen.key("p")
    assert "standing still" in drawn(screen)[-1]
    screen.key("h")
    assert "sort by another column" in "\n".join(drawn(screen))
    screen.key("x")
    screen.key("tab")
    assert screen.shown.name == "agents"
    for _ in INTERVALS:
        screen.key("+")
    assert screen.interval == INTERVALS[0]
    assert not screen.over
    screen.key("q")
    assert screen.over


def test_many_rows_are_scrolled() -> None:
    many = [{**TUNNEL, "agent": f"agent-{number:04}", "rate_in": number} for number in range(1000)]
    screen = fed(status(1.0, tunnels=many), view=1)
    lines = drawn(screen, 100, 20)
    assert len(lines) == 20
    assert lines[5].startswith("agent-0999") and lines[-1].startswith("1 to 14 of 1000")
    screen.key("pagedown")
    assert drawn(screen, 100, 20)[5].startswith("agent-0979")
    for _ in range(100):
        screen.key("pagedown")
    assert drawn(screen, 100, 20)[-2].startswith("agent-0000")
    assert len(drawn(screen, 100, 40)) == 40, "the window has grown"


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("view", range(len(VIEWS)))
def test_it_fits_every_width(width: int, view: int) -> None:
    agents = [
        {"agent": "x" * 64, "user": "u" * 64, "at": "green", "tunnels": 1, "rate_in": 1 << 40, "rate_out": 0}
    ]
    failures = [
        {
            "time": 1.0,
            "code": "no-agent",
            "reason": "r" * 200,
            "target": "/" * 300,
            "host": "h",
            "method": "GET",
        }
    ]
    screen = fed(status(1.0, agents=agents, last_failures=failures), view=view)
    for line in drawn(screen, width):
        assert len(line) <= width


def test_names_cannot_steer_the_terminal() -> None:
    evil = {**TUNNEL, "agent": "\x1b[2J\x1b]0;pwned\x07[red]x[/red]\n"}
    screen = fed(status(1.0, tunnels=[evil], node="\x1b[31mnode", ready=False, reasons=["\x1b[1m\n"]), view=1)
    text = "\n".join(drawn(screen))
    assert "\x1b" not in text and "\x07" not in text
    assert "[red]x[/red]" in text


def test_a_node_that_does_not_answer() -> None:
    screen = fed(status(1.0), status(2.0, exchanges=10))
    screen.failed("no answer from http://127.0.0.1:7001")
    lines = drawn(screen)
    assert lines[0].startswith("no answer for 0 s: no answer from http://127.0.0.1:7001")
    assert "a.example/" in "\n".join(lines)
    screen.answered(status(3.0, pid=2))
    assert drawn(screen)[0].startswith("dmz: serving, ready")


def test_keys_of_terminals() -> None:
    assert list(decoded(b"\x1b[A\x1bOB2/a\x7f\r\x1b[6~\x1bq")) == [
        *("up", "down", "2", "/", "a", "backspace", "enter", "pagedown", "escape", "q"),
    ]


def test_what_is_shown_is_in_the_status() -> None:
    """The views ask for fields that the status has: with every field there, every column has a value."""

    def example(part: Any) -> Any:
        fields = getattr(part, "fields", None)
        if fields is not None:
            return {name: example(each) for name, each in fields.items()}
        item = getattr(part, "item", None)
        if item is not None:
            return [example(item)]
        kind = part.shape()["type"]
        return {
            "string": "x",
            "integer": 1,
            "number": 2.0,
            "boolean": True,
            "array": [0] * 6,
            "object": {"c": 1},
        }[kind]

    document = example(DOCUMENT)
    screen = fed(document, {**document, "time": 5.0})
    for place, name in enumerate(NAMES):
        screen.view = place
        (row,) = screen.rows()
        missing = [column.key for column in screen.shown.columns if row.get(column.key) is None]
        assert missing == [], name
    schema = json.loads((Path(__file__).parents[2] / "docs" / "status.schema.json").read_text())
    assert set(document) == set(schema["properties"])
