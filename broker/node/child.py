"""A `broker` process that another one starts, as `broker demo` and `broker bench` do."""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from collections import deque
from contextlib import suppress
from typing import Any

from broker.errors import RunError

ANY = "http://127.0.0.1:0"
READY_S = 20.0
END_S = 5.0
PR_SET_PDEATHSIG = 1

_LIBC = ctypes.CDLL(None, use_errno=True)


def end_with_parent() -> None:
    """In a child before it executes: where its parent is killed, it goes too."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """One `broker` process; its log is read for what it listens on, and kept for when it fails."""

    def __init__(self, what: str, *args: str) -> None:
        self._what = what
        self._args = args
        self._seen: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self._urls: dict[str, str] = {}
        self._tail: deque[str] = deque(maxlen=20)
        self._process: asyncio.subprocess.Process
        self._reader: asyncio.Task[None]

    async def __aenter__(self) -> Child:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "broker",
            *self._args,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            preexec_fn=end_with_parent,
            start_new_session=True,  # Ctrl-C reaches this process only, which ends them in order
        )
        self._reader = asyncio.create_task(self._read())
        return self

    async def __aexit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(END_S):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
        await self._reader

    @property
    def pid(self) -> int:
        return self._process.pid

    async def url(self, kind: str) -> str:
        """Where its port of that kind listens."""
        while kind not in self._urls:
            entry = await self._next()
            if entry.get("event") == "listening":
                self._urls[str(entry["kind"])] = str(entry["url"])
        return self._urls[kind]

    async def ready(self) -> None:
        while (await self._next()).get("event") != "ready":
            continue

    async def ended(self) -> None:
        await self._process.wait()

    def failure(self) -> RunError:
        said = "\n".join(self._tail)
        return RunError(f"the {self._what} ended with exit code {self._process.returncode}:\n{said}")

    async def _next(self) -> dict[str, Any]:
        try:
            async with asyncio.timeout(READY_S):
                entry = await self._seen.get()
        except TimeoutError:
            raise RunError(f"the {self._what} did not get ready within {READY_S:.0f} s") from None
        if entry is None:
            await self._process.wait()
            raise self.failure()
        return entry

    async def _read(self) -> None:
        assert self._process.stderr is not None
        async for line in self._process.stderr:
            text = line.decode("utf-8", "replace").rstrip()
            self._tail.append(text)
            with suppress(ValueError):
                entry = json.loads(text)
                if isinstance(entry, dict):
                    self._seen.put_nowait(entry)
        self._seen.put_nowait(None)
