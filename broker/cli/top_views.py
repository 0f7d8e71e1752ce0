"""What `broker top` can show: views, their columns and rows. Values are raw; `show` makes them readable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from broker.cli.tables import amount, plain, span
from broker.observe.rates import Rates, backend_key, failures_of, port_key, service_key

Entry = dict[str, Any]
Show = Callable[[Any], str]


def per_second(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def bytes_per_second(value: float | None) -> str:
    return "-" if value is None else f"{amount(int(value))}/s"


def milliseconds(value: float | None) -> str:
    return f"{value:.1f} ms" if value else "-"


def age(value: float | None) -> str:
    return "-" if value is None else span(value)


def clock(moment: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(moment))


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    title: str
    show: Show = plain
    number: bool = False
    least: int = 0
    """Columns of terminal from which on it is shown."""


@dataclass(frozen=True, slots=True)
class View:
    name: str
    columns: tuple[Column, ...]
    rows: Callable[[Entry, Rates], Iterator[Entry]]
    sort: str
    """The column that it is sorted by at first: numbers the largest first."""

    def column(self, key: str) -> Column | None:
        return next((each for each in self.columns if key in (each.key, each.title)), None)


def count(key: str, title: str, least: int = 0) -> Column:
    return Column(key, title, number=True, least=least)


def rate(key: str, title: str, least: int = 0) -> Column:
    return Column(key, title, per_second, number=True, least=least)


def traffic(key: str, title: str, least: int = 0) -> Column:
    return Column(key, title, bytes_per_second, number=True, least=least)


def services(status: Entry, rates: Rates) -> Iterator[Entry]:
    for each in status.get("services") or []:
        tunnels, backends = each.get("tunnels"), each.get("backends") or []
        down = sum(not backend.get("healthy", True) or backend.get("ejected", False) for backend in backends)
        if each.get("registration") is not None:
            state = f"{tunnels or 'no'} tunnel{'' if tunnels == 1 else 's'}"
        else:
            state = each.get("problem") or (f"{down} of {len(backends)} down" if down else "up")
        yield {
            "service": each.get("service"),
            "kind": each.get("kind"),
            "at": each.get("at") or each.get("registration"),
            "state": state,
            "requests_s": rates.per_second(service_key(each)),
            "requests": each.get("exchanges"),
            "active": each.get("active"),
            "waiting": each.get("waiting"),
            "failures_s": rates.per_second(f"{service_key(each)}|failures"),
            "failures": failures_of(each),
        }


def tunnels(status: Entry, rates: Rates) -> Iterator[Entry]:
    now = status.get("time") or 0
    for each in status.get("tunnels") or []:
        yield {
            "agent": each.get("agent"),
            "index": each.get("index"),
            "user": each.get("user"),
            "at": each.get("registration") or each.get("connect"),
            "peer": each.get("peer"),
            "state": "draining" if each.get("draining") else "up",
            "up_s": max(0.0, now - (each.get("since") or now)),
            "rtt_ms": (each.get("rtt_us") or 0) / 1000,
            "in_s": each.get("rate_in"),
            "out_s": each.get("rate_out"),
            "streams": each.get("streams"),
            "window": each.get("window_bytes"),
            "stalls": each.get("stalls"),
        }


def agents(status: Entry, rates: Rates) -> Iterator[Entry]:
    for each in status.get("agents") or []:
        yield {
            "agent": each.get("agent"),
            "user": each.get("user"),
            "at": each.get("at"),
            "tunnels": each.get("tunnels"),
            "streams": each.get("streams"),
            "in_s": each.get("rate_in"),
            "out_s": each.get("rate_out"),
            "received": each.get("bytes_in"),
            "sent": each.get("bytes_out"),
            "ended": each.get("tunnels_ended"),
        }


def ports(status: Entry, rates: Rates) -> Iterator[Entry]:
    for each in status.get("external") or []:
        key = port_key(each)
        statuses = each.get("statuses") or [0] * 6
        yield {
            "port": each.get("name"),
            "url": each.get("url"),
            "connections": each.get("connections"),
            "requests_s": rates.per_second(f"{key}|exchanges"),
            "active": each.get("active"),
            "in_s": rates.per_second(f"{key}|bytes_in"),
            "out_s": rates.per_second(f"{key}|bytes_out"),
            "requests": each.get("exchanges"),
            "2xx": statuses[2],
            "4xx": statuses[4],
            "5xx": statuses[5],
            "failures_s": rates.per_second(f"{key}|failures"),
        }


def upstreams(status: Entry, rates: Rates) -> Iterator[Entry]:
    for service in status.get("services") or []:
        for each in service.get("backends") or []:
            state = "left out" if each.get("ejected") else "up"
            yield {
                "address": each.get("address"),
                "service": service.get("service"),
                "at": service.get("at"),
                "state": state if each.get("healthy", True) else "down",
                "requests_s": rates.per_second(backend_key(service, each)),
                "requests": each.get("exchanges"),
                "active": each.get("active"),
                "idle": each.get("idle"),
                "failures": each.get("failures"),
                "problem": each.get("problem"),
            }


def failures(status: Entry, rates: Rates) -> Iterator[Entry]:
    for each in status.get("last_failures") or []:
        yield {
            "time": each.get("time"),
            "hop": each.get("hop"),
            "code": each.get("code"),
            "status": each.get("status") or "cut",
            "delivery": each.get("delivery"),
            "reason": each.get("reason"),
            "request": f"{each.get('method')} {each.get('host')}{each.get('target')}".strip(),
            "tunnel": each.get("tunnel"),
            "client": each.get("client"),
        }


VIEWS = (
    View(
        "services",
        (
            Column("service", "service"),
            Column("kind", "kind", least=110),
            Column("at", "at", least=90),
            Column("state", "state"),
            rate("requests_s", "req/s"),
            count("requests", "requests"),
            count("active", "active", 70),
            count("waiting", "waiting", 80),
            rate("failures_s", "fail/s", 70),
            count("failures", "failures", 100),
        ),
        services,
        "requests_s",
    ),
    View(
        "tunnels",
        (
            Column("agent", "agent"),
            count("index", "no.", 50),
            Column("user", "user", least=80),
            Column("at", "at", least=120),
            Column("peer", "peer", least=130),
            Column("state", "state", least=100),
            Column("up_s", "up", age, number=True, least=70),
            Column("rtt_ms", "rtt", milliseconds, number=True),
            traffic("in_s", "in"),
            traffic("out_s", "out"),
            count("streams", "streams"),
            Column("window", "window", amount, number=True, least=110),
            count("stalls", "stalls", 120),
        ),
        tunnels,
        "in_s",
    ),
    View(
        "agents",
        (
            Column("agent", "agent"),
            Column("user", "user", least=70),
            Column("at", "at", least=100),
            count("tunnels", "tunnels"),
            count("streams", "streams"),
            traffic("in_s", "in"),
            traffic("out_s", "out"),
            Column("received", "received", amount, number=True, least=90),
            Column("sent", "sent", amount, number=True, least=90),
            count("ended", "ended", 110),
        ),
        agents,
        "in_s",
    ),
    View(
        "ports",
        (
            Column("port", "port"),
            Column("url", "url", least=100),
            count("connections", "conns"),
            rate("requests_s", "req/s"),
            count("active", "active", 70),
            traffic("in_s", "in"),
            traffic("out_s", "out"),
            count("requests", "requests", 90),
            count("2xx", "2xx", 110),
            count("4xx", "4xx", 110),
            count("5xx", "5xx", 110),
            rate("failures_s", "fail/s"),
        ),
        ports,
        "requests_s",
    ),
    View(
        "upstreams",
        (
            Column("address", "address"),
            Column("service", "service"),
            Column("at", "at", least=120),
            Column("state", "state"),
            rate("requests_s", "req/s"),
            count("requests", "requests", 80),
            count("active", "active", 70),
            count("idle", "idle", 90),
            count("failures", "failures", 80),
            Column("problem", "problem", least=110),
        ),
        upstreams,
        "requests_s",
    ),
    View(
        "failures",
        (
            Column("time", "time", clock, number=True),
            Column("hop", "hop", least=80),
            Column("code", "code"),
            Column("status", "answer"),
            Column("delivery", "delivery", least=110),
            Column("reason", "reason", least=70),
            Column("request", "request"),
            Column("tunnel", "tunnel", least=140),
            Column("client", "client", least=100),
        ),
        failures,
        "time",
    ),
)
NAMES = tuple(view.name for view in VIEWS)


def totals(status: Entry, rates: Rates) -> Entry:
    """What stands above every view."""
    memory = status.get("memory") or {}
    external = status.get("external") or []
    return {
        "requests_s": rates.per_second("exchanges"),
        "failures_s": rates.per_second("failures"),
        "in_s": rates.per_second("bytes_in"),
        "out_s": rates.per_second("bytes_out"),
        "cpu": rates.per_second("cpu"),
        "tunnels": len(status.get("tunnels") or []),
        "streams": sum(each.get("streams") or 0 for each in status.get("tunnels") or []),
        "connections": sum(each.get("connections") or 0 for each in external),
        "resident_bytes": memory.get("resident_bytes"),
        "buffer_bytes": memory.get("buffer_bytes"),
    }
