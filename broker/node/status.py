"""The node's state as one document: /status, and the source of /metrics. observe/snapshot.py describes it."""

from __future__ import annotations

import dataclasses
import os
import time
from typing import TYPE_CHECKING, Any

from _fastpath.meter import METER_BOUNDS_US
from _fastpath.tunnel import Tunnel
from broker import __version__
from broker.config.model import Match, Rights, User
from broker.errors import PROBLEMS
from broker.node.certificates import certificates_status, own_certificates
from broker.node.parts import TUNNEL_MEMORY, Parts
from broker.observe.memory import memory_status, process_status
from broker.observe.snapshot import SCHEMA_VERSION, TUNNEL
from broker.ports.external import ExternalPort
from broker.ports.registration import RegistrationPort
from broker.tunnel.registry import Member, Registry
from broker.tunnel.uplink import Uplink

if TYPE_CHECKING:
    from broker.node.node import Node

CODES = {problem.number: problem.code for problem in PROBLEMS}
DELIVERIES = ("never-sent", "maybe-sent", "sent")
# What only services have that are reached from here; and what only those have that agents announced.
ELSEWHERE = dict.fromkeys(
    ("connects", "connect_failures", "reused", "idle", "active", "bytes_in", "bytes_out", "statuses")
)
HERE = dict.fromkeys(("registration", "user", "tunnels", "waiting"))


def node_status(node: Node) -> dict[str, Any]:
    parts, config = node.parts, node.config
    reasons = node.not_ready()
    tunnels = _registered(parts) + _dialled(parts)
    return {
        "schema": SCHEMA_VERSION,
        "time": time.time(),
        "node": node.name,
        "version": __version__,
        "pid": os.getpid(),
        "processes": 1,
        "uptime_s": round(time.monotonic() - node.started_at, 3),
        "ready": not reasons,
        "reasons": reasons,
        "state": node.state,
        "source": str(config.source) if config.source else None,
        "admin": {"url": node.admin.url} if node.admin is not None else None,
        "workers": [],
        "external": [_external(port) for port in parts.external.values()],
        "registration": [_registration(port) for port in parts.registration.values()],
        "connect": [_uplink(uplink) for uplink in parts.uplinks.values()],
        "users": [_user(user, tunnels) for user in config.users],
        "agents": _agents(parts),
        "tunnels": tunnels,
        "services": _services(parts),
        "requests": _requests(parts),
        "durations_us": list(METER_BOUNDS_US),
        "last_failures": node.recorder.last_failures(),
        "certificates": certificates_status(parts) + own_certificates(node.admin),
        "access_log": node.recorder.status(),
        "tracing": node.recorder.tracing_status(),
        "memory": memory_status(config.limits.memory)
        | {
            "window_bytes": sum(tunnel["window_bytes"] for tunnel in tunnels),
            "window_limit_bytes": TUNNEL_MEMORY * len(tunnels),
        },
        "process": process_status(),
        "loop": node.reactor.counters(),
        "reloads": dict(node.reloads),
        "limits": dataclasses.asdict(config.limits),
        "timeouts": dataclasses.asdict(config.timeouts),
    }


def by_code(failures: dict[int, int]) -> dict[str, int]:
    """The core counts by number; several numbers can have one code of the contract."""
    named: dict[str, int] = {}
    for number, count in failures.items():
        code = CODES.get(number, str(number))
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
    return _tunnel(
        tunnel,
        agent=member.registration.agent,
        instance=member.registration.instance[:8],
        index=member.registration.index,
        user=member.principal.name,
        registration=registry.name,
        connect=None,
        node=None,
        peer=member.address,
        since=member.since,
        services=[str(service) for service in member.accepted],
        services_refused=[str(service) for service, _, _ in member.refused],
    )


