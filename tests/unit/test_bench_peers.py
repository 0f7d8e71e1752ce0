"""The side-by-side benchmark: processes, loads, medians and ratios, tables."""

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.peers import document, goals, machine
from bench.peers.__main__ import main, parse
from bench.peers.contestants import contestants
from bench.peers.contestants.programs import as_numbers, ask_version, version_in
from bench.peers.loads import bulk
from bench.peers.loads.idle import IdleClients, IdleCrowd
from bench.peers.plan import PLAN
from bench.peers.plots import PLOTS, bars
from bench.peers.processes import Failed, Processes, established, free_ports, sockets_in
from bench.peers.render import markdown
from bench.peers.results import Measurement, Results
from bench.peers.run import Run, unfit
from bench.peers.scenario import FIGURES
from bench.peers.scenarios import scenarios
from bench.peers.tables import number, overview_table, scenario_table

ROOT = Path(__file__).parents[2]


@pytest.fixture
def results() -> Results:
    found = Results(
        machine={"kernel": "6"},
        settings={"rounds": 2},
        contestants={
            "a": {"title": "A", "version": "1.0"},
            "b": {"title": "B", "version": ""},
            "c": {"title": "C", "version": ""},
        },
        scenarios={"c64": "64 connections"},
    )
    for turn, (ours, theirs) in enumerate([(10.0, 20.0), (40.0, 100.0), (30.0, 40.0)]):
        found.measurements.append(Measurement("c64", "a", turn, {"cpu_us": ours, "p50": 1.0}))
        found.measurements.append(Measurement("c64", "b", turn, {"cpu_us": theirs, "p50": 2.0}))
    found.measurements.append(Measurement("c64", "c", 0, failure="it | fell"))
    return found


def test_medians_and_ratios_are_taken_round_by_round(results: Results) -> None:
    assert results.middle("c64", "a", "cpu_us") == 30
    assert results.ratio("c64", "a", "b", "cpu_us") == 0.5
    assert results.ratio("c64", "a", "c", "cpu_us") is None
    assert results.middle("c64", "c", "cpu_us") is None


def test_results_are_kept_in_a_file(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "out.json"
    results.save(path)
    assert Results.load(path) == results
    path.write_text("{}")
    with pytest.raises(ValueError, match="not a file"):
        Results.load(path)


def test_tables_show_ratios_and_failures(results: Results) -> None:
    table = scenario_table(results, "c64", "b")
    assert table.columns == ["contestant", "CPU µs/request", "x b", "p50 ms"]
    assert table.rows[0] == ["A", "30.0", "0.50", "1.000"]
    assert table.rows[2] == ["C (1 of 1 rounds failed: it | fell)", "-", "-", "-"]
    assert overview_table(results, "cpu_us").rows[0] == ["A 1.0", "30.0"]
    assert number(12345.6, 0) == "12,346"


def test_the_document_is_markdown(results: Results) -> None:
    results.skipped["d"] = "not there"
    text = "\n".join(markdown(results, "b"))
    assert "kernel 6" in text
    assert "Skipped: d: not there" in text
    assert "| C (1 of 1 rounds failed: it / fell) | - | - | - |" in text


def test_every_scenario_and_contestant_has_a_name_of_its_own() -> None:
    assert list(contestants(None)) == [each.name for each in contestants(None).values()]
    assert list(scenarios()) == [each.name for each in scenarios().values()]
    assert all(figure.digits < 4 for figure in FIGURES.values())


def test_the_defaults_are_there() -> None:
    options = parse([])
    assert set(options.contestants.split(",")) <= set(contestants(None))
    assert set(options.scenarios.split(",")) <= set(scenarios())


def test_who_cannot_take_part_is_left_out_with_a_reason() -> None:
    known, loads = contestants(None), scenarios()
    assert unfit(known["ours-tls"], loads["c64"], 20_000) is None
    assert unfit(known["ours-tls"], loads["rate5000"], 20_000) == "its load speaks no TLS"
    assert unfit(known["nginx"], loads["agents100"], 20_000) == "it does not choose among agents by host"
    assert "20,000" in str(unfit(known["nginx"], loads["idle20000"], 20_000))
    assert unfit(known["ours-2-workers"], loads["idle20000"], 20_000) is None
    run = Run([known["nginx"], known["ours"]], [loads["c64"], loads["agents100"]], 5, 1.0, 20_000)
    assert run.measurements() == 15


def test_another_working_copy_is_a_contestant_that_must_be_built(tmp_path: Path) -> None:
    other = contestants(None, [tmp_path / "before"])["ours@before"]
    assert "is not built" in str(other.missing())


def test_an_unknown_name_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["peers", "--contestants", "nobody"])
    assert main() == 2


def test_versions_are_compared_as_numbers() -> None:
    assert as_numbers("2.10.1") > as_numbers("2.9")
    assert ask_version(None, "-v") == ""
    assert ask_version(Path(sys.executable), "--version").startswith("3.")
    assert (
        version_in("rathole\nBuild Timestamp: 2026-11-26T15:51:26.352587705Z\nBuild Version: 0.5.0")
        == "0.5.0"
    )
    assert version_in("HAProxy version 3.5-dev5-50872d-2 2026/08/21") == "3.5-dev5"
    assert version_in("OpenSSH_9.2p1 Debian-2") == "9.2p1"


def test_the_machine_is_described() -> None:
    about = machine.describe()
    assert all(value not in ("", "unknown") for value in about.values())


