"""The status of a node as tables for people. `broker status --json` has everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

PLAIN_WIDTH = 240  # without a terminal nothing is cut
LAST_FAILURES = 10

Entry = dict[str, Any]
Column = tuple[str, Callable[[Entry], object]]


def field(key: str, title: str = "") -> Column:
    return title or key, lambda entry: entry.get(key)


def failures(entry: Entry) -> str:
    found: dict[str, int] = entry.get("failures") or {}
    return ", ".join(f"{count} {code}" for code, count in found.items() if count)


def by_code(counted: dict[str, dict[str, int]]) -> dict[str, int]:
    return {code: sum(facts.values()) for code, facts in counted.items()}


def state_of(backend: Entry) -> str:
    if not backend.get("healthy", True):
        return "down"
    return "left out" if backend.get("ejected") else "up"


def request_of(entry: Entry) -> str:
    return f"{entry.get('method') or ''} {entry.get('host') or ''}{entry.get('target') or ''}".strip()


def proofs_of(user: Entry) -> str:
    kinds = ("tokens", "certificates", "passwords")
    return ", ".join(f"{user[kind]} {kind}" for kind in kinds if user.get(kind))


def clock(moment: float | None) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment)) if moment else "-"


TABLES: dict[str, list[Column]] = {
    "external": [
        field("name"),
        field("url"),
        ("leads to", lambda entry: entry.get("service") or entry.get("registration")),
        field("connections"),
        field("exchanges"),
        field("active"),
        ("in", lambda entry: amount(entry.get("bytes_in"))),
        ("out", lambda entry: amount(entry.get("bytes_out"))),
        ("failures", failures),
    ],
    "registration": [
        field("name"),
        field("url"),
        field("tunnels"),
        field("logins"),
        field("lost"),
        ("refused", lambda entry: sum((entry.get("refusals") or {}).values())),
    ],
    "connect": [
        field("url"),
        ("tunnels", lambda entry: f"{len(up(entry))} of {len(entry.get('tunnels', []))} up"),
        field("lost"),
        ("refused services", lambda entry: [refusal(each) for each in entry.get("refused", [])]),
        ("last failure", lambda entry: sorted({each.get("reason") or "" for each in down(entry)})),
    ],
    "tunnels": [
        field("agent"),
        field("index"),
        field("user"),
        ("at", lambda entry: entry.get("registration") or entry.get("connect")),
        field("peer"),
        ("up for", lambda entry: since(entry.get("since"))),
        ("round trip", lambda entry: f"{entry.get('rtt_us', 0) / 1000:.1f} ms"),
        field("streams"),
        ("window", lambda entry: amount(entry.get("window_bytes"))),
        ("in", lambda entry: amount(entry.get("bytes_in"))),
        ("out", lambda entry: amount(entry.get("bytes_out"))),
        ("in/s", lambda entry: amount(entry.get("rate_in"))),
        ("out/s", lambda entry: amount(entry.get("rate_out"))),
        ("state", lambda entry: "draining" if entry.get("draining") else "up"),
    ],
    "services": [
        field("service"),
        field("kind"),
        ("at", lambda entry: entry.get("at") or entry.get("registration")),
        ("goes to", lambda entry: entry.get("upstreams") or tunnels_of(entry)),
        field("exchanges"),
        field("waiting"),
        ("failures", failures),
        field("problem"),
    ],
    "upstreams": [
        field("address"),
        field("service"),
        field("at"),
        ("state", state_of),
        field("active"),
        field("idle"),
        field("exchanges"),
        field("failures"),
        field("problem"),
    ],
    "requests": [
        field("port"),
        field("service"),
        ("requests", lambda entry: sum((entry.get("statuses") or {}).values())),
        ("statuses", lambda entry: failures({"failures": entry.get("statuses")})),
        ("sent again", lambda entry: entry.get("retries")),
        ("failures", lambda entry: failures({"failures": by_code(entry.get("failures") or {})})),
    ],
    "last failures": [
        ("when", lambda entry: clock(entry.get("time"))),
        field("hop"),
        field("code"),
        ("answer", lambda entry: entry.get("status") or "cut"),
        field("delivery"),
        field("reason"),
        ("request", request_of),
        field("client"),
        field("tunnel"),
        field("request_id", "request id"),
    ],
    "users": [
        field("name"),
        ("proven by", proofs_of),
        field("tunnels"),
        ("at most", lambda entry: entry.get("max_tunnels")),
        ("may announce", lambda entry: entry.get("may")),
        ("admin port", lambda entry: entry.get("admin")),
    ],
    "certificates": [
        field("at"),
        field("kind"),
        field("file"),
        ("days left", lambda entry: int(entry.get("days_left") or 0)),
    ],
    "workers": [
        field("index", "no."),
        field("pid"),
        field("state"),
        ("up for", lambda entry: span(entry.get("uptime_s") or 0)),
        field("restarts"),
    ],
}


def entries_of(status: Entry, name: str) -> list[Entry]:
    """The rows of one of the tables."""
    if name == "upstreams":
        return [
            {**backend, "service": service.get("service"), "at": service.get("at")}
            for service in status.get("services") or []
            for backend in service.get("backends") or []
        ]
    if name == "last failures":
        return list(status.get("last_failures") or [])[:LAST_FAILURES]
    return list(status.get(name) or [])


def show(status: Entry) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=PLAIN_WIDTH)
    for line in summary(status):
        console.print(Text(line))
    for name, columns in TABLES.items():
        entries = entries_of(status, name)
        if entries:
            console.print()
            console.print(table(name, columns, entries))


def summary(status: Entry) -> list[str]:
    reasons = "; ".join(status.get("reasons") or [])
    readiness = "ready" if status.get("ready") else f"not ready ({reasons})"
    memory = status.get("memory") or {}
    resident, limit = amount(memory.get("resident_bytes")), amount(memory.get("limit_bytes"))
    return [
        f"node {plain(status.get('node'))}: {plain(status.get('state'))}, {plain(readiness)},"
        f" up for {span(status.get('uptime_s') or 0)}",
        f"version {plain(status.get('version'))}, process {plain(status.get('pid'))},"
        f" configuration {plain(status.get('source') or 'from the command line')}",
        f"memory {resident}, buffers {amount(memory.get('buffer_bytes'))} of {limit}",
    ]


def table(title: str, columns: list[Column], entries: list[Entry]) -> Table:
    made = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    values = [[value(entry) for _, value in columns] for entry in entries]
    for number, (heading, _) in enumerate(columns):
        figures = all(isinstance(row[number], int | float) for row in values)
        made.add_column(heading, justify="right" if figures else "left")
    for row in values:
        made.add_row(*(Text(plain(value)) for value in row))
    return made


def plain(value: object) -> str:
    """One line; names that strangers chose can't steer the terminal."""
    if value is None or value == "" or value == []:
        return "-"
    if isinstance(value, list):
        return ", ".join(plain(each) for each in value)
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in str(value))


def up(entry: Entry) -> list[Entry]:
    return [each for each in entry.get("tunnels", []) if each.get("state") == "up"]


def down(entry: Entry) -> list[Entry]:
    return [each for each in entry.get("tunnels", []) if each.get("state") != "up" and each.get("reason")]


def refusal(entry: Entry) -> str:
    return f"{entry.get('service')}: {entry.get('reason')}"


def tunnels_of(entry: Entry) -> str:
    count = entry.get("tunnels", 0)
    return "no tunnel now" if not count else f"{count} tunnel{'s' if count > 1 else ''}"


def amount(size: int | None) -> str:
    value = float(size or 0)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def since(moment: float | None) -> str:
    return span(max(0, time.time() - moment)) if moment else "-"


def span(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"
