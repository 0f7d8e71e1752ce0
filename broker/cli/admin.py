"""The admin port of a running node, as its commands use it."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from broker.errors import EXIT_USAGE, AdminError, UsageError

TIMEOUT = 10.0
MAX_ANSWER = 64 << 20


def ask(url: str, method: str, path: str, timeout_s: float = TIMEOUT) -> dict[str, Any]:
    """The JSON answer. AdminError where there is none, or a refusal."""
    connection = http.client.HTTPConnection(*place(url), timeout=timeout_s)
    try:
        connection.request(method, path, headers={"Accept": "application/json", "Broker-Admin": "1"})
        response = connection.getresponse()
        data = response.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise AdminError(
            f"no answer from {url} ({reason}): does the node run, and is this the address of its admin port?"
        ) from None
    finally:
        connection.close()
    return understand(url, response.status, data)


def place(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http" or parts.path not in ("", "/") or "@" in parts.netloc:
        raise UsageError("--admin must be a URL such as http://127.0.0.1:7001")
    return host, port


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
    error = AdminError("\n".join([f"the node at {url} refused: {detail}", *map(str, problems)]))
    if answer.get("code") == "config":
        error.exit_code = EXIT_USAGE
    return error
