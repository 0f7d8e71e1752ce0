"""What the multiplexer costs, both ends together, without sockets: per request, and per byte of bulk."""

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from _fastpath.loops import Loop

REQUESTS = 10_000
BULK = 64 << 20


@pytest.mark.parametrize("batch", [1, 32, 1000])
def test_requests(benchmark: BenchmarkFixture, batch: int) -> None:
    """A head of 300 bytes, answered by one of 300 and 1 KiB of body; `batch` streams at once."""
    loop = Loop()
    count = REQUESTS // batch * batch
    benchmark.extra_info["loops"] = count
    try:
        assert benchmark(loop.requests, count, batch) == count
    finally:
        loop.close()


def test_bulk(benchmark: BenchmarkFixture) -> None:
    """One response of 64 MiB in DATA frames."""
    loop = Loop(total=BULK)
    benchmark.extra_info["bytes"] = BULK
    try:
        assert benchmark(loop.bulk) == BULK
    finally:
        loop.close()
