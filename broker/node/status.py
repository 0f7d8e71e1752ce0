"""The node's state as one JSON object: /status, and the source of /metrics."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from broker import __version__
from broker.config.model import Match
from broker.errors import PROBLEMS
from broker.node.certificates import certificates_status
from broker.node.parts import Parts
from broker.observe.memory import memory_status
from broker.ports.external import ExternalPort
from broker.ports.registration import RegistrationPort
from broker.tunnel.registry import Member, Registry
from broker.tunnel.uplink import Uplink

if TYPE_CHECKING:
    from broker.node.node import Node

_CODES = {problem.number: problem.code for problem in PROBLEMS}


def node_status(node: Node) -> dict[str, Any]:
    parts = node.parts
    reasons = node.not_ready()
    return {
        "node": node.name,
        "version": __version__,
        "pid": os.getpid(),
        "uptime_s": round(time.monotonic() - node.started_at, 3),
        "ready": not reasons,
        "reasons": reasons,
        "state": node.state,
        "source": str(node.config.source) if node.config.source else None,
        "admin": {"url": node.admin.url} if node.admin is not None else None,
        "external": [_external(port) for port in parts.external.values()],
        "registration": [_registration(port) for port in parts.registration.values()],
        "connect": [_uplink(uplink) for uplink in parts.uplinks.values()],
        "tunnels": _registered(parts) + _dialled(parts),
        "services": _services(parts),
        "certificates": certificates_status(parts),
        "memory": memory_status(node.config.limits.memory),
        "loop": node.reactor.counters(),
        "reloads": dict(node.reloads),
    }


def by_code(failures: dict[int, int]) -> dict[str, int]:
    """The core counts by number; several numbers can have one code of the contract."""
    named: dict[str, int] = {}
    for number, count in failures.items():
        code = _CODES.get(number, str(number))
        named[code] = named.get(code, 0) + count
    return named


def _named(counters: dict[str, Any]) -> dict[str, Any]:
    if "failures" in counters:
        counters["failures"] = by_code(counters["failures"])
    return counters


def _external(port: ExternalPort) -> dict[str, Any]:
    return {
        "name": port.name,
        "url": port.url,
        "registration": port.config.registration,
        "service": port.config.service,
        **_named(port.counters()),
    }


def _registration(port: RegistrationPort) -> dict[str, Any]:
    registry = port.registry
    return {
        "name": port.name,
        "url": port.url,
        "tunnels": registry.tunnels,
        "accepted": port.accepted,
        "logins": registry.logins,
        "logins_pending": port.logins,
        "crowded_out": port.crowded_out,
        "turned_away": port.turned_away,
        "punished": port.penalties.punished,
        "evicted": registry.evicted,
        "lost": registry.lost,
        "refusals": dict(port.refusals),
    }


def _uplink(uplink: Uplink) -> dict[str, Any]:
    return {
        "url": uplink.url,
        "lost": uplink.lost,
        "refused": [
            {"service": each.service, "code": each.code, "reason": each.reason}
            for each in uplink.refused.values()
        ],
        "tunnels": [
            {
                "index": dialler.index,
                "address": dialler.target.host if dialler.target is not None else None,
                "state": dialler.state,
                "since": dialler.since,
                "failures": dialler.failures,
                "reason": dialler.reason,
            }
            for dialler in uplink.diallers
        ],
    }


def _registered(parts: Parts) -> list[dict[str, Any]]:
    return [
        _member(registry, member)
        for registry in parts.registries.values()
        for member in registry.members()
    ]  # fmt: skip


def _member(registry: Registry, member: Member) -> dict[str, Any]:
    tunnel = member.link
    return {
        "agent": member.registration.agent,
        "instance": member.registration.instance[:8],
        "index": member.registration.index,
        "user": member.principal.name,
        "registration": registry.name,
        "peer": member.address,
        "since": member.since,
        "services": [str(service) for service in member.accepted],
        "services_refused": [str(service) for service, _, _ in member.refused],
        "draining": tunnel.draining,
        "rtt_us": tunnel.rtt_us,
        "rtt_s": tunnel.rtt_us / 1e6,
        **tunnel.counters(),
        "streams": tunnel.streams,
    }


def _dialled(parts: Parts) -> list[dict[str, Any]]:
    return [
        {
            "agent": parts.agent.name,
            "instance": parts.agent.instance[:8],
            "index": dialler.index,
            "user": None,
            "connect": uplink.url,
            "peer": dialler.peer,
            "node": dialler.acceptance.node if dialler.acceptance is not None else "",
            "since": dialler.since,
            "draining": dialler.tunnel.draining,
            "rtt_us": dialler.tunnel.rtt_us,
            "rtt_s": dialler.tunnel.rtt_us / 1e6,
            **dialler.tunnel.counters(),
            "streams": dialler.tunnel.streams,
        }
        for uplink in parts.uplinks.values()
        for dialler in uplink.diallers
        if dialler.tunnel is not None
    ]


def kind_of(match: Match) -> str:
    if match.name.startswith("tls/"):
        return "tls"
    return "tcp" if match.name else "http"


def _services(parts: Parts) -> list[dict[str, Any]]:
    """Local ones say where they are offered (`at`), delegated ones where they are registered."""
    places = [(port.name, port.services) for port in parts.external.values()]
    places += list(parts.agent_services.items())
    local = [{"at": at, **_named(each)} for at, services in places for each in services.status()]
    delegated = [
        {
            "at": None,
            "service": str(match),
            "kind": kind_of(match),
            "registration": name,
            "user": entry.owner,
            **_named(entry.group.counters()),
        }
        for name, registry in parts.registries.items()
        for match, entry in registry.directory.entries()
    ]
    return local + delegated
