"""All scenarios, in the order in which tables show them."""

from __future__ import annotations

from bench.peers.scenario import Scenario
from bench.peers.scenarios import beside, bulk, far, idle, requests, streams


def scenarios() -> dict[str, Scenario]:
    """By name."""
    found = [
        *requests.SCENARIOS,
        *streams.SCENARIOS,
        *bulk.SCENARIOS,
        *beside.SCENARIOS,
        *idle.SCENARIOS,
        *far.SCENARIOS,
    ]
    return {scenario.name: scenario for scenario in found}
