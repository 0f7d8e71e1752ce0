"""One look at one address of a service: an HTTP request, or a connection.

`HealthCheck` says what is asked for and what counts as well.
"""

from __future__ import annotations

import asyncio
import os
import ssl

from _fastpath.backend import Backend
from broker.config.model import HealthCheck, Service, authority


class Probe:
    """Looks at the addresses of one service. ValueError: files of its TLS settings can't be used."""

    def __init__(self, service: Service, check: HealthCheck) -> None:
        self._check = check
        self._scheme = service.upstreams[0].scheme
        self._match = service.match
        self._tls = _context(service) if check.kind == "http" else None
        self._server_name = service.tls.server_name if service.tls is not None else ""

    async def __call__(self, backend: Backend) -> str:
        """Why the address is not well, as a clause; "" where it is."""
        try:
            async with asyncio.timeout(self._check.timeout / 1000):
                if self._check.kind == "http":
                    return await self._ask(backend)
                await _connect(backend)
                return ""
        except TimeoutError:
            return f"no answer within {self._check.timeout / 1000:g} s"
        except ssl.SSLError as error:
            return f"TLS failed: {(error.reason or str(error)).lower().replace('_', ' ')}"
        except OSError as error:
            return (os.strerror(error.errno) if error.errno else str(error)).lower()

    async def _ask(self, backend: Backend) -> str:
        # Imported here: most services have no checks by HTTP, and this is much of what a start takes.
        from broker.services.inquiry import Inquiry, inquire

        inquiry = Inquiry(
            self._scheme,
            backend,
            path=self._check.path,
            host=self._host(backend),
            tls=self._tls,
            server_name=self._server_name or backend.host,
        )
        status = await inquire(inquiry)
        if isinstance(status, str):
            return status
        low, high = self._check.status
        return "" if low <= status <= high else f"it answers {status}"

    def _host(self, backend: Backend) -> str:
        if self._check.host:
            return self._check.host
        if self._match.host and not self._match.host.startswith("*"):
            return self._match.host
        return authority(backend.host, backend.port) if backend.ip else "localhost"


async def _connect(backend: Backend) -> None:
    if backend.ip:
        _, writer = await asyncio.open_connection(backend.ip, backend.port)
    else:
        _, writer = await asyncio.open_unix_connection(backend.host)
    writer.close()


def _context(service: Service) -> ssl.SSLContext | None:
    settings = service.tls
    if settings is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.ca) if settings.ca else None)
    if settings.certificate is not None:
        context.load_cert_chain(settings.certificate.cert, settings.certificate.key)
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
