"""What the product gets out of a link with delay, rate and loss, beside plain TCP on the same link.

A DMZ node and its clients are in one network namespace, the agent and the service in another; between
them is `link.c`. Every figure has its plain twin, measured just before it: a client that reaches the service
directly.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.links import load
from bench.links.spaces import Link, Nodes, Spaces, have_rights

MIB = 1 << 20
GBIT = 1_000_000_000


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/test-links", description=__doc__)
    parser.add_argument("--link", required=True, type=Path, help="the compiled link.c")
    parser.add_argument("--rtt", type=int, nargs="*", default=[60, 100], help="milliseconds")
    parser.add_argument("--size", type=int, default=256, help="MiB of one transfer")
    parser.add_argument("--only", choices=["bulk", "beside", "loss"], help="one part")
    parser.add_argument("--congestion", default="system", help="tcp.congestion of both nodes")
    parser.add_argument(
        "--buffers", type=int, default=32, help="MiB that a TCP connection may queue (tcp_wmem, tcp_rmem)"
    )
    options = parser.parse_args()
    problem = have_rights()
    if problem:
        print(f"skipped: {problem}", file=sys.stderr)
        return 0
    failed = 0
    for rtt in options.rtt:
        if options.only in (None, "bulk", "beside"):
            failed += clean(options, rtt)
    if options.only in (None, "loss"):
        failed += lossy(options)
    return 1 if failed else 0


@contextmanager
def nodes_on(options: argparse.Namespace, link: Link, tunnels: int) -> Iterator[Nodes]:
    with tempfile.TemporaryDirectory() as place, Spaces(options.link, link) as spaces:
        yield from spaces.nodes(Path(place), tunnels, options.congestion)


def verdict(name: str, got: float, goal: float, unit: str, text: str, above: bool = True) -> int:
    good = got >= goal if above else got <= goal
    print(
        f"| {name} | {text} | {got:.2f}{unit} | {goal:g}{unit} | {'yes' if good else '**no**'} |", flush=True
    )
    return not good


def clean(options: argparse.Namespace, rtt: int) -> int:
    """One stream both ways, and a small request beside an upload."""
    failed = 0
    with nodes_on(options, Link(rtt, GBIT, buffers=options.buffers * MIB), tunnels=1) as nodes:
        if options.only in (None, "bulk"):
            for way in ("download", "upload"):
                plain = nodes.rate(nodes.direct, way, options.size * MIB)
                ours = nodes.rate(nodes.external, way, options.size * MIB)
                text = f"{ours:.1f} of {plain:.1f} MiB/s"
                failed += verdict(f"{rtt} ms, one {way}", ours / plain, 0.8, "", text)
        if options.only in (None, "beside"):
            plain = statistics.median(nodes.beside_upload(nodes.direct)) * 1000
            times = nodes.beside_upload(nodes.external)
            median = statistics.median(times) * 1000
            worst = max(times) * 1000
            text = f"median {median:.0f} ms, worst of {len(times)} {worst:.0f} ms; both plain: {plain:.0f} ms"
            name = f"{rtt} ms, a small request beside an upload"
            failed += verdict(name, median / rtt, 2.0, " round trips", text, above=False)
    return failed


def lossy(options: argparse.Namespace) -> int:
    flows, seconds, rtt, rate = 64, 12, 60, 200_000_000
    with nodes_on(
        options, Link(rtt, rate, loss=0.01, mtu=1500, buffers=options.buffers * MIB), tunnels=4
    ) as nodes:
        plain = nodes.flows(nodes.direct, flows, seconds)
        ours = nodes.flows(nodes.external, flows, seconds)
    text = f"{ours:.1f} of {plain:.1f} MiB/s"
    return verdict(
        f"{rtt} ms, 200 Mbit/s, 1 % loss, {flows} flows over 4 tunnels", ours / plain, 0.5, "", text
    )


if __name__ == "__main__":
    print("| link | | measured | goal | reached |\n|---|---|---:|---:|---|", flush=True)
    load.raise_descriptors()
    sys.exit(main())
