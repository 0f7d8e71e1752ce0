"""External ports: compiled Listeners on bound sockets, and the tables that they use."""

from __future__ import annotations

import os
import socket
from typing import Any

from _fastpath.connection import Headcount
from _fastpath.crowd import Crowd
from _fastpath.exchange import Lobby
from _fastpath.listener import Listener
from _fastpath.meter import Meters
from _fastpath.reactor import Reactor
from _fastpath.record import Journal
from _fastpath.route import RouteTable
from broker.config import model
from broker.identity.gates import Gates
from broker.identity.shown import FIELDS, certify
from broker.ports.certificates import PortTls, revocations, tls_of
from broker.ports.sockets import bound_url
from broker.services.compiled import admission_of, networks_of, settings_of
from broker.services.local import LocalServices

VIA = "broker"  # our pseudonym in Via (RFC 9110, 7.6.3)


class ExternalPort:
    """One external port. It owns copies of the sockets' descriptors; the sockets stay the node's."""

    def __init__(
        self,
        config: model.ExternalPort,
        sockets: list[socket.socket],
        reactor: Reactor,
        services: LocalServices,
        delegated: RouteTable,
        gates: Gates,
        journal: Journal | None = None,
    ) -> None:
        self.config = config
        self.url = bound_url(config, sockets[0])
        self.services = services
        self.meters = Meters(config.name, journal)
        self._delegated = delegated
        self._settings = settings_of(config.limits, config.timeouts, config.upgrades)
        self.tls: PortTls | None = tls_of(config)
        self._sockets = sockets
        self._listeners = [self._listen(sock, reactor) for sock in sockets]
        self._set_addresses(gates)

    def _listen(self, sock: socket.socket, reactor: Reactor) -> Listener:
        fd = os.dup(sock.fileno())
        try:
            return Listener(
                reactor,
                fd,
                self.config.name,
                "http" if self.tls else self.config.scheme,
                self._settings,
                VIA,
                self.services.table,
                self._delegated,
                self.config.service,
                self.tls,
                self.meters,
            )
        except BaseException:
            os.close(fd)
            raise

    @property
    def name(self) -> str:
        return self.config.name

    def uses(self, sockets: list[socket.socket]) -> bool:
        return self._sockets is sockets

    def can_become(self, config: model.ExternalPort) -> bool:
        """Whether `apply` is enough for this; else another port takes the sockets over."""
        same = (self.config.name, self.config.scheme, self.config.service)
        return same == (config.name, config.scheme, config.service)

    def apply(self, config: model.ExternalPort, delegated: RouteTable, gates: Gates) -> None:
        """Other limits, and the tables as they are now."""
        self.config = config
        self._settings = settings_of(config.limits, config.timeouts, config.upgrades)
        self.tls = tls_of(config, self.tls)
        if self.tls is not None:
            for listener in self._listeners:
                listener.set_tls(self.tls)
        self._set_addresses(gates)
        self.set_delegated(delegated)

    def _set_addresses(self, gates: Gates) -> None:
        """Who may connect, and who may call."""
        admission = admission_of(self.config.addresses)
        trusted = networks_of(self.config.trusted_proxies)
        fields = sum(FIELDS[name] for name in self.config.client_cert_fields)
        asks = self.config.tls is not None and self.config.tls.client_mode != "none"
        revoked = revocations(self.config.tls)
        for listener in self._listeners:
            listener.set_addresses(admission, trusted, self.config.proxy_protocol)
            listener.set_gate(gates.gate(self.config.auth), certify if asks else None, fields, revoked)

    def set_delegated(self, table: RouteTable) -> None:
        self._delegated = table
        for listener in self._listeners:
            listener.swap(self.services.table, table, self._settings)

    def set_lobby(self, lobby: Lobby | None) -> None:
        """Where requests wait whose service is not known yet."""
        for listener in self._listeners:
            listener.set_lobby(lobby)

    def share_limits(self, headcount: Headcount, crowd: Crowd) -> None:
        """The limits of connections hold for all workers together. To be called before a connection comes."""
        for listener in self._listeners:
            listener.set_headcount(headcount)
            listener.set_crowd(crowd)

    def stop(self, *, backlog: bool = True) -> None:
        """Accept no more; connections end after what they are doing. `backlog`: but for what waits there."""
        for listener in self._listeners:
            listener.stop(backlog)

    def abort(self) -> None:
        for listener in self._listeners:
            listener.abort()

    @property
    def connections(self) -> int:
        return sum(listener.connections for listener in self._listeners)

    @property
    def exchanges(self) -> int:
        return sum(listener.exchanges for listener in self._listeners)

    def counters(self) -> dict[str, Any]:
        total: dict[str, Any] = {}
        for listener in self._listeners:
            add_counters(total, listener.counters())
        return total


def add_counters(total: dict[str, Any], more: dict[str, Any]) -> None:
    """Add numbers, lists of numbers and maps of numbers, key by key."""
    for key, value in more.items():
        if isinstance(value, dict):
            add_counters(total.setdefault(key, {}), value)
        elif isinstance(value, list):
            before = total.get(key, [0] * len(value))
            total[key] = [a + b for a, b in zip(before, value, strict=True)]
        else:
            total[key] = total.get(key, 0) + value
