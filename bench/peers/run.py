"""Runs the scenarios: interleaved rounds, one contestant and one load at a time."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.peers.contestant import Contestant, Running, Site, running
from bench.peers.contestants.nginx import start_service
from bench.peers.loads import wrk
from bench.peers.processes import Failed, Processes, free_ports
from bench.peers.results import Measurement
from bench.peers.scenario import Scenario, Settings

WARM_CONNECTIONS = 8

Report = Callable[[Measurement], None]


@dataclass(frozen=True)
class Run:
    """What to run."""

    contestants: Sequence[Contestant]
    scenarios: Sequence[Scenario]
    rounds: int
    seconds: float
    descriptors: int
    access_log: bool = False

    def measurements(self) -> int:
        return len(self.contestants) * len(self.scenarios) * self.rounds


def execute(run: Run, report: Report) -> None:
    """Measures everything; what fails is reported as such and does not end the run."""
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        directory = Path(name)
        with Processes(directory) as services:
            nginx = start_service(services)
            service = _start_service_that_waits(services)
            services.check()
            settings = Settings(run.seconds, directory / "files")
            ports = {"nginx": (nginx, "service"), "service": (service, "slow-service")}
            for scenario in run.scenarios:
                port, process = ports[scenario.upstream]
                site = Site(
                    ("127.0.0.1", port),
                    services.pids(process),
                    scenario.tunnels,
                    run.access_log,
                    run.descriptors,
                )
                _run_scenario(run, scenario, site, settings, directory, report)
                services.check()


def _start_service_that_waits(services: Processes) -> int:
    (port,) = free_ports(1)
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-m", "broker.bench.service", "--port", str(port)]
    services.start("slow-service", command, {"PYTHONPATH": root})
    return port


def _run_scenario(
    run: Run, scenario: Scenario, site: Site, settings: Settings, directory: Path, report: Report
) -> None:
    for number in range(run.rounds):
        # Each round begins with another one, so that nobody always comes after the same neighbour.
        turn = number % len(run.contestants)
        for contestant in [*run.contestants[turn:], *run.contestants[:turn]]:
            place = directory / f"{scenario.name}-{number}-{contestant.name}"
            report(_measure(contestant, scenario, site, settings, place, number))


def _measure(
    contestant: Contestant, scenario: Scenario, site: Site, settings: Settings, place: Path, number: int
) -> Measurement:
    measurement = Measurement(scenario.name, contestant.name, number)
    try:
        with running(contestant, site, place) as started:
            if scenario.warm:
                _warm_up(started)
            measurement.figures = scenario.measure(started, settings)
    except* (Failed, OSError, subprocess.SubprocessError) as group:
        measurement.failure = "; ".join(str(problem) or type(problem).__name__ for problem in _leaves(group))
    return measurement


def _warm_up(started: Running) -> None:
    wrk.run(started.url(), WARM_CONNECTIONS, 1)


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    found: list[BaseException] = []
    for problem in group.exceptions:
        found += _leaves(problem) if isinstance(problem, BaseExceptionGroup) else [problem]
    return found
