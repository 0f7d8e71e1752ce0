"""The access log of real nodes, and the last failures in their status."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from broker.observe.snapshot import schema
from tests.harness.nodes import Pair, World
from tests.harness.waiting import wait_until

COMBINED = re.compile(
    r"^127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000\] "
    r'"([^"]*)" (\d+) (\d+) "([^"]*)" "([^"]*)"$'
)


def lines_of(path: Path, count: int) -> list[str]:
    """As soon as there are so many."""

    def read() -> list[str] | None:
        found = path.read_text().splitlines() if path.exists() else []
        return found if len(found) >= count else None

    found = wait_until(read, f"{path.name} has {count} lines")
    assert found is not None
    return found


def records_of(path: Path, count: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines_of(path, count)]


def logging_pair(world: World, **more: Any) -> Pair:
    return world.pair(
        dmz={"access_log": {"path": "dmz.log", **more}}, agent={"access_log": {"path": "agent.log", **more}}
    )


@pytest.mark.quick
def test_one_record_per_request_on_both_nodes(world: World) -> None:
    pair = logging_pair(world)
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    response = pair.dmz.fetch(
        "/a?b=c",
        "POST",
        body=b"hello",
        fields=[("User-Agent", 'a "b" \\'), ("Referer", "http://r/"), ("traceparent", trace)],
    )
    assert response.status == 200
    (dmz,) = records_of(world.directory / "dmz.log", 1)
    (agent,) = records_of(world.directory / "agent.log", 1)
    for record in (dmz, agent):
        assert (record["method"], record["target"], record["status"]) == ("POST", "/a?b=c", 200)
        assert (record["bytes_in"], record["bytes_out"]) == (5, len(response.body))
        assert (record["service"], record["delivery"], record["tries"]) == ("/", "sent", 1)
        assert record["user_agent"] == 'a "b" \\'
        assert record["referer"] == "http://r/"
        assert record["trace_id"] == "0af7651916cd43dd8448eb211c80319c"
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["time"])
        hops = ("client_us", "wait_us", "upstream_us", "response_us")
        assert sum(record[hop] for hop in hops) == record["total_us"]
    assert (dmz["port"], dmz["client"]) == ("web", "127.0.0.1")
    assert re.fullmatch(r"anonymous/[\w.-]+/0", dmz["tunnel"])
    assert agent["port"] == pair.dmz.registration_url()


def test_failures_are_told_with_their_reason(world: World) -> None:
    pair = logging_pair(world)
    pair.origin.close()
    assert pair.dmz.fetch("/x?secret=1").status == 502
    with pair.dmz.client() as client:
        client.send(b"GET /\x1b[2J HTTP/1.1\r\nHost: a\r\n\r\n")
        assert client.read_response().status == 400
    upstream, bad = records_of(world.directory / "dmz.log", 2)
    assert (upstream["error"], upstream["delivery"], upstream["status"]) == (
        "upstream-unreachable",
        "never-sent",
        502,
    )
    assert upstream["reason"] == "the upstream refused the connection"
    assert (bad["error"], bad["status"]) == ("bad-request", 400)
    assert bad["reason"]
    tries = records_of(world.directory / "agent.log", upstream["tries"])  # each of them is one at the agent
    assert {record["error"] for record in tries} == {"upstream-unreachable"}
    status = pair.dmz.status()
    jsonschema.Draft202012Validator(schema()).validate(status)
    latest, before = status["last_failures"]
    assert (latest["code"], latest["hop"]) == ("bad-request", "client")
    assert (before["code"], before["hop"], before["target"]) == ("upstream-unreachable", "upstream", "/x")
    assert before["reason"] == "the upstream refused the connection"


def test_the_combined_format_without_queries(world: World) -> None:
    pair = logging_pair(world, format="combined", query=False)
    assert pair.dmz.fetch("/a?b", fields=[("User-Agent", "curl/8")]).status == 200
    (line,) = lines_of(world.directory / "dmz.log", 1)
    found = COMBINED.match(line)
    assert found, line
    assert found[1] == "GET /a HTTP/1.1"
    assert (found[2], found[4], found[5]) == ("200", "-", "curl/8")


def test_rotation(world: World) -> None:
    pair = logging_pair(world)
    path, old = world.directory / "dmz.log", world.directory / "dmz.log.1"
    pair.fetch("/first")
    lines_of(path, 1)
    path.rename(old)
    pair.fetch("/second")
    assert records_of(old, 2)[1]["target"] == "/second"  # the file that is open, until it is told
    pair.dmz.process.signal(signal.SIGUSR1)
    wait_until(path.exists, "the file is there again")
    pair.fetch("/third")
    assert records_of(path, 1)[0]["target"] == "/third"
    path.unlink()
    assert pair.dmz.admin_post("/reload").status == 200
    pair.fetch("/fourth")
    assert records_of(path, 1)[0]["target"] == "/fourth"


def test_a_full_disk_stops_nothing(world: World) -> None:
    """/dev/full takes no byte."""
    pair = world.pair(dmz={"access_log": {"path": "/dev/full"}})
    for _ in range(20):
        assert pair.fetch("/").status == 200
    wait_until(lambda: pair.dmz.status()["access_log"]["dropped"] == 20, "all are counted as dropped")
    assert pair.dmz.status()["access_log"]["problem"] == "no space left on device"
    assert "cannot be written" in pair.dmz.process.output


def test_a_log_that_cannot_be_opened(world: World) -> None:
    """At start the node ends and says why; on reload nothing changes."""
    pair = logging_pair(world)
    pair.dmz.write({**pair.dmz.config, "access_log": {"path": str(world.directory)}})
    assert pair.dmz.admin_post("/reload").status == 409
    pair.fetch("/still")
    assert records_of(world.directory / "dmz.log", 1)[0]["target"] == "/still"
