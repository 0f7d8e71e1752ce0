"""What it costs to read, check and write one frame header; divide by LOOPS and the number of headers."""

from pytest_benchmark.fixture import BenchmarkFixture

from _fastpath.frame import bench_headers, encode_header

LOOPS = 10_000
OPEN, REPLY, DATA, WINDOW, RESET = 1, 2, 3, 5, 6
STREAM = 0x8001_0007
HEADERS = b"".join(
    [
        encode_header(400, OPEN, 1, STREAM),
        encode_header(1400, REPLY, 1, STREAM),
        encode_header(65536, DATA, 0, STREAM),
        encode_header(4, WINDOW, 0, STREAM),
        encode_header(4, RESET, 0, STREAM),
    ]
)


def test_headers(benchmark: BenchmarkFixture) -> None:
    benchmark.extra_info["loops"] = LOOPS * 5
    assert benchmark(bench_headers, HEADERS, LOOPS) == LOOPS * 5
