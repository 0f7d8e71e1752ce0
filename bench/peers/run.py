"""Runs the scenarios: interleaved rounds, one contestant and one load at a time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.peers.contestant import Contestant, Running, Site, running
from bench.peers.contestants.nginx import start_service
from bench.peers.link import linked
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

    def fit(self, scenario: Scenario) -> list[Contestant]:
        """Who takes part in a scenario."""
        return [each for each in self.contestants if not unfit(each, scenario, self.descriptors)]

    def measurements(self) -> int:
        return sum(len(self.fit(scenario)) for scenario in self.scenarios) * self.rounds


def unfit(contestant: Contestant, scenario: Scenario, descriptors: int) -> str | None:
    """Why a contestant cannot take part in a scenario, or None."""
    if contestant.tls and not scenario.tls:
        return "its load speaks no TLS"
    if scenario.agents > 1 and not contestant.many_agents:
        return "it does not choose among agents by host"
    if scenario.descriptors > descriptors * contestant.workers:
        return f"one process may have {descriptors:,} open descriptors here (ulimit -Hn)"
    return None


def execute(run: Run, report: Report) -> None:
    """Measures everything; what fails is reported as such and does not end the run."""
    with tempfile.TemporaryDirectory(prefix="bench-peers-") as name:
        directory = Path(name)
        (directory / "here").mkdir()
        with Processes(directory / "here") as services:
            base = Site(("127.0.0.1", 0), access_log=run.access_log, descriptors=run.descriptors)
            site_of = _start_services(services, base)
            for scenario in run.scenarios:
                if not scenario.link:
                    _run_scenario(run, scenario, site_of(scenario), directory, report)
                    services.check()
        if any(scenario.link for scenario in run.scenarios):
            _execute_linked(run, base, directory, report)


def _execute_linked(run: Run, base: Site, directory: Path, report: Report) -> None:
    """Those with a link between the agent, with the service, and the rest."""
    (directory / "far").mkdir()
    with linked(directory) as ends, Processes(directory / "far") as services:
        site_of = _start_services(
            services, replace(base, upstream=(ends.far, 0), near=ends.near, far=ends.at_far)
        )
        for scenario in run.scenarios:
            if scenario.link:
                _run_scenario(run, scenario, site_of(scenario), directory, report)
                services.check()


def _start_services(services: Processes, base: Site) -> Callable[[Scenario], Site]:
    """Starts both services, on the agents' side where there is a link; gives the site of a scenario."""
    host = base.upstream[0]
    (slow,) = free_ports(1)
    command = [*base.far, sys.executable, "-m", "broker.bench.service", "--host", host, "--port", str(slow)]
    nginx = start_service(services, host, base.far)
    services.start("slow-service", command, {"PYTHONPATH": str(Path(__file__).parents[2])})
    services.check()
    ports = {"nginx": (nginx, "service"), "service": (slow, "slow-service")}

    def site_of(scenario: Scenario) -> Site:
        port, process = ports[scenario.upstream]
        return replace(
            base,
            upstream=(host, port),
            upstream_pids=services.pids(process),
            tunnels=scenario.tunnels,
            agents=scenario.agents,
        )

    return site_of


def _run_scenario(run: Run, scenario: Scenario, site: Site, directory: Path, report: Report) -> None:
    settings = Settings(run.seconds, directory / ("far" if site.far else "here") / "files")
    chosen = run.fit(scenario)
    for number in range(run.rounds):
        # Each round begins with another one, so that nobody always comes after the same neighbour.
        turn = number % max(1, len(chosen))
        for contestant in [*chosen[turn:], *chosen[:turn]]:
            place = directory / f"{scenario.name}-{number}-{contestant.name}"
            report(_measure(contestant, scenario, site, settings, place, number))
            shutil.rmtree(place, ignore_errors=True)  # access logs are large


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
