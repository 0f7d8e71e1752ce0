"""What was to be reached, as ratios within rounds, and whether it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from bench.peers.results import Results
from bench.peers.tables import Table, number

Measure = Callable[[Results], float | None]


@dataclass(frozen=True)
class Goal:
    title: str
    measure: Measure
    most: float
    stretch: Measure
    stretch_most: float
    stretch_title: str


def ratio(scenario: str, ours: str, base: str, figure: str = "cpu_us") -> Measure:
    return lambda results: results.ratio(scenario, ours, base, figure)


def value(scenario: str, ours: str, figure: str) -> Measure:
    return lambda results: results.middle(scenario, ours, figure)


def added(scenario: str, ours: str, base: str, figure: str) -> Measure:
    """The ratio of what both add to the direct request."""

    def measure(results: Results) -> float | None:
        mine, other, direct = (results.values(scenario, name, figure) for name in (ours, base, "direct"))
        rounds = mine.keys() & other.keys() & direct.keys()
        found = [(mine[turn] - direct[turn]) / (other[turn] - direct[turn]) for turn in rounds]
        return median(found) if found else None

    return measure


def _cost(title: str, scenario: str, most: float, stretch: float, base: str = "rhttp", tls: str = "") -> Goal:
    """Both processes' CPU time beside HAProxy reverse HTTP's, and as a stretch beside `base`'s."""
    figure = "cpu_us" if scenario in ("c1", "c64", "c256", "new", "rate5000") else "cpu_s_per_gib"
    names = {"rhttp": "of HAProxy reverse HTTP", "haproxy": "of one plain HAProxy hop"}
    measure = ratio(scenario, f"ours{tls}", f"rhttp{tls}", figure)
    beside = ratio(scenario, f"ours{tls}", f"{base}{tls}", figure)
    return Goal(f"{title}, of HAProxy reverse HTTP", measure, most, beside, stretch, names[base])


def _bound(title: str, measure: Measure, most: float, stretch: float) -> Goal:
    return Goal(title, measure, most, measure, stretch, "")


GOALS = [
    _cost("CPU per request, 64 connections", "c64", 0.60, 1.0, "haproxy"),
    _cost("CPU per request, 256 connections", "c256", 0.60, 1.0, "haproxy"),
    _cost("the same with TLS 1.3 outside, 64 connections", "c64", 0.65, 0.50, tls="-tls"),
    _cost("CPU per request, 5,000 a second", "rate5000", 0.70, 1.0, "haproxy"),
    _cost("CPU per request, 1 connection", "c1", 0.70, 1.0, "haproxy"),
    _cost("CPU per request, a new connection for each", "new", 0.75, 0.60),
    _cost("CPU per GiB, 1 MiB bodies", "bodies", 0.80, 0.60),
    _cost("CPU per GiB, one download", "download", 0.80, 0.60),
    _cost("CPU per GiB, one upload", "upload", 0.80, 0.60),
    _bound(
        "p50 that is added to the direct request, 1 connection, of what HAProxy reverse HTTP adds",
        added("c1", "ours", "rhttp", "p50"), 1.0, 0.5,
    ),
    _bound("KiB per idle client", value("idle5000", "ours", "kib_per_client"), 1.0, 0.5),
    _bound("KiB per idle client over TLS", value("idle5000", "ours-tls", "kib_per_client"), 20, 14),
    _bound("small requests beside 8 downloads, p99 : alone", value("beside", "ours", "p99_ratio"), 5, 2),
]  # fmt: skip


def table(results: Results) -> Table:
    """A row for each goal."""
    columns = ["", "goal", "measured", "reached", "stretch", "measured", "reached"]
    rows = []
    for goal in GOALS:
        reached, further = goal.measure(results), goal.stretch(results)
        rows.append([goal.title, f"{goal.most:g}", number(reached, 2), _verdict(reached, goal.most)])
        rows[-1] += [f"{goal.stretch_most:g} {goal.stretch_title}".strip(), number(further, 2)]
        rows[-1].append(_verdict(further, goal.stretch_most))
    return Table("Goals", columns, rows)


def _verdict(measured: float | None, most: float) -> str:
    return "-" if measured is None else "yes" if measured <= most else "**no**"
