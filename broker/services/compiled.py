"""From the configuration's numbers to the core's snapshot of them."""

from __future__ import annotations

from _fastpath.settings import Settings
from broker.config.model import Limits, Timeouts


def settings_of(limits: Limits, timeouts: Timeouts) -> Settings:
    return Settings(
        head=limits.head,
        headers=limits.headers,
        uri=limits.uri,
        body=limits.body,
        connections=limits.connections,
        connections_per_address=limits.connections_per_address,
        waiting=limits.waiting,
        head_timeout=timeouts.head,
        idle_timeout=timeouts.idle,
        connect_timeout=timeouts.connect,
        first_byte_timeout=timeouts.first_byte,
        total_timeout=timeouts.total,
        agent_wait=timeouts.agent_wait,
    )
