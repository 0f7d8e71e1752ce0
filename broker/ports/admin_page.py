"""The page for people at the admin port: a handful of files that come with the program.

They are the same for everybody and tell nothing, so no credentials are asked for them; what the page shows it
gets from /status, as everybody does. It may load its own files, ask this port, and nothing else.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from aiohttp import web

TYPES = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cache-Control": "no-cache",  # a browser asks whether it is still the same
}
INDEX = "index.html"


@dataclass(frozen=True, slots=True)
class File:
    body: bytes
    type: str
    tag: str


class Page:
    """Read once, when it is made."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}
        for each in files("broker.ports").joinpath("page").iterdir():
            kind = TYPES.get(each.name.rpartition(".")[2])
            if kind is not None:
                body = each.read_bytes()
                self._files[each.name] = File(body, kind, hashlib.sha256(body).hexdigest()[:32])

    def add_to(self, app: web.Application) -> None:
        app.router.add_get("/", self._index)
        app.router.add_get("/page/{name}", self._file)

    @staticmethod
    def is_part(path: str) -> bool:
        return path == "/" or path.startswith("/page/")

    async def _index(self, request: web.Request) -> web.Response:
        return self._answer(request, INDEX)

    async def _file(self, request: web.Request) -> web.Response:
        return self._answer(request, request.match_info["name"])

    def _answer(self, request: web.Request, name: str) -> web.Response:
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        headers = {**HEADERS, "ETag": f'"{file.tag}"'}
        if file.tag in [each.value for each in request.if_none_match or ()]:
            return web.Response(status=304, headers=headers)
        return web.Response(body=file.body, headers={**headers, "Content-Type": file.type})
