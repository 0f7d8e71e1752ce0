"""Everything, scenario by scenario, into one file: python -m bench.peers.plan --json results.json

It takes about an hour of a machine that does nothing else. A scenario that the file has already is passed
over, so that it can be stopped and taken up again; with `--again` it is measured once more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.peers.__main__ import main as measure
from bench.peers.results import Results

HOPS = "direct,ours,haproxy,haproxy2,nginx,rhttp"
PLAIN = f"{HOPS},frp-http-plain,frp-http,frp-tcp-plain,frp-tcp,rathole,chisel,ssh"
TLS = (
    "ours-tls,ours-tunnel-tls,ours-both-tls,haproxy-tls,nginx-tls,rhttp-tls,rhttp-tunnel-tls,rhttp-both-tls,"
    "frp-http-both-tls,rathole-tunnel-tls,chisel-tunnel-tls"
)
ALL = f"{PLAIN},ours-no-log,ours-2-workers,{TLS}"
OUTSIDE = "ours-tls,haproxy-tls,nginx-tls,rhttp-tls"
FAR = "ours,ours-tunnel-tls,rhttp,rhttp-tunnel-tls,frp-http,rathole,chisel"
PACED = "direct,ours,haproxy,rhttp,frp-http,rathole"
CHOICE = "ours,rhttp,frp-http-plain,frp-http"

# Who takes part, and in how many rounds.
PLAN = {
    "c64": (ALL, 3),
    "c256": (ALL, 3),
    "c1": (f"{PLAIN},ours-no-log,{OUTSIDE}", 3),
    "new": (ALL, 3),
    "bodies": (ALL, 3),
    "rate5000": (f"{PLAIN},ours-no-log", 2),
    "download": (PLAIN, 2),
    "upload": (PLAIN, 2),
    "idle5000": (f"{PLAIN},{TLS}", 1),
    "beside": (PLAIN, 2),
    "beside-paced": (PACED, 2),
    "rate20000": (PLAIN, 2),
    "heads": (f"{PLAIN},{OUTSIDE}", 2),
    "c1024": (PLAIN, 2),
    "agents100": (CHOICE, 1),
    "far-c64": (FAR, 1),
    "far-new": (FAR, 1),
    "far-download": (FAR, 1),
    "far-upload": (FAR, 1),
    "stalled": (PLAIN, 1),
    "idle20000": (f"{PLAIN},ours-2-workers", 1),
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.peers.plan", description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="where the results are kept")
    parser.add_argument("--scenarios", default=",".join(PLAN), help="only these")
    parser.add_argument("--again", action="store_true", help="also those that are there")
    options = parser.parse_args()
    for scenario in options.scenarios.split(","):
        contestants, rounds = PLAN[scenario]
        there = options.json.exists() and Results.load(options.json).rounds(scenario) == rounds
        if there and not options.again:
            continue
        words = [
            "--contestants",
            contestants,
            "--scenarios",
            scenario,
            "--rounds",
            str(rounds),
            "--seconds",
            "2",
        ]
        failed = measure([*words, "--access-log", "--add", "--json", str(options.json)])
        if failed:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
