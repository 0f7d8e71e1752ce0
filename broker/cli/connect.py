"""broker connect"""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.options import (
    insecure_option,
    log_format_option,
    log_level_option,
    node_admin_option,
    service_option,
)


@click.command(short_help="Run an agent: it offers services to DMZ nodes.")
@click.argument("where", nargs=-1, metavar="[CONFIG] [URL]...")
@service_option
@click.option("--tunnels", type=int, metavar="N", help="Connections to each node; default 2.")
@click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The token that proves who this agent is; `broker token new` makes one.",
)
@node_admin_option
@log_format_option
@log_level_option
@insecure_option
@click.pass_context
def connect(
    ctx: click.Context,
    where: tuple[str, ...],
    services: tuple[str, ...],
    tunnels: int | None,
    token_file: Path | None,
    admin: str | None,
    log_format: str,
    log_level: str,
    insecure: bool,
) -> None:
    """Run an agent: it dials the registration ports of DMZ nodes and offers its services there.

    URL is a registration port, by default http://127.0.0.1:7000. It adds to those of CONFIG, a YAML file.
    --tunnels and --token-file hold for the URLs given here or, without any, for all of CONFIG's.

    \b
    A web server on this machine, for every request that comes
      broker connect http://dmz.example.com:7000 --service http://127.0.0.1:9000
    For one host and path, and a database beside it
      broker connect http://dmz.example.com:7000 --token-file orders.token \\
          --service orders.example.com/api=http://127.0.0.1:9000 --service db=tcp://127.0.0.1:5432
    Everything in a file
      broker connect green.yaml

    SIGTERM and SIGINT drain, the second one stops at once; SIGHUP reloads; SIGUSR1 opens the access log
    again; SIGUSR2 lets a new process take over (broker upgrade).
    """
    from broker.config import Flags, load, split_where
    from broker.node import run
    from broker.observe.logs import LogOptions

    config, urls = split_where(where)
    flags = Flags(
        services=services,
        connect=urls,
        admin=admin,
        tunnels=tunnels,
        token_file=token_file and token_file.absolute(),
        insecure=insecure,
        defaults="connect",
    )
    ctx.exit(run(load(config, flags), LogOptions(log_format, log_level)))
