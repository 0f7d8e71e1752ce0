"""The status document: it is what its schema says, several become one, and metrics are made from it."""

import copy
import json
import pickle
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from prometheus_client.parser import text_string_to_metric_families

from _fastpath.meter import METER_BOUNDS_US, METER_HOPS, OTHER_SERVICES, Meters
from broker.observe.document import Map, Object, Part, Plain, Rows
from broker.observe.metrics import METRICS, Metrics, reference
from broker.observe.series import MOST_SERIES, bounded
from broker.observe.snapshot import DOCUMENT, LAST_FAILURES, merge, schema
from broker.observe.totals import COUNTS, MAX_AGENTS, NOW, OTHER_AGENTS, AgentTotals

DOCS = Path(__file__).parents[2] / "docs"


def sample(part: Part, seed: int = 1) -> Any:
    """A document with something in every place."""
    if isinstance(part, Object):
        return {name: sample(each, seed) for name, each in part.fields.items()}
    if isinstance(part, Rows):
        return [sample(part.item, seed)]
    if isinstance(part, Map):
        return {name: sample(part._item, seed) for name in ("never-sent", "sent")}
    assert isinstance(part, Plain)
    shape = part.shape()
    if "const" in shape:
        return shape["const"]
    plain = {"string": "x", "boolean": True, "integer": seed, "number": seed / 2}
    if shape["type"] != "array":
        return plain[shape["type"]]
    return [plain[shape["items"]["type"]]] * shape.get("minItems", 1)


def filled(seed: int = 1) -> dict[str, Any]:
    document = sample(DOCUMENT, seed)
    histogram = {"buckets": [seed] * (len(METER_BOUNDS_US) + 1), "sum_s": seed / 2}
    document["durations_us"] = list(METER_BOUNDS_US)
    for row in document["requests"]:
        row["durations"] = {hop: copy.deepcopy(histogram) for hop in METER_HOPS}
    document["services"].append({**document["services"][0], "at": None, "service": "announced"})
    return document  # type: ignore[no-any-return]


def check(document: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema()).validate(json.loads(json.dumps(document)))


def test_the_schema_is_one_and_finds_mistakes() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    check(filled())
    for spoil in (
        lambda each: each.pop("external"),
        lambda each: each.update(unknown=1),
        lambda each: each.update(schema=2),
        lambda each: each["external"][0].update(connections="many"),
        lambda each: each["external"][0].update(connections=-1),
    ):
        document = filled()
        spoil(document)
        with pytest.raises(jsonschema.ValidationError):
            check(document)


def test_one_alone_is_itself() -> None:
    assert merge([filled()]) == filled()
    with pytest.raises(ValueError, match="nothing"):
        merge([])


def test_several_become_one() -> None:
    documents = [filled(1), filled(2), filled(3)]
    before = pickle.dumps(documents)
    merged = merge(documents)
    assert pickle.dumps(documents) == before
    check(merged)
    assert merged["processes"] == 6
    assert merged["uptime_s"] == 1.5
    (port,) = merged["external"]
    assert (port["name"], port["connections"], port["statuses"]) == ("x", 6, [6] * 6)
    (row,) = merged["requests"]
    assert row["durations"]["total"] == {"buckets": [6] * (len(METER_BOUNDS_US) + 1), "sum_s": 3}
    assert row["failures"]["sent"]["never-sent"] == 6
    assert len(merged["tunnels"]) == 3
    assert merged["limits"]["sent"] == 1  # the same everywhere: of the first
    assert merged["process"]["descriptor_limit"] == 1
    assert merged["reloads"] == {"never-sent": 3, "sent": 3}  # each was told of the same ones
    # However they are grouped.
    assert merge([merge(documents[:2]), documents[2]]) == merged


def test_what_differs_stays_apart() -> None:
    one, other = filled(), filled()
    other["external"][0]["name"] = "another"
    other["ready"] = False
    other["reasons"] = ["no tunnel is up"]
    other["access_log"] = None
    other["services"][0]["tunnels"] = None
    merged = merge([one, other])
    assert [each["name"] for each in merged["external"]] == ["x", "another"]
    assert merged["ready"] is False
    assert merged["reasons"] == ["x", "no tunnel is up"]
    assert merged["access_log"] == one["access_log"]
    assert merged["services"][0]["tunnels"] == 1


