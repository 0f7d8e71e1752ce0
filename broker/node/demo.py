"""`broker demo`: a DMZ node, an agent and a sample service on loopback, as they would run for real.

The two nodes are processes of their own, started by the commands that a user would type, on ports that the
kernel chooses. The sample service runs in here.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack

import click
from aiohttp import ClientError, ClientSession, ClientTimeout, web

from broker.errors import EXIT_DONE, EXIT_FAILED, RunError
from broker.node.child import ANY, Child
from broker.observe.terminal import going_on

READY_S = 20.0
PATH = "/hello"


def run(*, once: bool = False) -> int:
    """Show it; stay until Ctrl-C, or with `once` end after the first request. The exit code."""
    try:
        return asyncio.run(_demo(once))
    except KeyboardInterrupt:
        return EXIT_DONE
    except RunError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_FAILED


async def _demo(once: bool) -> int:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with AsyncExitStack() as stack:
        service = await _sample_service(stack)
        with going_on("starting the DMZ node") as say:
            node = Child(
                "DMZ node",
                "serve",
                *("--external", ANY),
                *("--registration", ANY),
                *("--admin", ANY),
                *("--workers", "1"),
            )
            dmz = await stack.enter_async_context(node)
            external = await dmz.url("external")
            registration = await dmz.url("registration")
            admin = await dmz.url("admin")
            say("starting the agent")
            child = Child("agent", "connect", registration, "--service", service, "--tunnels", "2")
            agent = await stack.enter_async_context(child)
            await agent.ready()
        _say_what_runs(service, external, registration)
        await _show_request(f"{external}{PATH}")
        if once:
            return EXIT_DONE
        click.echo(f"\nTry it:  curl -i {external}{PATH}")
        click.echo(f"See it:  {admin}/ in a browser, or broker top --admin {admin}")
        click.echo("Ctrl-C ends the demo.")
        return await _until_an_end(ended, dmz, agent)


async def _sample_service(stack: AsyncExitStack) -> str:
    """The URL of a service that answers everything with what it was asked."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", _answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    return f"http://{host}:{port}"


async def _answer(request: web.Request) -> web.Response:
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    text = "Hello from the green zone. I was asked:\n\n"
    return web.Response(text=text + "\n".join([f"{request.method} {request.path_qs}", *lines, ""]))


def _say_what_runs(service: str, external: str, registration: str) -> None:
    click.echo(f"sample service  {service}")
    click.echo(f"DMZ node        {external} for clients, {registration} for agents")
    click.echo("agent           dialled the DMZ node: 2 tunnels, every request goes to the sample service")


async def _show_request(url: str) -> None:
    click.echo(f"\nGET {url}\n")
    try:
        async with ClientSession(timeout=ClientTimeout(total=READY_S)) as session, session.get(url) as answer:
            click.echo(f"HTTP/1.1 {answer.status} {answer.reason}")
            for name, value in answer.headers.items():
                click.echo(f"{name}: {value}")
            click.echo(f"\n{await answer.text()}", nl=False)
            if answer.status != 200:
                raise RunError("the request did not reach the sample service")
    except (ClientError, TimeoutError) as error:
        raise RunError(f"the request failed: {str(error) or type(error).__name__}") from error


async def _until_an_end(ended: asyncio.Event, *children: Child) -> int:
    """Until somebody ends the demo; a child that ends by itself is a failure."""
    waits = {asyncio.create_task(child.ended()): child for child in children}
    told = asyncio.create_task(ended.wait())
    try:
        done, _ = await asyncio.wait({told, *waits}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (told, *waits):
            task.cancel()
    for task, child in waits.items():
        if task in done and told not in done:
            raise child.failure()
    return EXIT_DONE
