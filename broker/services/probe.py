"""One look at one address of a service: an HTTP request, or a connection.

`HealthCheck` says what is asked for and what counts as well.
"""

from __future__ import annotations

import asyncio
import os
import ssl

import aiohttp
from yarl import URL

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
        except aiohttp.ClientConnectorCertificateError as error:
            return f"TLS failed: {error.certificate_error}"
        except OSError as error:
            return (os.strerror(error.errno) if error.errno else str(error)).lower()
        except (aiohttp.ClientError, UnicodeError, ValueError) as error:
            return f"no answer in HTTP: {error}"

    async def _ask(self, backend: Backend) -> str:
        connector: aiohttp.BaseConnector
        if not backend.ip:
            connector = aiohttp.UnixConnector(backend.host, force_close=True)
        else:
            tls = self._tls if self._tls is not None else True
            connector = aiohttp.TCPConnector(force_close=True, ssl=tls)
        base = URL.build(scheme=self._scheme, host=backend.ip or "localhost", port=backend.port or None)
        async with (
            aiohttp.ClientSession(
                connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            session.get(
                base.join(URL(self._check.path, encoded=True)),
                headers={"Host": self._host(backend), "User-Agent": "broker-health"},
                allow_redirects=False,
                server_hostname=(self._server_name or backend.host) if self._tls is not None else None,
            ) as response,
        ):
            low, high = self._check.status
            return "" if low <= response.status <= high else f"it answers {response.status}"

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
