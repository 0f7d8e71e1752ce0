"""The admin port of a running node, as its commands use it."""

from __future__ import annotations

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.config.model import Secret
from broker.config.tokens import read_token_file
from broker.errors import EXIT_USAGE, AdminError, UsageError
from broker.tls.standard import client_context

TIMEOUT = 10.0
MAX_ANSWER = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Where the admin port is, and what opens it: the options that all its commands have."""

    url: str
    token_file: Path | None = None
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None


class Admin:
    """The admin port of one node. UsageError: it can't be asked at all, as things are given."""

    def __init__(self, access: Access) -> None:
        self.url = access.url
        self._scheme, self._host, self._port = place(access.url)
        self._token = read_token(access.token_file)
        self._context: ssl.SSLContext | None = None
        if self._scheme == "https":
            try:
                self._context = client_context(access.ca, access.cert, access.key)
            except ValueError as error:
                raise UsageError(str(error)) from None

    def ask(self, method: str, path: str, timeout_s: float = TIMEOUT) -> dict[str, Any]:
        """The JSON answer. AdminError where there is none, or a refusal."""
        connection = self._connection(timeout_s)
        headers = {"Accept": "application/json", "Broker-Admin": "1"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token.reveal()}"
        try:
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            data = response.read(MAX_ANSWER)
        except ssl.SSLError as error:
            raise AdminError(f"no answer from {self.url}: {tls_reason(error)}") from None
        except ConnectionResetError:
            hint = (
                "does it want a client certificate (--cert and --key)?"
                if self._context
                else "is it an https:// URL?"
            )
            raise AdminError(f"{self.url} closed the connection without an answer: {hint}") from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise AdminError(
                f"no answer from {self.url} ({reason}): does the node run, and is this the address of its"
                " admin port?"
            ) from None
        finally:
            connection.close()
        return understand(self.url, response.status, data)

    def _connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self._context is None:
            return http.client.HTTPConnection(self._host, self._port, timeout=timeout_s)
        return http.client.HTTPSConnection(self._host, self._port, timeout=timeout_s, context=self._context)


def ask(access: Access, method: str, path: str, timeout_s: float = TIMEOUT) -> dict[str, Any]:
    return Admin(access).ask(method, path, timeout_s)


def place(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or {"https": 443}.get(parts.scheme, 80)
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    known = parts.scheme in ("http", "https") and parts.path in ("", "/") and not parts.query
    if not host or not known or "@" in parts.netloc:
        raise UsageError("--admin must be a URL such as http://127.0.0.1:7001")
    return parts.scheme, host, port


def read_token(file: Path | None) -> Secret | None:
    if file is None:
        return None
    try:
        return read_token_file(file)
    except ValueError as error:
        raise UsageError(f"--token-file: {error}") from None


def tls_reason(error: ssl.SSLError) -> str:
    """One clause for people, and what mends it."""
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return f"its certificate is not believed ({reason}); --ca names the CA that is"
    if error.reason == "WRONG_VERSION_NUMBER":
        return "it does not speak TLS; is it an http:// URL?"
    if "CERTIFICATE_REQUIRED" in str(error.reason):
        return "it wants a client certificate (--cert and --key)"
    return f"TLS failed ({(error.reason or str(error)).replace('_', ' ').lower()})"


def understand(url: str, status: int, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data) if data.strip() else {}
    except ValueError:
        answer = None
    if not isinstance(answer, dict):
        raise AdminError(f"{url} answered {status} without JSON: it isn't the admin port of a broker node")
    if status >= 300:
        raise refusal(url, status, answer)
    return answer


def refusal(url: str, status: int, answer: dict[str, Any]) -> AdminError:
    problems = answer.get("problems") or []
    detail = answer.get("detail") or answer.get("title") or f"status {status}"
    if status == 401:
        accepts = answer.get("accepts") or []
        ways = {"token": "--token-file FILE", "certificate": "--cert and --key"}
        detail = f"{detail} Give {' or '.join(ways[each] for each in accepts if each in ways)}."
    error = AdminError("\n".join([f"the node at {url} refused: {detail}", *map(str, problems)]))
    if answer.get("code") == "config":
        error.exit_code = EXIT_USAGE
    return error
