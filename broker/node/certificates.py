"""What expires in a running node, and the daily look at it.

Once a day every port's ticket keys change, its files are read again, and what is about to expire is told.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from broker.node.parts import Parts
from broker.tls.files import Expiry

if TYPE_CHECKING:
    from broker.ports.admin import AdminPort

log = logging.getLogger("broker.node")

DAY_S = 24 * 3600.0


def expiries(parts: Parts) -> Iterator[tuple[str, Expiry]]:
    """Where it is used, and until when."""
    for external in parts.external.values():
        if external.tls is not None:
            yield from ((f"external port {external.name}", each) for each in external.tls.expiries)
    for registration in parts.registration.values():
        if registration.tls is not None:
            yield from (
                (f"registration port {registration.name}", each) for each in registration.tls.expiries
            )
    for uplink in parts.uplinks.values():
        if uplink.tls is not None:
            yield from ((uplink.url, each) for each in uplink.tls.expiries)
    places = [external.services for external in parts.external.values()]
    for services in [*places, *parts.agent_services.values()]:
        yield from (("services", each) for each in services.expiries)


def certificates_status(parts: Parts) -> list[dict[str, Any]]:
    """Certificates, revocation lists and OCSP responses for /status and metrics; days below 0: over."""
    return [_status(at, each) for at, each in dict.fromkeys(expiries(parts))]


def own_certificates(admin: AdminPort | None) -> list[dict[str, Any]]:
    """Those of the admin port, which with several workers is the supervisor's."""
    return [_status("the admin port", each) for each in admin.expiries] if admin is not None else []


def _status(at: str, expiry: Expiry) -> dict[str, Any]:
    return {
        "at": at,
        "kind": expiry.kind,
        "file": str(expiry.path),
        "not_after": expiry.until.timestamp(),
        "days_left": round(expiry.days_left(), 2),
    }


class DailyLook:
    """Runs until `cancel`; at start and on reload the configuration's own warnings say the same.

    Without an interval it looks when it is told to.
    """

    def __init__(self, parts: Parts, interval_s: float | None = DAY_S) -> None:
        self._parts = parts
        self._interval_s = interval_s
        self._timer: asyncio.TimerHandle | None = None
        self._arm()

    def _arm(self) -> None:
        if self._interval_s is not None:
            self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.look)

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def look(self) -> None:
        self._arm()
        tls = [port.tls for port in self._parts.external.values()]
        tls += [port.tls for port in self._parts.registration.values()]
        for each in filter(None, tls):
            each.renew()
        for at, expiry in dict.fromkeys(expiries(self._parts)):
            if sentence := expiry.warning():
                log.warning("%s: %s", at, sentence)
