"""An HTTP request to one address of a service, for checks of its health."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field

import aiohttp
from yarl import URL

from _fastpath.backend import Backend


@dataclass(frozen=True, slots=True)
class Inquiry:
    scheme: str
    backend: Backend
    path: str = field(kw_only=True)
    host: str = field(kw_only=True)
    tls: ssl.SSLContext | None = field(kw_only=True)
    server_name: str = field(kw_only=True)


async def inquire(about: Inquiry) -> int | str:
    """The status, or why there is none, as a clause. Raises OSError and ssl.SSLError."""
    try:
        return await _ask(about)
    except aiohttp.ClientConnectorCertificateError as error:
        return f"TLS failed: {error.certificate_error}"
    except OSError:  # also some of aiohttp's own
        raise
    except (aiohttp.ClientError, UnicodeError, ValueError) as error:
        return f"no answer in HTTP: {error}"


async def _ask(about: Inquiry) -> int:
    backend = about.backend
    connector: aiohttp.BaseConnector
    if not backend.ip:
        connector = aiohttp.UnixConnector(backend.host, force_close=True)
    else:
        connector = aiohttp.TCPConnector(force_close=True, ssl=about.tls if about.tls is not None else True)
    base = URL.build(scheme=about.scheme, host=backend.ip or "localhost", port=backend.port or None)
    async with (
        aiohttp.ClientSession(
            connector=connector, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        ) as session,
        session.get(
            base.join(URL(about.path, encoded=True)),
            headers={"Host": about.host, "User-Agent": "broker-health"},
            allow_redirects=False,
            server_hostname=about.server_name if about.tls is not None else None,
        ) as response,
    ):
        return response.status
