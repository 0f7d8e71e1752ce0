"""The TLS of a port: its contexts, and what is told of failed handshakes."""

from __future__ import annotations

import logging
from collections.abc import Callable

from OpenSSL import SSL

from broker.config.model import Config, ExternalPort, RegistrationPort
from broker.identity.certificates import Chain, is_revoked
from broker.observe.limited import Limiter
from broker.tls.files import Expiry, read_crls
from broker.tls.server import ServerContexts
from broker.tls.settings import ServerTls
from broker.tls.stream import in_words
from broker.tls.tickets import digest_of, is_assigned, take

log = logging.getLogger("broker.ports")


def revocations(settings: ServerTls | None) -> Callable[[Chain], bool] | None:
    """Whether a chain is good no more, by the port's lists as they are now; None where it has none."""
    lists = [each for path in (settings.client_crl if settings else ()) for each in read_crls(path)]
    return (lambda chain: is_revoked(chain, lists)) if lists else None


class PortTls:
    """What a port asks for the connection of one more client. ValueError: files can't be used."""

    def __init__(self, what: str, name: str, settings: ServerTls) -> None:
        self._what = f"{what} {name}"
        self._name = name
        self._digest = digest_of(settings)
        self._contexts = ServerContexts(settings, name, take(self._what))
        self._limiter = Limiter()

    def __call__(self) -> SSL.Connection:
        return self._contexts()

    def fits(self, settings: ServerTls) -> bool:
        """Whether neither settings nor files have changed, and no other keys are to be used."""
        same = settings == self._contexts.settings and not is_assigned(self._what)
        return same and digest_of(settings) == self._digest

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
        settings = self._contexts.settings
        digest = digest_of(settings)
        try:
            self._contexts = ServerContexts(settings, self._name, take(self._what))
            self._digest = digest
        except ValueError as error:
            log.warning("%s goes on with the certificates that it has: %s", self._what, error)


def tls_of(config: ExternalPort | RegistrationPort, before: PortTls | None = None) -> PortTls | None:
    """None where the port does not speak TLS. Reads the files; `before` stays where nothing has changed."""
    if config.tls is None:
        return None
    if before is not None and before.fits(config.tls):
        return before
    return PortTls(kind_of(config), config.name, config.tls)


def kind_of(config: ExternalPort | RegistrationPort) -> str:
    return "external port" if isinstance(config, ExternalPort) else "registration port"


def tls_ports(config: Config) -> dict[str, ServerTls]:
    """The ports that speak TLS, by what they are called in the log."""
    ports: list[ExternalPort | RegistrationPort] = [*config.external, *config.registration]
    return {f"{kind_of(port)} {port.name}": port.tls for port in ports if port.tls is not None}
