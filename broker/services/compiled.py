"""From the configuration's numbers and networks to the core's snapshots of them."""

from __future__ import annotations

from collections.abc import Sequence

from _fastpath.networks import Admission, Networks
from _fastpath.settings import Settings
from broker.config.model import Addresses, Limits, Network, Timeouts


def settings_of(
    limits: Limits, timeouts: Timeouts, upgrades: tuple[str, ...], stream_idle: int | None = None
) -> Settings:
    return Settings(
        head=limits.head,
        headers=limits.headers,
        uri=limits.uri,
        body=limits.body,
        response_head=limits.response_head,
        response_headers=limits.response_headers,
        min_rate=limits.min_rate,
        requests=limits.requests,
        upgrades=upgrades,
        connections=limits.connections,
        connections_per_address=limits.connections_per_address,
        waiting=limits.waiting,
        in_flight=limits.in_flight,
        head_timeout=timeouts.head,
        idle_timeout=timeouts.idle,
        slow_timeout=timeouts.slow,
        upgraded_timeout=timeouts.upgraded,
        connect_timeout=timeouts.connect,
        first_byte_timeout=timeouts.first_byte,
        total_timeout=timeouts.total,
        agent_wait=timeouts.agent_wait,
        stream_idle=stream_idle,
    )


def networks_of(networks: Sequence[Network]) -> Networks | None:
    return Networks(networks) if networks else None


def admission_of(addresses: Addresses) -> Admission | None:
    """None where everybody may connect."""
    if not (addresses.allow or addresses.deny):
        return None
    return Admission(networks_of(addresses.allow), networks_of(addresses.deny))
