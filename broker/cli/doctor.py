"""broker doctor"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from broker.cli.options import ca_option, cert_option, key_option

ADMIN_S = 3.0  # for the admin port to answer


@click.command(short_help="Say why an agent can't reach its DMZ node, step by step.")
@click.argument("where", metavar="[CONFIG | URL]", required=False, default="http://127.0.0.1:7000")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The agent's token; on a DMZ node one that its admin port accepts.",
)
@click.option(
    "--admin",
    metavar="URL",
    envvar="BROKER_ADMIN",
    help="The admin port of the DMZ node, where CONFIG does not say how to reach it. Or in BROKER_ADMIN.",
)
@ca_option
@cert_option
@key_option
@click.option("--json", "as_json", is_flag=True, help="One JSON object per step.")
@click.pass_context
def doctor(
    ctx: click.Context,
    where: str,
    token_file: Path | None,
    admin: str | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Say why an agent can't reach its DMZ node, or why a DMZ node has no agents.

    With an agent's CONFIG, or the URL of a registration port, it goes the way that an agent goes (name,
    route, TCP, TLS, registration, rights, clock, round trip, upstreams), and only asks what would be
    granted: no tunnel is made. With a DMZ node's CONFIG it looks at that node's ports, certificates, agents,
    refused logins, last failures and local services; run it on the DMZ node. The exit code is 1 where a
    step fails.

    \b
    On the agent's machine
      broker doctor green.yaml
      broker doctor https://dmz.example.com:7000 --token-file orders.token
    On the DMZ node
      broker doctor dmz.yaml
      broker doctor dmz.yaml --admin https://dmz.example.com:7001 --ca ca.crt --token-file ops.token
    """
    import asyncio
    import json
    from dataclasses import replace

    from broker.cli.admin import Access, ask
    from broker.config import Flags, load, split_where
    from broker.node.doctor import examine
    from broker.node.steps import Step
    from broker.observe.terminal import going_on

    config, urls = split_where((where,))
    # An agent without services makes no sense to the configuration; to ask at a URL it needs none.
    stand_in = ("doctor.invalid=http://127.0.0.1:1",) if urls else ()
    flags = Flags(connect=urls, services=stand_in, insecure=True)
    found = load(config, flags)
    if token_file is not None and found.connect:
        found = load(config, replace(flags, token_file=token_file.absolute()))
    if urls:
        found = replace(
            found, services=(), connect=tuple(replace(each, services=()) for each in found.connect)
        )
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)

    def ask_status(url: str) -> dict[str, Any]:
        access = Access(url=admin or url, token_file=token_file, ca=ca, cert=cert, key=key)
        return ask(access, "GET", "/status", ADMIN_S)

    wanted = found.admin is not None and found.admin.auth and not (token_file or cert)

    async def run() -> bool:
        well = True
        subject = ""
        steps = examine(found, None if wanted else ask_status)
        while True:
            with going_on("looking"):
                step = await anext(steps, None)
            if step is None:
                return well
            well = well and step.state != "failed"
            if as_json:
                click.echo(json.dumps(step.plain()))
                continue
            if step.subject != subject:
                subject = step.subject
                click.echo(subject)
            show(step)

    def show(step: Step) -> None:
        click.echo(f"  {mark(step.state)}  {step.name:<13}{step.seconds * 1000:9.1f} ms  {step.detail}")
        if step.advice.cause:
            click.echo(f"           likely: {step.advice.cause}")
            click.echo(f"           mend:   {step.advice.mend}")

    ctx.exit(0 if asyncio.run(run()) else 1)


def mark(state: str) -> str:
    import sys

    from broker.observe.terminal import wants_colours

    text = f"{state:<7}"
    colour = {"ok": "green", "warning": "yellow", "failed": "red"}[state]
    return click.style(text, fg=colour) if wants_colours(sys.stdout) else text
