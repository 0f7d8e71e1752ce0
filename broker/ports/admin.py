"""The admin port: health, readiness, metrics, status, and what makes a running node reload, drain or stop.

Who may, and what keeps other sites' pages out, is in admin_guard.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any, Protocol, cast

from aiohttp import web

from broker.config import model
from broker.errors import BrokerError, ConfigError
from broker.identity.users import Users
from broker.observe.metrics import Metrics
from broker.ports.admin_guard import Guard, Refusal
from broker.ports.admin_page import Page
from broker.ports.sockets import bound_url
from broker.tls.files import Expiry
from broker.tls.standard import StandardTls

log = logging.getLogger("broker.admin")

MAX_BODY = 4096
MAX_CONNECTIONS = 256
# From the first byte of a connection, or the last answer, to the next request's whole head.
HEAD_S = 10.0
HANDSHAKE_S = 10.0
END_S = 1.0  # for answers that are under way when the port closes

visitor: ContextVar[str] = ContextVar("visitor")  # who sends the request that is being answered
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Controls(Protocol):
    """What the admin port needs of the node."""

    async def report(self) -> dict[str, Any]: ...
    def not_ready(self) -> list[str]: ...
    async def reload(self) -> None: ...
    async def upgrade(self) -> int: ...
    def drain(self, why: str) -> None: ...
    def stop(self, why: str) -> None: ...


class Excess(asyncio.Protocol):
    """A connection over the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).abort()


