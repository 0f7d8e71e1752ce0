"""The TLS contexts of a port, and the warning of certificates that are about to expire."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

from broker.config.model import ExternalPort, RegistrationPort
from broker.tls.server import ServerContexts

log = logging.getLogger("broker.ports")

EXPIRES_SOON = timedelta(days=30)


def contexts_of(config: ExternalPort | RegistrationPort) -> ServerContexts | None:
    """None where the port does not speak TLS. Reads the files."""
    if config.tls is None:
        return None
    contexts = ServerContexts(config.tls, config.name)
    for path, until in contexts.expires:
        if until - datetime.now(UTC) < EXPIRES_SOON:
            log.warning("port %s: the certificate %s expires on %s", config.name, path, until.date())
    return contexts
