"""The services that this node reaches itself: compiled targets and the routing table that leads to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from _fastpath.meter import Meters
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.service import Service as Target
from broker.config.model import ExternalPort, Limits, Match, Service, Timeouts
from broker.identity.gates import Gates
from broker.services.compiled import settings_of
from broker.services.health import Health
from broker.services.resolver import Resolver
from broker.services.secure import contexts_of
from broker.tls.files import Expiry


@dataclass(frozen=True, slots=True)
class Placed:
    """A service as one place offers it: its limits over the place's."""

    service: Service
    limits: Limits
    timeouts: Timeouts
    upgrades: tuple[str, ...]
    stream_idle: int | None = None
    """How long streams from a tunnel may stand still (milliseconds); None: as long as the peer lets them."""


def at_port(services: Iterable[Service], port: ExternalPort) -> list[Placed]:
    return [
        Placed(each, each.limits_at(port), each.timeouts_at(port), each.upgrades_at(port))
        for each in services
    ]


def proxy_version(service: Service) -> int:
    return int(service.proxy_protocol[1:]) if service.proxy_protocol else 0


def at_agent(services: Iterable[Service]) -> list[Placed]:
    return [
        Placed(
            each, each.limits, each.timeouts, each.upgrades, each.timeouts.idle if each.says_idle else None
        )
        for each in services
    ]


class LocalServices:
    """The services of one place: an external port, or the tunnels of an agent.

    A reload keeps the targets, and with them the idle connections, of services whose upstreams stay the same.
    """

    def __init__(
        self,
        reactor: Reactor,
        resolver: Resolver,
        on_health: Callable[[], None] | None = None,
        meters: Meters | None = None,
    ) -> None:
        """`on_health` is told when a service becomes available, or is no more: `down` says which are not.

        `meters` count what comes through an agent's tunnels; ports count what their clients ask for.
        """
        self.meters = meters
        self.table = RouteTable([])
        self.expiries: list[Expiry] = []
        self._reactor = reactor
        self._resolver = resolver
        self._health = Health(on_health or (lambda: None))
        self._targets: dict[Match, tuple[Service, Target]] = {}

    def apply(self, places: Iterable[Placed], gates: Gates | None = None) -> None:
        """`gates`: where clients call them; what a service asks of its callers counts there only."""
        before, self._targets = self._targets, {}
        self.expiries = []
        for placed in places:
            target = self._target(placed, before)
            auth = placed.service.auth
            target.set_trust(placed.service.trust_identity)
            target.set_gate(gates.gate(auth) if gates else None, gates is not None and auth is not None)
            self._targets[placed.service.match] = placed.service, target
        for _, target in before.values():
            self._retire(target)
        self.table = self._build()

    def close(self) -> None:
        self.apply([])
        self._health.close()

    def down(self) -> frozenset[Match]:
        """Services that checks have found without an upstream that works."""
        return frozenset(
            match for match, (_, target) in self._targets.items() if self._health.is_down(target)
        )

    def status(self) -> list[dict[str, Any]]:
        return [self._describe(service, target) for service, target in self._targets.values()]

    def targets(self) -> list[Target]:
        return [target for _, target in self._targets.values()]

    def _target(self, placed: Placed, before: dict[Match, tuple[Service, Target]]) -> Target:
        service = placed.service
        settings = settings_of(placed.limits, placed.timeouts, placed.upgrades, placed.stream_idle)
        known = before.get(service.match)
        contexts = contexts_of(service)
        for context in (contexts or {}).values():
            self.expiries += context.expiries
        if known is None:
            target = Target(self._reactor, str(service.match), service.kind, settings, self.meters)
            target.set_tls(contexts)
            self._resolver.add(target, service.upstreams)
        else:
            target = known[1]
            del before[service.match]
            target.set_settings(settings)
            target.set_tls(contexts)
            if known[0].tls != service.tls:
                target.drop_idle()  # they were made under other rules
            if known[0].upstreams != service.upstreams:
                self._resolver.change(target, service.upstreams)
        target.set_proxy_protocol(proxy_version(service))
        self._health.watch(target, service)
        return target

    def _retire(self, target: Target) -> None:
        self._health.forget(target)
        self._resolver.remove(target)
        target.close()

    def _build(self) -> RouteTable:
        routes = [(key.host, key.path, target) for key, (_, target) in self._targets.items() if not key.name]
        names = {key.name: target for key, (_, target) in self._targets.items() if key.name}
        return RouteTable(routes, names=names)

    def _describe(self, service: Service, target: Target) -> dict[str, Any]:
        return {
            "service": str(service.match),
            "kind": "tls" if service.name.startswith("tls/") else service.kind,
            "upstreams": [upstream.url for upstream in service.upstreams],
            "addresses": [backend.name for backend in target.backends],
            "backends": self._health.status(target),
            "problem": self._resolver.problems(service.upstreams),
            **target.counters(),
        }