class AdminPort:
    """The sockets stay the node's."""

    def __init__(
        self, config: model.Admin, users: Users, sockets: list[socket.socket], controls: Controls
    ) -> None:
        self.config = config
        self.url = bound_url(config, sockets[0])
        self._sockets = sockets
        self._controls = controls
        self._guard = Guard(config, users)
        self._rendered = Metrics()
        self._tls: StandardTls | None = None
        self._servers: list[asyncio.AbstractServer] = []
        self._runner = self._make_runner()

    def uses(self, sockets: list[socket.socket]) -> bool:
        return self._sockets is sockets

    @property
    def expiries(self) -> list[Expiry]:
        return self._tls.expiries if self._tls is not None else []

    async def configure(self, config: model.Admin, users: Users) -> None:
        """Another configuration for the same sockets; connections that are open stay, under its rules."""
        self.config = config
        self.url = bound_url(config, self._sockets[0])
        self._guard = Guard(config, users, self._guard)
        if config.tls is not None or self._tls is not None:
            await self._listen()

    async def start(self) -> None:
        await self._runner.setup()
        await self._listen()

    async def close(self) -> None:
        self._stop_listening(self._servers)
        self._servers = []
        await self._runner.cleanup()

    # --- connections ----------------------------------------------------------------------------

    async def _listen(self) -> None:
        """With certificates as they are on disk; those that can't be used were refused before."""
        try:
            tls = StandardTls(self.config.tls) if self.config.tls is not None else None
        except ValueError as error:
            if self._tls is None:
                raise BrokerError(f"the admin port: {error}") from None
            log.warning("the admin port goes on with the certificates that it has: %s", error)
            return
        before, self._servers, self._tls = self._servers, [], tls
        loop = asyncio.get_running_loop()
        more: dict[str, Any] = {}
        if tls is not None:
            more = {"ssl": tls.context, "ssl_handshake_timeout": HANDSHAKE_S}
        for sock in self._sockets:
            copy = socket.socket(fileno=os.dup(sock.fileno()))
            self._servers.append(await loop.create_server(self._accept, sock=copy, **more))
        self._stop_listening(before)

    def _stop_listening(self, servers: list[asyncio.AbstractServer]) -> None:
        for server in servers:
            server.close()

    def _accept(self) -> asyncio.BaseProtocol:
        server = self._runner.server
        if server is None or len(server.connections) >= MAX_CONNECTIONS:
            return Excess()
        return server()

    def _make_runner(self) -> web.AppRunner:
        app = web.Application(middlewares=[self._let_in], client_max_size=MAX_BODY)
        Page().add_to(app)
        app.router.add_get("/healthz", self._healthz)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/status", self._status)
        app.router.add_post("/reload", self._reload)
        app.router.add_post("/upgrade", self._upgrade)
        app.router.add_post("/drain", self._drain)
        app.router.add_post("/stop", self._stop)
        app.on_response_prepare.append(_prepare)
        return web.AppRunner(app, access_log=None, shutdown_timeout=END_S, keepalive_timeout=HEAD_S)

    # --- requests -------------------------------------------------------------------------------

    @web.middleware
    async def _let_in(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        found = self._guard.refusal(request, self._tls, public=Page.is_part(request.path))
        if isinstance(found, Refusal):
            return refused(found)
        visitor.set(f"{found} at {request.remote}")
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            answer = problem(
                error.status, "no-service" if error.status == 404 else "bad-request", error.reason
            )
            for name, value in error.headers.items():
                if name == "Allow":
                    answer.headers[name] = value
            return answer

    async def _healthz(self, _request: web.Request) -> web.Response:
        return web.json_response({"alive": True})

    async def _readyz(self, _request: web.Request) -> web.Response:
        reasons = self._controls.not_ready()
        return web.json_response({"ready": not reasons, "reasons": reasons}, status=503 if reasons else 200)

    async def _metrics(self, _request: web.Request) -> web.Response:
        body, content_type = self._rendered.render(await self._controls.report())
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _status(self, _request: web.Request) -> web.Response:
        return web.json_response(await self._controls.report())

    async def _reload(self, _request: web.Request) -> web.Response:
        log.info("reload, asked for by %s", visitor.get())
        try:
            await self._controls.reload()
        except ConfigError as error:
            extra = {"problems": [str(each) for each in error.problems]}
            return problem(422, error.code, "The configuration has errors; nothing was changed.", extra)
        except BrokerError as error:
            return problem(409, error.code, f"{error}; nothing was changed.")
        return web.json_response({"done": "reload"})

    async def _upgrade(self, _request: web.Request) -> web.Response:
        log.info("upgrade, asked for by %s", visitor.get())
        try:
            pid = await self._controls.upgrade()
        except BrokerError as error:
            return problem(409, error.code, f"{error}; this one goes on.")
        return web.json_response({"done": "upgrade", "pid": pid})

    async def _drain(self, _request: web.Request) -> web.Response:
        self._controls.drain(f"asked for at the admin port by {visitor.get()}")
        return web.json_response({"done": "drain"}, status=202)

    async def _stop(self, _request: web.Request) -> web.Response:
        self._controls.stop(f"asked for at the admin port by {visitor.get()}")
        return web.json_response({"done": "stop"}, status=202)


async def opened(
    port: AdminPort | None,
    config: model.Admin | None,
    users: Users,
    sockets: list[socket.socket] | None,
    controls: Controls,
) -> AdminPort | None:
    """The admin port of this configuration: the same one, another one, or none.

    One that is not needed any more is closed by a task of its own: the request that asked for the change
    may have come through it.
    """
    if port is not None and (sockets is None or not port.uses(sockets)):
        asyncio.get_running_loop().create_task(port.close(), name="close the admin port")
        port = None
    if config is None or sockets is None:
        return None
    if port is not None:
        await port.configure(config, users)
        return port
    port = AdminPort(config, users, sockets, controls)
    await port.start()
    return port


async def _prepare(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers["Server"] = "broker"
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    response.headers.setdefault("Referrer-Policy", "no-referrer")


def refused(found: Refusal) -> web.Response:
    if not found.accepts:
        return problem(found.status, "forbidden", found.detail)
    answer = problem(found.status, "unauthenticated", found.detail, {"accepts": list(found.accepts)})
    # No scheme for which a browser would ask by itself, and then send what it was told with everything.
    answer.headers["WWW-Authenticate"] = 'Bearer realm="broker"'
    return answer


def problem(status: int, code: str, detail: str, extra: dict[str, Any] | None = None) -> web.Response:
    body = {"type": "about:blank", "status": status, "code": code, "detail": detail, **(extra or {})}
    headers = {"Content-Type": "application/problem+json", "Broker-Error": code}
    return web.Response(body=json.dumps(body).encode(), status=status, headers=headers)
