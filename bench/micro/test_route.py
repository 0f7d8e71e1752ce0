"""What one route lookup costs: run with `pytest bench/micro/test_route.py`; divide by LOOPS."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _fastpath.route import RouteTable, Target

LOOPS = 10_000


def table(count: int) -> RouteTable:
    """A third exact hosts, a third wildcards, a third prefixes of one host."""
    entries = [("", "/", Target("rest"))]
    for number in range(count - 1):
        kind = number % 3
        if kind == 0:
            entries.append((f"shop{number}.example.com", "/", Target(str(number))))
        elif kind == 1:
            entries.append((f"*.team{number}.example.com", "/", Target(str(number))))
        else:
            entries.append(("api.example.com", f"/orders/v{number}", Target(str(number))))
    return RouteTable(entries)


CASES = {
    "exact": (b"shop3.example.com:8443", b"/cart/items"),
    "wildcard": (b"a.b.team4.example.com", b"/cart/items"),
    "prefix": (b"api.example.com", b"/orders/v5/customers/17/invoices"),
    "any": (b"www.example.org", b"/index.html"),
    "escaped": (b"api.example.com", b"/orders/v5/caf%C3%A9"),
    "dots": (b"api.example.com", b"/orders/v5/../v5/x"),
}


@pytest.mark.parametrize("count", [1, 10, 10_000])
@pytest.mark.parametrize("case", CASES)
def test_find(benchmark: BenchmarkFixture, case: str, count: int) -> None:
    routes = table(count)
    benchmark.extra_info["loops"] = LOOPS
    benchmark(routes.repeat, *CASES[case], LOOPS)


@pytest.mark.parametrize("count", [10, 10_000])
def test_find_many_different(benchmark: BenchmarkFixture, count: int) -> None:
    """All hosts in turn: what the caches of the processor do not hold; includes one Python call each."""
    routes = table(count)
    hosts = [host.replace("*", "x").encode() for host, _, _ in routes.patterns() if host]

    def run() -> None:
        for host in hosts:
            routes.lookup(host, b"/cart/items")

    benchmark.extra_info["loops"] = len(hosts)
    benchmark(run)