def test_the_last_failures_of_all() -> None:
    one, other = filled(), filled()
    row = one["last_failures"][0]
    one["last_failures"] = [{**row, "time": float(2 * i)} for i in range(LAST_FAILURES)]
    other["last_failures"] = [{**row, "time": float(2 * i + 1)} for i in range(LAST_FAILURES)]
    times = [each["time"] for each in merge([one, other])["last_failures"]]
    assert times == [float(i) for i in reversed(range(LAST_FAILURES, 2 * LAST_FAILURES))]


# --- metrics ------------------------------------------------------------------------------------


def families(document: dict[str, Any]) -> dict[str, Any]:
    body, content_type = Metrics().render(document)
    assert content_type.startswith("text/plain")
    return {each.name: each for each in text_string_to_metric_families(body.decode())}


def test_every_metric_is_there_and_follows_the_conventions() -> None:
    found = families(filled())
    units = re.compile(r"_(seconds|bytes)$")
    for metric in METRICS:
        family = found[metric.name]
        assert family.type == metric.kind
        assert family.samples, metric.name
        assert not metric.name.endswith(("_total", "_count", "_sum", "_bucket"))
        assert metric.kind != "histogram" or units.search(metric.name)
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == set(metric.labels), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_histograms_are_cumulative_and_in_seconds() -> None:
    rows = [
        each
        for each in families(filled(3))["broker_request_duration_seconds"].samples
        if each.name.endswith("_bucket")
    ]
    assert [each.value for each in rows] == [3.0 * (i + 1) for i in range(len(METER_BOUNDS_US) + 1)]
    assert [float(each.labels["le"]) for each in rows[:-1]] == [bound / 1e6 for bound in METER_BOUNDS_US]
    assert rows[-1].labels["le"] == "+Inf"


def test_what_is_off_has_no_series() -> None:
    document = filled()
    document["access_log"] = document["tracing"] = None
    assert not families(document)["broker_access_log_records"].samples


def test_labels_are_escaped() -> None:
    """A file may be called anything."""
    document = filled()
    document["certificates"][0]["file"] = name = 'a"b\\c\nd{e="f"} é'
    (found,) = families(document)["broker_certificate_not_after_timestamp_seconds"].samples
    assert found.labels["file"] == name


def test_series_are_bounded() -> None:
    rows: list[Any] = [((str(i), "x"), 1) for i in range(MOST_SERIES + 10)]
    kept = bounded(rows)
    assert len(kept) == MOST_SERIES + 1
    assert kept[-1] == (("(other)", "(other)"), 10)


def test_documents_are_made_from_the_program() -> None:
    again = "run scripts/reference"
    assert (DOCS / "metrics.md").read_text() == reference(), again
    assert json.loads((DOCS / "status.schema.json").read_text()) == schema(), again


# --- what is counted -----------------------------------------------------------------------------


def test_services_of_a_port_are_bounded() -> None:
    meters = Meters("web")
    first = [meters.of(f"s{i}") for i in range(200)]
    assert len({id(each) for each in first}) == 200
    assert meters.of("s0") is first[0]
    assert {meters.of(f"t{i}").service for i in range(100)} == {OTHER_SERVICES}
    assert meters.counters() == []  # nothing was counted of any


def counters(**more: int) -> dict[str, int]:
    return dict.fromkeys((*COUNTS, *NOW), 1) | more


def test_what_tunnels_have_counted_stays() -> None:
    totals = AgentTotals()
    agent = ("orders", "edge")
    totals.ended(agent, counters(bytes_in=5))
    (row,) = totals.rows("green", [(agent, counters(bytes_in=7)), (agent, counters())])
    assert (row["tunnels"], row["tunnels_ended"], row["bytes_in"], row["streams"]) == (2, 1, 13, 2)
    (row,) = totals.rows("green", [])
    assert (row["tunnels"], row["tunnels_ended"], row["bytes_in"], row["streams"]) == (0, 1, 5, 0)


def test_agents_are_bounded() -> None:
    totals = AgentTotals()
    for i in range(3 * MAX_AGENTS):
        totals.ended(("orders", f"edge-{i}"), counters())
    rows = totals.rows("green", [])
    assert len(rows) <= MAX_AGENTS + 1
    assert sum(row["bytes_in"] for row in rows) == 3 * MAX_AGENTS
    assert [row["user"] for row in rows if row["agent"] == OTHER_AGENTS] == [None]