def test_processes_are_accounted_together_and_ended(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("one", [sys.executable, "-c", "import signal; signal.pause()"])
        processes.start("two", ["/bin/sh", "-c", "sleep 60 & wait"])
        processes.check()
        while len(pids := processes.pids()) < 3:  # the shell has not started its child yet
            processes.check()
            processes.pause(0.02)
        assert set(processes.pids("one")) < set(pids)
    assert not any(runs(pid) for pid in pids)


def runs(pid: int) -> bool:
    """Orphans that have ended may wait for whoever inherits them."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_a_process_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        processes.start("brief", ["/bin/sh", "-c", "echo goodbye; exit 3"])
        processes.pause(10)
        with pytest.raises(Failed, match="brief ended with 3: goodbye"):
            processes.check()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[int]:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "broker.bench.service", "--port", str(port)]
    with Processes(tmp_path) as processes:
        processes.start("service", command, {"PYTHONPATH": str(ROOT)})
        while not _listens(port):
            processes.check()
            processes.pause(0.02)
        yield port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def test_bulk_moves_whole_bodies(service: int, tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(bytes(3_000_000))
    assert bulk.upload("127.0.0.1", service, "/", file) == 3_000_000
    assert bulk.download("127.0.0.1", service, "/bytes/5000000") > 4_990_000
    with bulk.open_download("127.0.0.1", service, "/bytes/5000000"):
        pass


def test_downloads_go_on_beside_something(service: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with bulk.downloads("127.0.0.1", service, "/bytes/1000000", count=2, pace=5):
        assert established(service) >= 2


def test_a_short_download_is_noticed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            client, _ = server.accept()
            with client:
                client.recv(1000)
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Failed, match="95 bytes short"):
            bulk.download("127.0.0.1", server.getsockname()[1], "/")
        thread.join()


def test_a_connection_that_the_kernel_lists_twice_counts_once() -> None:
    """Read while many connections came and went, a third of the tables had such a line."""
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 552 1
   1: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 553 1
   2: 0100007F:1F90 0100007F:A002 01 00000000:00000000 00:00000000 00000000     0        0 554 1
   3: 0100007F:1F90 0100007F:A001 01 00000000:00000000 00:00000000 00000000     0        0 553 1
   4: 0100007F:A001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 555 1
   5: 0100007F:1F90 0100007F:A003 06 00000000:00000000 00:00000000 00000000     0        0 0 1
"""
    local = "0100007F:1F90"
    assert sockets_in(table, 8080, "01") == {(local, "0100007F:A001"), (local, "0100007F:A002")}
    assert sockets_in(table, 8080, "0A") == {(local, "00000000:0000")}


def test_idle_clients_stay_connected(service: int) -> None:
    with IdleClients("127.0.0.1", service) as clients:
        clients.grow(3)
        clients.grow(5)
        assert established(service) == 5
        assert clients.closed() == 0


def test_a_crowd_is_shared_by_processes(service: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.peers.loads.idle.CLIENTS_PER_PROCESS", 3)
    with IdleCrowd("127.0.0.1", service, False, 5) as crowd:
        crowd.grow(2)
        crowd.grow(5)
        assert established(service) == 5
        assert crowd.closed() == 0
    with IdleCrowd("127.0.0.1", free_ports(1)[0], False, 1) as crowd, pytest.raises(Failed, match="refused"):
        crowd.grow(1)


def test_results_of_one_machine_are_joined(results: Results) -> None:
    again = Results(
        results.machine | {"date": "later"}, results.settings, {"a": {"title": "A", "version": "2.0"}}, {}
    )
    again.measurements.append(Measurement("c64", "a", 0, {"cpu_us": 1.0}))
    both = results.joined(again)
    assert both.middle("c64", "a", "cpu_us") == 1.0
    assert both.middle("c64", "b", "cpu_us") == 40
    assert both.contestants["a"]["version"] == "2.0"
    assert both.rounds("c64") == 3
    assert both.rounds("c1") == 0
    assert list(both.ordered(["c", "nobody", "a"], ["c64"]).contestants) == ["c", "a"]
    again.machine["kernel"] = "7"
    with pytest.raises(ValueError, match="another machine"):
        results.joined(again)


def test_the_plan_names_what_there_is() -> None:
    for scenario, (names, rounds) in PLAN.items():
        assert scenario in scenarios()
        assert set(names.split(",")) <= set(contestants(None))
        assert rounds > 0


def test_the_documents_show_the_newest_results() -> None:
    """Where not: python -m bench.peers.document"""
    source = document.newest()
    results = document.load(source)
    assert document.TABLES.read_text() == document.tables(results, source.name)
    text = document.SUMMARY.read_text()
    assert text == document.summary(results, text)
    shown = [name for name, scenario, figure in PLOTS if figure in results.figures(scenario)]
    assert all((document.PLOTS / f"{name}.svg").exists() for name in shown)


def test_goals_are_judged_by_the_figures(results: Results) -> None:
    results.contestants |= {name: {"title": name, "version": ""} for name in ("ours", "rhttp", "haproxy")}
    for name, cost in (("ours", 6.0), ("rhttp", 10.0), ("haproxy", 5.0)):
        results.measurements.append(Measurement("c64", name, 0, {"cpu_us": cost}))
    rows = goals.table(results).rows
    assert rows[0][1:] == ["0.6", "0.60", "yes", "1 of one plain HAProxy hop", "1.20", "**no**"]
    assert rows[1][2:4] == ["-", "-"]


def test_a_document_without_its_marks_is_not_written(results: Results) -> None:
    with pytest.raises(ValueError, match="two marks"):
        document.summary(results, "nothing")


def test_plots_are_svg(results: Results, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    bars(results, "c64", "cpu_us", tmp_path / "c64.svg")
    assert "<svg" in (tmp_path / "c64.svg").read_text()
