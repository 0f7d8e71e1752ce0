"""What remains of workers that are gone: counts do, what was true of a moment does not."""

from typing import Any

from broker.observe.metrics import METRICS
from broker.observe.past import Past
from broker.observe.snapshot import merge, remains
from tests.unit.test_snapshot import check, families, filled

# Gauges that are no sum over the workers.
SAME = {
    "broker_info",
    "broker_ready",
    "process_max_fds",
    "process_start_time_seconds",
}


def values(document: dict[str, Any], name: str) -> dict[tuple[Any, ...], float]:
    found = families(document)[name].samples
    return {(each.name, *sorted(each.labels.items())): each.value for each in found}


def test_every_counter_remains_and_no_gauge_does() -> None:
    before = filled(3)
    before["services"] = []  # what is counted of them is configured: it is there as long as a worker is
    before["workers"] = []  # the supervisor's
    after = remains(before)
    check(after)
    for metric in METRICS:
        if metric.name in SAME:
            continue
        if metric.kind == "gauge":
            assert not any(values(after, metric.name).values()), metric.name
        else:
            assert values(after, metric.name) == values(before, metric.name), metric.name
    assert after["last_failures"] == before["last_failures"]


def test_sums_do_not_go_down() -> None:
    now = [100.0]
    past = Past(lambda: now[0])
    assert past.merged() is None
    assert past.lost(0) is None
    past.seen(0, filled(1))
    past.seen(1, filled(2))
    before = past.merged()
    now[0] = 103.0
    assert past.lost(1) == 3.0
    after = past.merged()
    assert before is not None
    assert after is not None
    check(after)
    for key in ("exchanges", "bytes_in", "statuses", "failures", "accepted"):
        assert after["external"][0][key] == before["external"][0][key], key
    assert after["requests"] == before["requests"]
    assert after["external"][0]["connections"] == 1
    assert after["processes"] == 1
    assert len(after["tunnels"]) == 1
    # Another one comes in its place, and goes as well.
    past.seen(1, filled(4))
    past.lost(1)
    again = past.merged()
    assert again is not None
    assert again["external"][0]["exchanges"] == 1 + 2 + 4
    past.lost(0)
    alone = past.merged()
    assert alone is not None
    assert alone["external"][0]["exchanges"] == 7
    alone["external"] = []
    assert past.merged() != alone, "it is a copy"


def test_what_a_reload_has_removed_is_forgotten() -> None:
    past = Past()
    other = filled(2)
    for key in ("external", "registration"):
        other[key][0]["name"] = "gone"
    other["connect"][0]["url"] = "http://gone"
    other["requests"][0]["port"] = other["last_failures"][0]["port"] = other["agents"][0]["at"] = "gone"
    past.seen(0, filled(1))
    past.seen(1, other)
    past.lost(1)
    assert past.merged() == merge([filled(1), {**remains(other), **{key: [] for key in GONE}}])


GONE = ("external", "registration", "connect", "requests", "agents", "last_failures")
