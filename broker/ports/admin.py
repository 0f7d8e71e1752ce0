"""The admin port: health, readiness, metrics, status, and what makes a running node reload, drain or stop.

It asks for no credentials: the configuration keeps it on loopback, or was told --insecure. What is left is a
browser on the same machine, and pages of other sites in it. So the Host must be an address or our own name
(a foreign name that was made to point here is refused), a foreign Origin is refused, and a POST that comes
from any browser must have a JSON content type or a Broker-Admin header, which no other site's page can send.
"""

from __future__ import annotations

import ipaddress
import json
import os
import socket
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web

from broker.config import model
from broker.errors import BrokerError, ConfigError
from broker.ports.sockets import bound_url
from broker.services.compiled import admission_of

MAX_BODY = 4096
# Probes send all kinds of Host, and these two tell nothing.
OPEN_TO_ALL = ("/healthz", "/readyz")
# Of these every browser sends at least one with a POST to another site.
BROWSER_MARKS = ("Origin", "Referer", "Cookie", "Sec-Fetch-Site")
END_S = 1.0  # for answers that are under way when the port closes

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Controls(Protocol):
    """What the admin port needs of the node."""

    async def report(self) -> dict[str, Any]: ...
    def not_ready(self) -> list[str]: ...
    async def metrics(self) -> tuple[bytes, str]: ...
    async def reload(self) -> None: ...
    async def upgrade(self) -> int: ...
    def drain(self, why: str) -> None: ...
    def stop(self, why: str) -> None: ...


class AdminPort:
    """The sockets stay the node's."""

    def __init__(self, config: model.Admin, sockets: list[socket.socket], controls: Controls) -> None:
        self.config = config
        self.url = bound_url(config, sockets[0])
        self._sockets = sockets
        self._admission = admission_of(config.addresses)
        self._controls = controls
        self._names = {"localhost", config.host, socket.gethostname().lower()}
        self._runner: web.AppRunner | None = None

    def uses(self, sockets: list[socket.socket]) -> bool:
        return self._sockets is sockets

    def configure(self, config: model.Admin) -> None:
        """What can change while it runs; the socket is the same."""
        self.config = config
        self._admission = admission_of(config.addresses)

    async def start(self) -> None:
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._status)
        app.router.add_post("/reload", self._reload)
        app.router.add_post("/upgrade", self._upgrade)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/stop", self._stop)
        app.on_response_prepare.append(_prepare)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=END_S)
        await self._runner.setup()
        for sock in self._sockets:
            copy = socket.socket(fileno=os.dup(sock.fileno()))
            await web.SockSite(self._runner, copy).start()

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # --- guards ---------------------------------------------------------------------------------

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        if not self._admits(request):
            return _problem(403, "forbidden", "This address is not allowed at the admin port.")
        problem = self._foreign(request) if request.path not in OPEN_TO_ALL else None
        if problem is not None:
            return _problem(403, "forbidden", problem)
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = _problem(
                error.status, "no-service" if error.status == 404 else "bad-request", error.reason
            )
            for name, value in error.headers.items():
                if name == "Allow":
                    answer.headers[name] = value
            return answer

    def _admits(self, request: web.Request) -> bool:
        return self._admission is None or (request.remote or "") in self._admission

    def _foreign(self, request: web.Request) -> str | None:
        """Why this request is not from somebody who means this port; None where it is."""
        host = request.headers.get("Host", "")
        if not self._is_ours(host):
            return "The Host field names another machine; use an address, localhost or this machine's name."
        origin = request.headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return "The request comes from another site's page."
        if request.method != "POST" or not any(mark in request.headers for mark in BROWSER_MARKS):
            return None
        if request.content_type == "application/json" or "Broker-Admin" in request.headers:
            return None
        return "A browser's POST needs a Broker-Admin header, or the content type application/json."

    def _is_ours(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if name.lower() in self._names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True

    # --- handlers -------------------------------------------------------------------------------

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._controls.not_ready()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        body, content_type = await self._controls.metrics()
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._controls.report())

    async def _reload(self, _request: web.Request) -> web.Response:
        try:
            await self._controls.reload()
        except ConfigError as error:
            extra = {"problems": [str(problem) for problem in error.problems]}
            return _problem(422, error.code, "The configuration has errors; nothing was changed.", extra)
        except BrokerError as error:
            return _problem(409, error.code, f"{error}; nothing was changed.")
        return web.json_response({"done": "reload"})

    async def _upgrade(self, _request: web.Request) -> web.Response:
        try:
            pid = await self._controls.upgrade()
        except BrokerError as error:
            return _problem(409, error.code, f"{error}; this one goes on.")
        return web.json_response({"done": "upgrade", "pid": pid})

    async def _drain(self, _request: web.Request) -> web.Response:
        self._controls.drain("asked for at the admin port")
        return web.json_response({"done": "drain"}, status=202)

    async def _stop(self, _request: web.Request) -> web.Response:
        self._controls.stop("asked for at the admin port")
        return web.json_response({"done": "stop"}, status=202)


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "broker"
    response.headers["Cache-Control"] = "no-store"
    response.headers["X-Content-Type-Options"] = "nosniff"


def _problem(status: int, code: str, detail: str, extra: dict[str, Any] | None = None) -> web.Response:
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail, **(extra or {})}
    headers = {"Content-Type": "application/problem+json", "Broker-Error": code}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)
