"""One metric: its name, and where its numbers are in the status document."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family

Status = dict[str, Any]
Row = tuple[tuple[str, ...], Any]
Rows = Iterable[Row]

MOST_SERIES = 1000  # agents, and services that agents announced, that are told apart
OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Metric:
    """`rows`: values of the labels, and a number; of a histogram its buckets (not cumulative) and its sum."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    text: str
    rows: Callable[[Status], Rows]

    @property
    def series(self) -> str:
        """Its name as it is asked for."""
        return f"{self.name}_total" if self.kind == "counter" else self.name

    def family(self, status: Status) -> Family:
        if self.kind == "histogram":
            histogram = HistogramMetricFamily(self.name, self.text, labels=self.labels)
            bounds = [f"{bound / 1e6:g}" for bound in status["durations_us"]] + ["+Inf"]
            for values, (buckets, total) in self.rows(status):
                histogram.add_metric(values, list(zip(bounds, _cumulative(buckets), strict=True)), total)
            return histogram
        make = CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily
        family = make(self.name, self.text, labels=self.labels)
        for values, value in self.rows(status):
            family.add_metric(values, float(value))
        return family


def _cumulative(buckets: Sequence[int]) -> Iterator[float]:
    total = 0
    for each in buckets:
        total += each
        yield float(total)


# --- where the numbers are -------------------------------------------------------------------------


def of_node(*keys: str) -> Callable[[Status], Rows]:
    def rows(status: Status) -> Rows:
        value: Any = status
        for key in keys:
            value = value[key]
        return [((), value)]

    return rows


def of_each(section: str, labels: tuple[str, ...], key: str) -> Callable[[Status], Rows]:
    """A number of every entry of a list."""
    return lambda status: [(_values(entry, labels), entry[key]) for entry in status[section]]


def of_table(section: str, labels: tuple[str, ...], key: str) -> Callable[[Status], Rows]:
    """Numbers by name of every entry of a list; the name is the last label."""
    return lambda status: [
        ((*_values(entry, labels), name), count)
        for entry in status[section]
        for name, count in entry[key].items()
    ]


def of_maybe(section: str, *keys: str) -> Callable[[Status], Rows]:
    """Numbers of something that may be switched off, each under its own name where there are several."""
    return lambda status: [
        ((key,) if len(keys) > 1 else (), status[section][key]) for key in keys if status[section] is not None
    ]


def _values(entry: Status, labels: Iterable[str]) -> tuple[str, ...]:
    return tuple("" if entry[label] is None else str(entry[label]) for label in labels)


def of_agents(key: str) -> Callable[[Status], Rows]:
    labels = ("at", "user", "agent")

    def rows(status: Status) -> Rows:
        return bounded([(_values(entry, labels), entry[key]) for entry in status["agents"]])

    return rows


def round_trips(status: Status) -> Rows:
    longest: dict[tuple[str, ...], float] = {}
    for tunnel in status["tunnels"]:
        at = tunnel["registration"] or tunnel["connect"]
        labels = (str(at), tunnel["user"] or "", tunnel["agent"])
        longest[labels] = max(longest.get(labels, 0.0), tunnel["rtt_s"])
    return list(longest.items())[:MOST_SERIES]


def announced(key: str) -> Callable[[Status], Rows]:
    def rows(status: Status) -> Rows:
        known = [each for each in status["services"] if each["at"] is None]
        return bounded([(_values(each, ("registration", "service")), each[key]) for each in known])

    return rows


def local(key: str) -> Callable[[Status], Rows]:
    return lambda status: [
        (_values(each, ("at", "service")), each[key]) for each in status["services"] if each["at"] is not None
    ]


def bounded(rows: list[Row]) -> list[Row]:
    """So many series, and one for all others together."""
    if len(rows) <= MOST_SERIES:
        return rows
    rest = sum(value for _, value in rows[MOST_SERIES:])
    return [*rows[:MOST_SERIES], ((OTHER,) * len(rows[0][0]), rest)]


def failures(status: Status) -> Rows:
    return [
        ((entry["port"], entry["service"], code, delivery), count)
        for entry in status["requests"]
        for code, facts in entry["failures"].items()
        for delivery, count in facts.items()
    ]


def durations(*hops: str) -> Callable[[Status], Rows]:
    def rows(status: Status) -> Rows:
        for entry in status["requests"]:
            for hop in hops:
                histogram = entry["durations"][hop]
                labels = (entry["port"], entry["service"], *([hop] if len(hops) > 1 else []))
                yield labels, (histogram["buckets"], histogram["sum_s"])

    return rows


def handshakes(status: Status) -> Rows:
    for port in status["external"]:
        yield (port["name"], "full"), port["handshakes"] - port["resumed"]
        yield (port["name"], "resumed"), port["resumed"]
        yield (port["name"], "failed"), port["handshake_failures"]


def dialled(status: Status) -> Rows:
    for connect in status["connect"]:
        up = sum(tunnel["state"] == "up" for tunnel in connect["tunnels"])
        yield (connect["url"], "up"), up
        yield (connect["url"], "missing"), len(connect["tunnels"]) - up


def info(status: Status) -> Rows:
    return [((status["version"], status["node"]), 1)]
