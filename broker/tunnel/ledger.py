"""Who is registered in a node of several workers: one ledger that all of them ask, so that limits, claims of
services and evictions hold across them.

Each worker has a Registry of its own tunnels and decides by it first; then it claims what it is about to
give. Sans-IO: claims in, verdicts out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from broker.config.model import Match
from broker.tunnel.handshake import Refusal
from broker.tunnel.messages import pack_services, parse_services

MemberKey = tuple[str, str, str, int]  # user, agent, instance, index


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker is about to give one tunnel: all of its services, also those that it has already."""

    port: str  # the registration port's name
    key: MemberKey
    host: str  # the agent's address
    services: tuple[Match, ...]
    user_tunnels: int | None  # how many the user may have
    port_tunnels: int  # how many the port may have

    @property
    def user(self) -> str:
        return self.key[0]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Nothing at all (`refusal`), or all but the services that other users have (`conflicts`)."""

    generation: int = 0  # to be given back when the tunnel is gone
    refusal: Refusal | None = None
    conflicts: frozenset[Match] = frozenset()


class Arbiter(Protocol):
    """What a Registry asks where other workers have tunnels too. Answers come in the order of claims."""

    def claim(self, claim: Claim, then: Callable[[Verdict], None]) -> None: ...
    def left(self, port: str, key: MemberKey, generation: int) -> None: ...


@dataclass(slots=True, eq=False)
class Holding:
    worker: int
    generation: int
    host: str
    services: frozenset[Match]


@dataclass(slots=True)
class _Port:
    members: dict[MemberKey, Holding] = field(default_factory=dict)
    per_user: Counter[str] = field(default_factory=Counter)
    owners: dict[Match, Counter[str]] = field(default_factory=dict)  # users with their tunnels


class Ledger:
    def __init__(self) -> None:
        self._ports: dict[str, _Port] = {}
        self._generations = itertools.count(1)

    def claim(self, worker: int, claim: Claim) -> tuple[Verdict, int | None]:
        """The verdict, and the worker that has an older tunnel of the same agent and must end it."""
        port = self._ports.setdefault(claim.port, _Port())
        before = port.members.get(claim.key)
        if before is None:
            refusal = numbers(
                claim.user,
                len(port.members),
                claim.port_tunnels,
                port.per_user[claim.user],
                claim.user_tunnels,
            )
            if refusal is not None:
                return Verdict(refusal=refusal), None
        conflicts = frozenset(each for each in claim.services if self._foreign(port, each, claim.user))
        if claim.services and len(conflicts) == len(claim.services) and before is None:
            return Verdict(refusal=conflict(claim.services[0])), None
        if before is not None:
            self._release(port, claim.key)
        holding = Holding(worker, next(self._generations), claim.host, frozenset(claim.services) - conflicts)
        port.members[claim.key] = holding
        port.per_user[claim.user] += 1
        for service in holding.services:
            port.owners.setdefault(service, Counter())[claim.user] += 1
        evict = before.worker if before is not None and before.worker != worker else None
        return Verdict(generation=holding.generation, conflicts=conflicts), evict

    def left(self, worker: int, name: str, key: MemberKey, generation: int) -> None:
        """A tunnel is gone; one that has been replaced since is not meant."""
        port = self._ports.get(name, _Port())
        holding = port.members.get(key)
        if holding is not None and (holding.worker, holding.generation) == (worker, generation):
            self._release(port, key)

    def lost(self, worker: int) -> None:
        """The worker has died, and its tunnels with it."""
        for port in self._ports.values():
            for key in [key for key, holding in port.members.items() if holding.worker == worker]:
                self._release(port, key)

    def tunnels(self, worker: int, host: str | None = None) -> int:
        """Tunnels of a worker: all, or those of agents at one address."""
        return sum(
            holding.worker == worker and host in (None, holding.host)
            for port in self._ports.values()
            for holding in port.members.values()
        )

    def keys(self) -> list[tuple[Any, ...]]:
        return [(name, *key) for name, port in self._ports.items() for key in port.members]

    def _foreign(self, port: _Port, service: Match, user: str) -> bool:
        return any(owner != user for owner in port.owners.get(service, ()))

    def _release(self, port: _Port, key: MemberKey) -> None:
        holding = port.members.pop(key)
        user = key[0]
        port.per_user[user] -= 1
        if not port.per_user[user]:
            del port.per_user[user]
        for service in holding.services:
            owners = port.owners[service]
            owners[user] -= 1
            if not owners[user]:
                del owners[user]
            if not owners:
                del port.owners[service]


def numbers(user: str, tunnels: int, port_may: int, has: int, may: int | None) -> Refusal | None:
    """Why one more tunnel would be too many."""
    if tunnels >= port_may:
        return Refusal(503, "overloaded", "This registration port has all the tunnels that it may have.", 5)
    if may is not None and has >= may:
        return Refusal(429, "rate-limited", f"User {user} has the {may} tunnels that are allowed.", 2)
    return None


def conflict(service: Match) -> Refusal:
    return Refusal(409, "conflict", f"The service {service} is taken by another user.")


# --- as messages ------------------------------------------------------------------------------------


def pack_claim(claim: Claim) -> dict[str, Any]:
    return {
        "port": claim.port,
        "key": list(claim.key),
        "host": claim.host,
        "services": pack_services(claim.services),
        "user_tunnels": claim.user_tunnels,
        "port_tunnels": claim.port_tunnels,
    }


def parse_claim(message: dict[str, Any]) -> Claim:
    return Claim(
        message["port"],
        parse_key(message["key"]),
        message["host"],
        parse_services(message["services"]),
        message["user_tunnels"],
        message["port_tunnels"],
    )


def parse_key(value: Iterable[Any]) -> MemberKey:
    user, agent, instance, index = value
    return user, agent, instance, index


def pack_verdict(verdict: Verdict) -> dict[str, Any]:
    refusal = verdict.refusal
    return {
        "generation": verdict.generation,
        "refusal": refusal and [refusal.status, refusal.code, refusal.sentence, refusal.retry_after],
        "conflicts": pack_services(verdict.conflicts),
    }


def parse_verdict(message: dict[str, Any]) -> Verdict:
    refusal = Refusal(*message["refusal"]) if message["refusal"] else None
    return Verdict(message["generation"], refusal, frozenset(parse_services(message["conflicts"])))
