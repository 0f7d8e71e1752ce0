"""`broker bench`: loads a running pair, or a DMZ node, an agent and a service that it starts."""

from __future__ import annotations

import asyncio
import resource
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

import uvloop

from broker.bench import accounting, load
from broker.bench.report import Report, progress
from broker.errors import EXIT_DONE, EXIT_FAILED, RunError, UsageError
from broker.node.child import ANY, Child, end_with_parent
from broker.observe.terminal import going_on

SERVICE_SECONDS = 10.0  # until the service must have said where it listens
WARMUP = 0.5
OTHER_DESCRIPTORS = 100  # that the generator needs beside its connections


@dataclass(frozen=True)
class Options:
    """What the command line says."""

    url: str | None
    connections: int
    seconds: float
    rate: float | None
    tunnels: int
    quiet: bool
    as_json: bool


@dataclass(frozen=True)
class Loaded:
    """Where the load goes, and the processes that were started for it."""

    host: str
    port: int
    target: str = "/"
    authority: str | None = None
    pids: Sequence[int] = ()

    def cpu_seconds(self) -> float:
        return accounting.cpu_seconds(accounting.tree(self.pids))


def run(options: Options) -> int:
    """The exit code: failed where a request failed or none succeeded."""
    _allow_connections(options.connections)
    try:
        report = uvloop.run(_bench(options))
    except* OSError as group:
        raise RunError(f"the load found no way: {_first(group)}") from group
    report.print(options.as_json)
    return EXIT_DONE if report.good else EXIT_FAILED


def read_url(url: str) -> Loaded:
    """Where a URL leads."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    try:
        port = parts.port or 80
    except ValueError:
        raise UsageError(f"{url}: that is no port") from None
    if parts.scheme != "http" or not parts.hostname:
        raise UsageError(f"{url}: the load is plain HTTP; give http://HOST:PORT/PATH")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Loaded(parts.hostname, port, target, parts.netloc.rpartition("@")[2])


@asynccontextmanager
async def own_pair(tunnels: int, *, quiet: bool = True) -> AsyncIterator[Loaded]:
    """A DMZ node and an agent with a small service behind it, until the context is left."""
    async with AsyncExitStack() as stack:
        showing = stack.enter_context(ExitStack())
        showing.enter_context(going_on("starting a DMZ node and an agent", quiet=quiet))
        service = await stack.enter_async_context(_service())
        dmz = Child(
            "DMZ node",
            "serve",
            *("--external", ANY),
            *("--registration", ANY),
            *("--admin", ANY),
            *("--workers", "1"),
        )
        await stack.enter_async_context(dmz)
        registration = await dmz.url("registration")
        agent = Child("agent", "connect", registration, "--service", service, "--tunnels", str(tunnels))
        await stack.enter_async_context(agent)
        await agent.ready()
        external = urlsplit(await dmz.url("external"))
        showing.close()
        assert external.hostname is not None and external.port is not None
        yield Loaded(external.hostname, external.port, pids=(dmz.pid, agent.pid))


async def _bench(options: Options) -> Report:
    if options.url is not None:
        return await _measure(read_url(options.url), options)
    async with own_pair(options.tunnels, quiet=options.quiet or options.as_json) as loaded:
        return await _measure(loaded, options)


async def _measure(loaded: Loaded, options: Options) -> Report:
    plan = load.Plan(
        loaded.host,
        loaded.port,
        loaded.target,
        connections=options.connections,
        seconds=options.seconds,
        rate=options.rate,
        warmup=WARMUP,
        authority=loaded.authority,
    )
    with progress(WARMUP + options.seconds, quiet=options.quiet or options.as_json):
        outcome = await load.run(plan, meter=loaded.cpu_seconds)
    memory = accounting.memory(accounting.tree(loaded.pids)).pss if loaded.pids else None
    return Report.of(plan, outcome, memory)


@asynccontextmanager
async def _service() -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "broker.bench.service",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        preexec_fn=end_with_parent,
        start_new_session=True,  # Ctrl-C reaches this process only
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(SERVICE_SECONDS):
            port = await process.stdout.readline()
        if not port:
            raise RunError("the service to load did not start")
        yield f"http://127.0.0.1:{int(port)}"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


def _allow_connections(count: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + OTHER_DESCRIPTORS
    if needed > hard:
        raise UsageError(f"{count} connections need a limit of {needed} open descriptors; it is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, hard), hard))


def _first(group: BaseExceptionGroup[OSError]) -> OSError:
    problem = group.exceptions[0]
    return _first(problem) if isinstance(problem, BaseExceptionGroup) else problem
