"""Over a link of 60 ms and 1 Gbit/s between the agent, with the service, and the node that clients reach."""

from __future__ import annotations

from bench.peers.scenario import Scenario
from bench.peers.scenarios.bulk import download, transfer, upload
from bench.peers.scenarios.requests import NEW, closed_loop

SCENARIOS = [
    Scenario("far-c64", "1 KiB, 64 connections, 60 ms to the agent", closed_loop(64), link=True),
    Scenario(
        "far-new", "1 KiB, a new connection for each, 60 ms to the agent", closed_loop(64, NEW), link=True
    ),
    Scenario("far-download", "256 MiB download, 60 ms to the agent", transfer(download("256m")), link=True),
    Scenario(
        "far-upload", "256 MiB upload, 60 ms to the agent", transfer(upload("256m")), "service", link=True
    ),
]
