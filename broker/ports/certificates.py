"""The TLS of a port: its contexts, and what is told of failed handshakes."""

from __future__ import annotations

import logging

from OpenSSL import SSL

from broker.config.model import ExternalPort, RegistrationPort
from broker.observe.limited import Limiter
from broker.tls.files import Expiry
from broker.tls.server import ServerContexts
from broker.tls.settings import ServerTls
from broker.tls.stream import in_words

log = logging.getLogger("broker.ports")


class PortTls:
    """What a port asks for the connection of one more client. ValueError: files can't be used."""

    def __init__(self, what: str, name: str, settings: ServerTls) -> None:
        self._what = f"{what} {name}"
        self._name = name
        self._contexts = ServerContexts(settings, name)
        self._limiter = Limiter()

    def __call__(self) -> SSL.Connection:
        return self._contexts()

    @property
    def expiries(self) -> list[Expiry]:
        return self._contexts.expiries

    def failed(self, address: str, reason: str) -> None:
        """A handshake failed: one line per reason, now and then."""
        words = in_words(reason)
        held = self._limiter.passes(words)
        if held is not None:
            more = f" ({held} more like this before)" if held else ""
            log.warning("%s: TLS with %s failed: %s%s", self._what, address, words, more)

    def renew(self) -> None:
        """New ticket keys, and the files as they are now; what was read stays where they can't be used."""
        try:
            self._contexts = ServerContexts(self._contexts.settings, self._name)
        except ValueError as error:
            log.warning("%s goes on with the certificates that it has: %s", self._what, error)


def tls_of(config: ExternalPort | RegistrationPort) -> PortTls | None:
    """None where the port does not speak TLS. Reads the files."""
    if config.tls is None:
        return None
    what = "external port" if isinstance(config, ExternalPort) else "registration port"
    return PortTls(what, config.name, config.tls)
