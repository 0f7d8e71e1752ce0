"""The screen of `broker top`: what keys do and what is drawn. It knows no terminal."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from rich.console import Group, RenderableType
from rich.style import Style
from rich.table import Table
from rich.text import Text

from broker.cli.tables import amount, plain, span
from broker.cli.top_views import NAMES, VIEWS, View, bytes_per_second, per_second, totals
from broker.observe.rates import Rates

HEAD_LINES = 5  # three of the head, the views, the titles
FOOT_LINES = 1
HELP = (
    ("1 to 6, Tab", "choose what is shown"),
    ("left, right", "sort by another column"),
    ("r", "sort the other way round"),
    ("up, down, page up, page down", "scroll"),
    ("/", "show only rows with a text; Enter keeps it, Esc clears it"),
    ("p, space", "stand still, go on"),
    ("+, -", "ask more often, less often"),
    ("h, ?", "this help"),
    ("q", "quit"),
)
INTERVALS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


@dataclass
class Screen:
    interval: float = 2.0
    view: int = 0
    sorts: dict[str, tuple[str, bool]] = field(default_factory=dict)
    """By view: the column, and whether the smallest comes first."""
    status: dict[str, Any] | None = None
    rates: Rates = field(default_factory=Rates)
    filter: str = ""
    typing: bool = False
    paused: bool = False
    helping: bool = False
    over: bool = False
    offset: int = 0
    trouble: str = ""
    """Why the node does not answer; "" where it does."""
    heard: float = 0.0
    """By the monotonic clock: the last answer."""

    # --- what comes in --------------------------------------------------------------------------

    def answered(self, status: dict[str, Any]) -> None:
        self.status, self.trouble, self.heard = status, "", time.monotonic()
        self.rates.add(status)

    def failed(self, reason: str) -> None:
        self.trouble = reason

    def key(self, key: str) -> None:
        """One character, or the name of a key: up, down, left, right, pageup, pagedown, home, enter, escape,
        backspace, tab."""
        if self.typing:
            self._type(key)
        elif key in ("q", "\x03"):
            self.over = True
        elif self.helping:
            self.helping = False
        elif key in ("h", "?"):
            self.helping = True
        elif key in ("tab", *"123456"):
            self.view = (self.view + 1) % len(VIEWS) if key == "tab" else int(key) - 1
            self.offset = 0
        elif key in ("left", "right", "<", ">"):
            self._sort_by_next(1 if key in ("right", ">") else -1)
        elif key == "r":
            column, up = self.sort
            self.sorts[self.shown.name] = column, not up
        elif key in ("up", "down", "pageup", "pagedown", "home"):
            step = {"up": -1, "down": 1, "pageup": -20, "pagedown": 20, "home": -(1 << 30)}[key]
            self.offset = max(0, self.offset + step)
        elif key == "/":
            self.typing = True
        elif key == "escape":
            self.filter = ""
        elif key in ("p", " "):
            self.paused = not self.paused
        elif key in ("+", "=", "-"):
            self._change_interval(-1 if key != "-" else 1)

    def _type(self, key: str) -> None:
        if key in ("enter", "escape"):
            self.typing = False
            self.filter = self.filter if key == "enter" else ""
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1 and key.isprintable():
            self.filter += key
        self.offset = 0

    def _sort_by_next(self, step: int) -> None:
        keys = [column.key for column in self.shown.columns]
        place = (keys.index(self.sort[0]) + step) % len(keys)
        self.sorts[self.shown.name] = keys[place], not self.shown.columns[place].number

    def _change_interval(self, step: int) -> None:
        nearest = min(range(len(INTERVALS)), key=lambda place: abs(INTERVALS[place] - self.interval))
        self.interval = INTERVALS[min(max(nearest + step, 0), len(INTERVALS) - 1)]

    # --- what is shown --------------------------------------------------------------------------

    @property
    def shown(self) -> View:
        return VIEWS[self.view]

    @property
    def sort(self) -> tuple[str, bool]:
        column = self.shown.column(self.shown.sort)
        assert column is not None
        return self.sorts.get(self.shown.name, (column.key, not column.number))

    def rows(self) -> list[dict[str, Any]]:
        """Sorted and filtered."""
        if self.status is None:
            return []
        key, up = self.sort
        found = list(self.shown.rows(self.status, self.rates))
        words = self.filter.lower().split()
        if words:
            texts = [" ".join(plain(value) for value in row.values()).lower() for row in found]
            found = [
                row for row, text in zip(found, texts, strict=True) if all(word in text for word in words)
            ]
        return sorted(found, key=lambda row: order(row.get(key)), reverse=not up)

    def draw(self, width: int, height: int) -> RenderableType:
        if self.helping:
            return self._help()
        room = max(1, height - HEAD_LINES - FOOT_LINES)
        rows = self.rows()
        self.offset = max(0, min(self.offset, len(rows) - room))
        visible = rows[self.offset : self.offset + room]
        return Group(*self.head(width), self.table(visible, width), self._foot(len(rows), len(visible)))

    def head(self, width: int) -> list[Text]:
        status = self.status or {}
        state = plain(status.get("state"))
        reasons = "; ".join(status.get("reasons") or [])
        ready = "ready" if status.get("ready") else f"not ready ({plain(reasons)})"
        first = f"{plain(status.get('node'))}: {state}, {ready}, up for {span(status.get('uptime_s') or 0)}"
        found = totals(status, self.rates)
        cpu = "-" if found["cpu"] is None else f"{found['cpu'] * 100:.0f} %"
        second = (
            f"{per_second(found['requests_s'])} req/s  {per_second(found['failures_s'])} failures/s"
            f"  in {bytes_per_second(found['in_s'])}  out {bytes_per_second(found['out_s'])}"
        )
        third = (
            f"{found['tunnels']} tunnels  {found['streams']} streams  {found['connections']} connections"
            f"  cpu {cpu}  memory {amount(found['resident_bytes'])}, buffers {amount(found['buffer_bytes'])}"
        )
        lines = [Text(first, style="bold"), Text(second), Text(third)]
        if self.trouble:
            since = f" for {span(time.monotonic() - self.heard)}" if self.heard else ""
            lines[0] = Text(f"no answer{since}: {plain(self.trouble)}", style="bold red")
        tabs = Text()
        for place, name in enumerate(NAMES):
            tabs.append(f" {place + 1} {name} ", style="reverse" if place == self.view else "")
        lines.append(tabs)
        for line in lines:
            line.no_wrap, line.overflow = True, "ellipsis"
            line.truncate(width)
        return lines

    def table(self, rows: list[dict[str, Any]], width: int) -> Table:
        key, up = self.sort
        table = Table(box=None, expand=True, pad_edge=False, header_style=Style(bold=True))
        columns = [column for column in self.shown.columns if column.least <= width]
        for column in columns:
            arrow = (
                " \N{BLACK UP-POINTING SMALL TRIANGLE}" if up else " \N{BLACK DOWN-POINTING SMALL TRIANGLE}"
            )
            title = column.title + (arrow if column.key == key else "")
            figures = column.number and column.key != "time"
            table.add_column(
                Text(title, no_wrap=True), justify="right" if figures else "left", no_wrap=figures
            )
        dim = "dim" if self.trouble else ""
        for row in rows:
            cells = [
                Text(plain(column.show(row.get(column.key))), no_wrap=True, overflow="ellipsis", style=dim)
                for column in columns
            ]
            table.add_row(*cells)
        return table

    def _foot(self, total: int, visible: int) -> Text:
        if self.typing:
            return Text(f"/{self.filter}_", style="reverse")
        where = f"{self.offset + 1 if visible else 0} to {self.offset + visible} of {total}"
        parts = [where, f"every {self.interval:g} s" if not self.paused else "standing still"]
        if self.filter:
            parts.append(f"only with {self.filter!r} (Esc clears)")
        parts.append("h help, q quit")
        return Text("  ".join(parts), style="dim", no_wrap=True, overflow="ellipsis")

    def _help(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, show_header=False)
        for keys, meaning in HELP:
            table.add_row(Text(keys, style="bold"), Text(meaning))
        return Group(Text("Keys", style="bold"), table, Text("Any key goes back.", style="dim"))


def order(value: object) -> tuple[int, float, str]:
    """Nothing before numbers before texts."""
    if value is None:
        return 0, 0.0, ""
    if isinstance(value, int | float):
        return 1, float(value), ""
    return 2, 0.0, plain(value).lower()
