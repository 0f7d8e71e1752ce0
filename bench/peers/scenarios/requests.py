"""Small requests: as many as so many connections carry, and at fixed rates."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from bench.peers.contestant import Running
from bench.peers.loads import wrk
from bench.peers.scenario import Figures, Scenario, Settings
from bench.peers.scenarios.measures import figures_of, run_plan, state_of
from broker.bench import load

Measure = Callable[[Running, Settings], Figures]

# What a browser of 2025 sends to a site on which it is logged in.
BROWSER_HEAD = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "Accept-Language": "en-GB,en;q=0.8,de-DE;q=0.5,de;q=0.3",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Referer": "https://www.example.com/orders/2025/overview?page=3&sort=date",
    "Cookie": "session=4f1c0b1e9a7d4c1f8f0e6f4b7a2d9c35; theme=dark; consent=yes; csrf=Zm9vYmFyYmF6cXV4",
    "Upgrade-Insecure-Requests": "1",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Site": "same-origin",
    "Priority": "u=0, i",
}


def closed_loop(connections: int, headers: Mapping[str, str] | None = None) -> Measure:
    """Each connection asks again as soon as it is answered."""

    def measure(running: Running, settings: Settings) -> Figures:
        before = running.cpu_seconds()
        result = wrk.run(running.url(), connections, settings.seconds, headers, running.hosts)
        cpu = running.cpu_seconds() - before
        figures: Figures = {"rate": result.rate, "errors": result.errors, **state_of(running)}
        figures |= {name: result.percentiles[name] for name in ("p50", "p99", "p99.9")}
        if result.requests:
            figures["cpu_us"] = cpu / result.requests * 1e6
        return figures

    return measure


def fixed_rate(rate: float, connections: int) -> Measure:
    """Requests start when they are due, whether or not earlier ones are answered."""

    def measure(running: Running, settings: Settings) -> Figures:
        plan = load.Plan(
            running.host,
            running.port,
            connections=connections,
            seconds=settings.seconds,
            rate=rate,
            warmup=0.5,
        )
        return figures_of(run_plan(plan, running)) | state_of(running)

    return measure


NEW = {"Connection": "close"}

SCENARIOS = [
    Scenario("c1", "1 KiB, 1 connection", closed_loop(1), tls=True),
    Scenario("c64", "1 KiB, 64 connections", closed_loop(64), tls=True),
    Scenario("c256", "1 KiB, 256 connections", closed_loop(256), tls=True),
    Scenario("c1024", "1 KiB, 1,024 connections", closed_loop(1024), tls=True),
    Scenario("heads", "1 KiB, browser-sized heads, 64 connections", closed_loop(64, BROWSER_HEAD), tls=True),
    Scenario("new", "1 KiB, a new connection for each, 64 at once", closed_loop(64, NEW), tls=True),
    Scenario("rate5000", "1 KiB, 5,000 a second", fixed_rate(5000, 64)),
    Scenario("rate20000", "1 KiB, 20,000 a second", fixed_rate(20000, 256)),
    Scenario("agents100", "1 KiB, 64 connections, 100 agents with a host each", closed_loop(64), agents=100),
]
