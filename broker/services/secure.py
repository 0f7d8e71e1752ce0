"""TLS towards upstreams: the contexts of a service, by host, and what is told of failures."""

from __future__ import annotations

import logging

from OpenSSL import SSL

from broker.config.model import Service
from broker.observe.limited import Limiter
from broker.tls.client import ClientContext
from broker.tls.settings import ClientTls
from broker.tls.stream import in_words

log = logging.getLogger("broker.services")


class UpstreamContext:
    """What the core asks where it dials one host of a service. ValueError: files can't be used."""

    def __init__(self, service: str, host: str, settings: ClientTls) -> None:
        self._service = service
        self._host = host
        self._context = ClientContext(settings, host)
        self._limiter = Limiter()
        self.expiries = self._context.expiries

    def __call__(self) -> SSL.Connection:
        return self._context()

    def verify(self, connection: SSL.Connection) -> None:
        self._context.verify(connection)

    def failed(self, reason: str) -> None:
        """A handshake failed: one line per reason, now and then."""
        words = in_words(reason) or "the connection ended"
        held = self._limiter.passes(words)
        if held is not None:
            more = f" ({held} more like this before)" if held else ""
            log.warning("service %s: TLS with %s failed: %s%s", self._service, self._host, words, more)


def contexts_of(service: Service) -> dict[str, UpstreamContext] | None:
    """By the host of each upstream; None where they do not speak TLS. Reads the files."""
    if service.tls is None:
        return None
    hosts = dict.fromkeys(upstream.host for upstream in service.upstreams)
    return {host: UpstreamContext(str(service.match), host, service.tls) for host in hosts}
