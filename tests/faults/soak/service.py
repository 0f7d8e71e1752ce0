"""What the agents of a soak offer, in a thread of its own: HTTP, WebSocket and a TCP echo."""

import asyncio
import hashlib
import random
import threading
from collections import Counter

from aiohttp import web

from tests.harness.origin import pattern

BULK = pattern(4 << 20, seed=2)


class Service:
    """What the agents offer, in a thread of its own: HTTP, WebSocket and a TCP echo."""

    def __init__(self) -> None:
        self.posts: Counter[str] = Counter()
        self.http = self.tcp = 0
        self._ready = threading.Event()
        threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True).start()
        assert self._ready.wait(10)

    async def _run(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("GET", "/ws", self._websocket)
        app.router.add_route("GET", "/bulk", self._bulk)
        app.router.add_route("GET", "/slow", self._slow)
        app.router.add_route("*", "/n/{number}", self._small)
        runner = web.AppRunner(app, access_log=None, keepalive_timeout=600)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        self.http = runner.addresses[0][1]
        echo = await asyncio.start_server(self._echo, "127.0.0.1", 0)
        self.tcp = echo.sockets[0].getsockname()[1]
        self._ready.set()
        await asyncio.Event().wait()

    async def _small(self, request: web.Request) -> web.Response:
        if request.method == "POST":
            self.posts[request.match_info["number"]] += 1
        body = await request.read()
        return web.Response(text=f"{request.path} {hashlib.sha256(body).hexdigest()}")

    async def _bulk(self, _request: web.Request) -> web.Response:
        return web.Response(body=BULK)

    async def _slow(self, request: web.Request) -> web.Response:
        await asyncio.sleep(random.uniform(0.2, 3))
        return web.Response(text=request.path)

    async def _websocket(self, request: web.Request) -> web.WebSocketResponse:
        answer = web.WebSocketResponse()
        await answer.prepare(request)
        async for message in answer:
            await answer.send_str(str(message.data))
        return answer

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        writer.close()
