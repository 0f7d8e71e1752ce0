"""The access log of real nodes, and the last failures in their status."""

import itertools
import json
import os
import re
import select
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from broker.observe.snapshot import schema
from tests.harness.client import fetch
from tests.harness.nodes import Pair, World, loopback
from tests.harness.waiting import wait_until

GUIDE = Path(__file__).parents[2] / "docs" / "logs.md"
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
    pair.dmz.process.wait_for_line("cannot be written")


def test_a_log_that_nobody_reads_stops_nothing_and_goes_on(world: World) -> None:
    """Records are dropped and counted while a pipe is full; when it is read again, no more are."""
    pipe = world.directory / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    pair = world.pair(dmz={"access_log": {"path": str(pipe)}})

    def dropped() -> int:
        return pair.dmz.status()["access_log"]["dropped"]

    with pair.client() as client:
        while not dropped():
            for _ in range(100):
                client.send_request("GET", "/" + "x" * 2000, fields=[("User-Agent", "y" * 500)])
                assert client.read_response().status == 200
    os.set_blocking(reader, True)
    with os.fdopen(reader, "rb") as stream, ThreadPoolExecutor(1) as pool:
        read = pool.submit(stream.readlines)
        wait_until(lambda: stream_is_idle(reader), "all that waited is read")
        lost = dropped()
        for _ in range(10):
            assert pair.fetch("/after").status == 200
        pair.dmz.stop()
        lines = read.result()
    targets = [json.loads(line)["target"] for line in lines]
    assert targets[-10:] == ["/after"] * 10
    assert lost > 0
    assert (len(targets) - 10 + lost) % 100 == 0  # rounds of requests: none is missing, none is twice


@pytest.mark.quick
def test_a_pipe_that_nobody_reads_holds_nothing_up(world: World) -> None:
    """A start ends and says why; a reload changes nothing, and SIGUSR1 neither."""
    pipe = world.directory / "pipe"
    os.mkfifo(pipe)
    pair = logging_pair(world)
    pair.dmz.write({**pair.dmz.config, "access_log": {"path": str(pipe)}})
    answer = pair.dmz.admin_post("/reload")
    assert answer.status == 409
    assert b"nobody reads this pipe" in answer.body
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    assert pair.dmz.admin_post("/reload").status == 200
    pair.fetch("/read")
    wait_until(lambda: not stream_is_idle(reader), "the record has come")
    assert json.loads(os.read(reader, 65536))["target"] == "/read"
    os.close(reader)
    pair.dmz.process.signal(signal.SIGUSR1)
    pair.dmz.process.wait_for_line("the old one is written on")
    assert pair.fetch("/still").status == 200
    broken = world.dmz({"access_log": {"path": str(pipe)}}, name="broken", start=False)
    broken.start(ready=False).process.expect_exit(1)
    assert "nobody reads this pipe" in broken.process.output


def stream_is_idle(fd: int) -> bool:
    """Nothing waits in the pipe."""
    return not select.select([fd], [], [], 0.3)[0]


def test_a_log_that_cannot_be_opened(world: World) -> None:
    """At start the node ends and says why; on reload nothing changes."""
    pair = logging_pair(world)
    pair.dmz.write({**pair.dmz.config, "access_log": {"path": str(world.directory)}})
    assert pair.dmz.admin_post("/reload").status == 409
    pair.fetch("/still")
    assert records_of(world.directory / "dmz.log", 1)[0]["target"] == "/still"


def test_an_agent_knows_the_client_and_the_request(world: World) -> None:
    """As its DMZ node tells it: so both records of a request can be found by one id."""
    pair = logging_pair(world, format="json")
    assert pair.fetch("/").status == 200
    (dmz,) = records_of(world.directory / "dmz.log", 1)
    (agent,) = records_of(world.directory / "agent.log", 1)
    assert (agent["client"], agent["request_id"]) == (dmz["client"], dmz["request_id"])
    assert re.fullmatch(r"[0-9a-f]{32}", agent["request_id"])
    assert agent["tunnel"] == f"{pair.dmz.registration_url()} 0"


def test_tcp_connections(world: World) -> None:
    origin = world.origin()
    dmz = world.dmz(
        {
            "external": [{"name": "raw", "listen": loopback("tcp", rest="/db")}],
            "access_log": {"path": "dmz.log"},
        }
    )
    extra = {"access_log": {"path": "agent.log"}}
    world.agent(dmz.registration_url(), [{"match": "db", "upstream": origin.tcp_url}], 1, extra)
    assert fetch(dmz.external, "/").status == 200
    (outside,) = records_of(world.directory / "dmz.log", 1)
    (inside,) = records_of(world.directory / "agent.log", 1)
    for record in (outside, inside):
        assert (record["service"], record["status"], record["client"]) == ("db", 0, "127.0.0.1")
        assert (record["delivery"], record["tries"]) == ("sent", 1)
        assert record["bytes_in"] > 20
        assert record["bytes_out"] > 20
        assert "method" not in record
    assert inside["bytes_in"] == outside["bytes_in"]
    assert outside["tunnel"].endswith("/0")
    assert record["total_us"] >= record["wait_us"]