def _dialled(parts: Parts) -> list[dict[str, Any]]:
    return [
        _tunnel(
            dialler.tunnel,
            agent=parts.agent.name,
            instance=parts.agent.instance[:8],
            index=dialler.index,
            user=None,
            registration=None,
            connect=uplink.url,
            node=dialler.acceptance.node if dialler.acceptance is not None else "",
            peer=dialler.peer,
            since=dialler.since,
            services=[str(service.match) for service in uplink.connect.services],
            services_refused=list(uplink.refused),
        )
        for uplink in parts.uplinks.values()
        for dialler in uplink.diallers
        if dialler.tunnel is not None
    ]


def _tunnel(tunnel: Tunnel, **identity: Any) -> dict[str, Any]:
    known = {
        **identity,
        "draining": tunnel.draining,
        "rtt_us": tunnel.rtt_us,
        "rtt_s": tunnel.rtt_us / 1e6,
        **tunnel.counters(),
        "streams": tunnel.streams,
    }
    return {key: known[key] for key in TUNNEL.fields}


def _agents(parts: Parts) -> list[dict[str, Any]]:
    rows = []
    for name, registry in parts.registries.items():
        rows += registry.totals.rows(name, ((each.agent, _now(each.link)) for each in registry.members()))
    for url, uplink in parts.uplinks.items():
        rows += uplink.totals.rows(url, ((uplink.agent, _now(tunnel)) for tunnel in uplink.alive()))
    return rows


def _now(tunnel: Tunnel) -> dict[str, Any]:
    return {**tunnel.counters(), "streams": tunnel.streams}


def _user(user: User, tunnels: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "name": user.name,
        "tokens": len(user.tokens),
        "certificates": len(user.certificates),
        "passwords": len(user.passwords),
        "tunnels": sum(tunnel["user"] == user.name for tunnel in tunnels),
        "may": _may(user.rights),
        "admin": user.rights.admin,
        "max_tunnels": user.rights.tunnels,
        "max_streams": user.rights.streams,
    }


def _may(rights: Rights) -> list[str]:
    names = ["*" if match == Match() else str(match) for match in rights.services]
    return [*names, *(f"tcp {name}" for name in rights.tcp), *(f"tls://{name}" for name in rights.tls)]


def _requests(parts: Parts) -> list[dict[str, Any]]:
    books = [port.meters for port in parts.external.values()]
    books += [services.meters for services in parts.agent_services.values() if services.meters is not None]
    return [_counted(row) for book in books for row in book.counters()]


def _counted(row: dict[str, Any]) -> dict[str, Any]:
    failures: dict[str, dict[str, int]] = {}
    for number, facts in row["failures"].items():
        found = failures.setdefault(CODES.get(number, str(number)), {})
        for delivery, count in zip(DELIVERIES, facts, strict=True):
            if count:
                found[delivery] = found.get(delivery, 0) + count
    return {**row, "failures": failures}


def kind_of(match: Match) -> str:
    if match.name.startswith("tls/"):
        return "tls"
    return "tcp" if match.name else "http"


def _leads_to(port: ExternalPort, service: dict[str, Any]) -> bool:
    """Every port knows all local services; some it never asks."""
    if port.config.scheme == "tcp":
        return bool(service["service"] == port.config.service)
    return bool(service["kind"] == ("tls" if port.config.scheme == "tls" else "http"))


def _services(parts: Parts) -> list[dict[str, Any]]:
    """Local ones say where they are offered (`at`), delegated ones where they are registered."""
    local = [
        {"at": port.name, **HERE, **_named(each)}
        for port in parts.external.values()
        for each in port.services.status()
        if _leads_to(port, each)
    ]
    local += [
        {"at": url, **HERE, **_named(each)}
        for url, services in parts.agent_services.items()
        for each in services.status()
    ]
    delegated = [
        {
            "at": None,
            "service": str(match),
            "kind": kind_of(match),
            "registration": name,
            "user": entry.owner,
            "upstreams": [],
            "addresses": [],
            "problem": "",
            "backends": [],
            **ELSEWHERE,
            **_named(entry.group.counters()),
        }
        for name, registry in parts.registries.items()
        for match, entry in registry.directory.entries()
    ]
    return local + delegated
