"""/metrics of real nodes: conventions, what was asked is what is counted, and the dashboard asks for it."""

import json
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.observe.metrics import METRICS
from tests.harness.client import fetch, host_of
from tests.harness.nodes import Node, Pair, World
from tests.harness.waiting import wait_until

DASHBOARD = json.loads((Path(__file__).parents[2] / "packaging" / "grafana" / "broker.json").read_text())
# Where Prometheus comes from a package of the distribution, or from elsewhere.
PROMTOOL = shutil.which("promtool") or os.environ.get("PROMTOOL")


def scrape(node: Node) -> bytes:
    response = fetch(node.admin, "/metrics", host=host_of(node.admin))
    assert response.status == 200
    return response.body


def total(node: Node, name: str, **labels: str) -> float:
    """The sum of all series of a name that have these labels."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(scrape(node).decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def requests(node: Node) -> float:
    return total(node, "broker_requests_total")


@pytest.mark.quick
def test_what_was_asked_is_counted(pair: Pair) -> None:
    before = requests(pair.dmz)
    for _ in range(5):
        assert pair.fetch("/", "POST", body=b"12345").status == 200
    assert requests(pair.dmz) == before + 5
    assert total(pair.dmz, "broker_requests_total", port="web", service="/", status="200") >= 5
    assert total(pair.dmz, "broker_request_duration_seconds_count") == requests(pair.dmz)
    assert total(pair.agent, "broker_requests_total", port=pair.dmz.registration_url()) == requests(pair.dmz)


def test_no_series_for_what_strangers_send(pair: Pair) -> None:
    """Whatever hosts, paths, methods and ids are asked for."""
    pair.fetch("/")

    def series() -> int:
        return sum(not line.startswith(b"#") for line in scrape(pair.dmz).splitlines())

    before = series()
    for i in range(100):
        fields = [("X-Request-Id", f"id{i}"), ("User-Agent", f"agent{i}")]
        pair.fetch(f"/p{i}?q={i}", "GET", fields=fields, host=f"h{i}.example")
    assert series() == before


@pytest.mark.parametrize("kind", ["dmz", "agent"])
def test_promtool_has_nothing_to_say(pair: Pair, kind: str) -> None:
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (package prometheus)")
    pair.fetch("/")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=scrape(getattr(pair, kind)), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# --- several workers ------------------------------------------------------------------------------


def worker_pids(pair: Pair) -> list[int]:
    return [worker["pid"] for worker in pair.dmz.status()["workers"] if worker["state"] == "up"]


def test_the_sum_over_workers_is_what_was_asked(world: World) -> None:
    """Requests that took a relay from one worker to another count once."""
    pair = world.pair(dmz={"workers": 2})
    served: set[int] = set()
    for i in range(40):  # each over a connection of its own: the kernel spreads them
        assert pair.fetch(f"/{i}").status == 200
        served.add(i)
        assert requests(pair.dmz) == i + 1
    assert total(pair.dmz, "broker_external_connections_accepted_total") == 40
    assert total(pair.dmz, "broker_processes") == 2
    assert total(pair.dmz, "broker_registration_tunnels") == 1
    assert total(pair.agent, "broker_requests_total") == 40
    busy = [row for row in pair.dmz.status()["workers"] if row["state"] == "up"]
    assert len(busy) == 2


def test_a_worker_that_ends_in_order_loses_nothing(world: World) -> None:
    pair = world.pair(dmz={"workers": 2}, tunnels=2)
    for _ in range(20):
        assert pair.fetch("/").status == 200
    old = worker_pids(pair)
    os.kill(old[0], signal.SIGTERM)  # not a scrape since
    wait_until(lambda: len(now := worker_pids(pair)) == 2 and now != old, "it is replaced")
    assert requests(pair.dmz) == 20
    assert total(pair.dmz, "broker_worker_restarts_total") == 1
    assert "is lost" not in pair.dmz.process.output
    wait_until(lambda: total(pair.dmz, "broker_registration_tunnels") == 2, "the tunnels are back")
    assert pair.fetch("/").status == 200
    assert requests(pair.dmz) == 21


def test_a_worker_that_is_killed_loses_what_nobody_has_seen(world: World) -> None:
    pair = world.pair(dmz={"workers": 2}, tunnels=2)
    for _ in range(20):
        assert pair.fetch("/").status == 200
    assert requests(pair.dmz) == 20
    old = worker_pids(pair)
    os.kill(old[1], signal.SIGKILL)
    pair.dmz.process.wait_for_line(r"what worker 1 counted in its last \d+\.\d s is lost")
    wait_until(lambda: len(now := worker_pids(pair)) == 2 and now != old, "it is replaced")
    assert requests(pair.dmz) == 20, "it was scraped"
    assert total(pair.dmz, "broker_external_connections") == 0


# --- the dashboard --------------------------------------------------------------------------------

NAME = re.compile(r"\b(?:broker|process)_[a-z_]+\b")
HISTOGRAM = re.compile(r"_(?:bucket|sum|count)$")
MATCHER = re.compile(r'(\w+)(=~|=|!=|!~)"')
GROUPING = re.compile(r"\b(?:by|on|without) \(([^)]*)\)")
OF_EVERY_TARGET = {"job", "instance"}


def expressions() -> Iterator[tuple[str, str]]:
    """Of each panel its title and what it asks for."""
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def known(name: str) -> Any:
    bare = HISTOGRAM.sub("", name)
    return next((m for m in METRICS if m.series == name or (m.kind == "histogram" and m.name == bare)), None)


def test_the_dashboard_asks_for_what_there_is() -> None:
    for title, expression in expressions():
        names = NAME.findall(expression)
        assert names, title
        metrics = [known(name) for name in names]
        assert None not in metrics, f"{title}: {names}"
        labels = {label for metric in metrics for label in metric.labels} | OF_EVERY_TARGET
        if any(metric.kind == "histogram" for metric in metrics):
            labels.add("le")
        used = {found[0] for found in MATCHER.findall(expression)}
        for group in GROUPING.findall(expression):
            used |= {label.strip() for label in group.split(",")}
        assert used <= labels, f"{title}: {used - labels}"
        for counter in (metric for metric in metrics if metric.kind == "counter"):
            assert re.search(rf"(?:rate|increase)\({counter.series}\b", expression), title


def test_the_dashboard_asks_for_what_nodes_answer(pair: Pair) -> None:
    answered = scrape(pair.dmz).decode() + scrape(pair.agent).decode()
    types = dict(re.findall(r"^# TYPE (\S+) (\S+)$", answered, re.MULTILINE))
    for title, expression in expressions():
        for name in NAME.findall(expression):
            assert name in types or types.get(HISTOGRAM.sub("", name)) == "histogram", f"{title}: {name}"


def test_the_dashboard_loads_anywhere() -> None:
    """No data source, folder or number of one Grafana; panels that neither overlap nor share an id."""
    text = json.dumps(DASHBOARD)
    assert DASHBOARD["uid"] == "tunnel-broker"
    assert "id" not in DASHBOARD, "that is the database's of whoever made it"
    assert DASHBOARD["schemaVersion"] >= 36
    assert "${DS_" not in text
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert variables["datasource"]["type"] == "datasource"
    assert variables["datasource"]["query"] == "prometheus"
    source = {"type": "prometheus", "uid": "${datasource}"}
    panels = DASHBOARD["panels"]
    ids = [panel["id"] for panel in panels]
    assert len(set(ids)) == len(ids)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] == "row":
            continue
        assert panel["datasource"] == source
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == source
        assert all(
            f"${name}" in target["expr"] for target in panel["targets"] for name in ("job", "instance")
        )


def test_the_dashboards_questions_are_understood(tmp_path: Path) -> None:
    """By Prometheus' own parser, as rules."""
    if PROMTOOL is None:
        pytest.skip("promtool is not installed (package prometheus)")
    rules = [
        {"record": f"x:{number}", "expr": expression.replace("$__rate_interval", "5m")}
        for number, (_, expression) in enumerate(expressions())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))
    done = subprocess.run(
        [PROMTOOL, "check", "rules", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