def test_what_an_agent_refuses(world: World) -> None:
    """Before anything of it was joined: by its own limit, and what it does not offer any more."""
    pair = world.pair(
        agent={"access_log": {"path": "agent.log"}},
        services=lambda origin: [{"match": "/", "upstream": origin.url, "limits": {"body": 5}}],
    )
    assert pair.fetch("/a", "POST", body=b"123456").status == 413
    (record,) = records_of(world.directory / "agent.log", 1)
    assert (record["error"], record["delivery"], record["status"]) == ("body-too-large", "never-sent", 0)
    assert (record["method"], record["target"], record["service"]) == ("POST", "/a", "/")
    assert record["request_id"]
    (counted,) = pair.agent.status()["requests"]
    assert counted["failures"] == {"body-too-large": {"never-sent": 1}}


HOSTILE = [b'"', b"\\", b"\t", b"\x80\xff\xc2\x85", b"\xe2\x80\xa8", b'","status":200,"x":"']


@pytest.mark.parametrize("form", ["json", "combined"])
def test_what_strangers_send_forges_nothing(world: World, form: str) -> None:
    """A record is one line of printable ASCII, whatever stands in fields, target, host or id."""
    pair = logging_pair(world, format=form)
    for hostile in HOSTILE:
        fields = b"".join(
            name + b": a" + hostile + b"b\r\n" for name in (b"User-Agent", b"Referer", b"X-Request-Id")
        )
        with pair.client() as client:
            client.send(
                b"GET /?" + hostile.replace(b"\t", b"") + b" HTTP/1.1\r\nHost: a\r\n" + fields + b"\r\n"
            )
            client.read_response()
    for name in ("dmz.log", "agent.log"):
        path = world.directory / name
        lines_of(path, len(HOSTILE) - (name == "agent.log") * 4)
        data = path.read_bytes()
        assert not re.search(rb"[^\x20-\x7e\n]", data)
        for line in data.splitlines():
            if form == "json":
                record = json.loads(line)
                assert record["status"] in (200, 400)
                assert "x" not in record
            else:
                assert COMBINED.match(line.decode())


def load(pair: Pair, clients: int, until: threading.Event) -> list[int]:
    """Requests over many connections until the event; the numbers of those that were answered."""
    done: list[int] = []
    numbers = itertools.count()

    def ask() -> None:
        while not until.is_set():
            with pair.client() as client:
                for _ in range(20):
                    number = next(numbers)
                    client.send_request("GET", f"/{number}", fields=[("User-Agent", "x" * 300)])
                    assert client.read_response().status == 200
                    done.append(number)

    with ThreadPoolExecutor(clients) as pool:
        for each in [pool.submit(ask) for _ in range(clients)]:
            each.result()
    return done


def test_rotation_under_load_with_workers(world: World) -> None:
    """Two processes write to one file, which is moved away again and again: none is lost, none is torn."""
    pair = world.pair(dmz={"workers": 2, "access_log": {"path": "dmz.log"}}, tunnels=2)
    path, over = world.directory / "dmz.log", threading.Event()
    moved: list[Path] = []

    def rotate() -> None:
        for number in range(8):
            lines_of(path, 20)
            old = world.directory / f"dmz.log.{number}"
            path.rename(old)
            moved.append(old)
            if number % 2:
                pair.dmz.process.signal(signal.SIGUSR1)
            else:
                assert pair.dmz.admin_post("/reload").status == 200
            wait_until(path.exists, "the file is there again")
        over.set()

    with ThreadPoolExecutor(1) as pool:
        rotating = pool.submit(rotate)
        rotating.add_done_callback(lambda _: over.set())
        done = load(pair, 6, over)
        rotating.result()
    workers = {worker["pid"] for worker in pair.dmz.status()["workers"]}
    assert len(workers) == 2
    assert pair.dmz.status()["access_log"]["records"] == len(done)
    pair.dmz.stop()
    lines = [line for each in (*moved, path) for line in each.read_text().splitlines()]
    seen = [int(json.loads(line)["target"][1:]) for line in lines]
    assert sorted(seen) == sorted(done)
    assert all(each.stat().st_size for each in moved)


def test_workers_take_turns_at_a_pipe(world: World) -> None:
    """The kernel does not keep large writes to a pipe together."""
    pair = world.pair(dmz={"workers": 2, "access_log": {"path": "stdout"}}, tunnels=2)
    over = threading.Event()
    threading.Timer(2.0, over.set).start()
    done = load(pair, 6, over)
    pair.dmz.stop()
    seen = [int(json.loads(line)["target"][1:]) for line in pair.dmz.process.stdout]
    assert sorted(seen) == sorted(done)


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_with_logrotate(world: World) -> None:
    """The configuration that the guide shows."""
    pair = logging_pair(world)
    path = world.directory / "dmz.log"
    pair.fetch("/first")
    lines_of(path, 1)
    (text,) = re.findall(r"^```\n(/var/log/.*?)^```", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    signal_it = f"kill -USR1 {pair.dmz.process.pid}"
    text = text.replace("/var/log/broker/access.log", str(path))
    text = re.sub(r"systemctl kill .*", signal_it, text)
    config = world.directory / "logrotate.conf"
    config.write_text(text)
    config.chmod(0o644)
    state = world.directory / "state"
    subprocess.run(["logrotate", "--force", "--state", str(state), str(config)], check=True, timeout=30)
    wait_until(path.exists, "the file is there again")
    pair.fetch("/second")
    assert records_of(path, 1)[0]["target"] == "/second"
    assert records_of(path.with_name("dmz.log.1"), 1)[0]["target"] == "/first"
