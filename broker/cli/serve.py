"""broker serve"""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.options import (
    config_argument,
    insecure_option,
    log_format_option,
    log_level_option,
    node_admin_option,
    service_option,
)


@click.command(short_help="Run a DMZ node: clients and agents connect to it.")
@config_argument
@click.option(
    "--external",
    multiple=True,
    metavar="URL",
    help="Where clients connect: http://HOST:PORT, https://HOST:PORT?cert=FILE&key=FILE,"
    " tcp://HOST:PORT/SERVICE, or tls://HOST:PORT, passed through by server name; with several registration"
    " ports followed by registration=NAME. May be repeated; adds to CONFIG's.",
)
@click.option(
    "--registration",
    multiple=True,
    metavar="URL",
    help="Where agents register: http://HOST:PORT or https://HOST:PORT?cert=FILE&key=FILE, or with name=NAME."
    " May be repeated; adds to CONFIG's.",
)
@node_admin_option
@service_option
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Processes that serve, by default one per core. Replaces CONFIG's.",
)
@log_format_option
@log_level_option
@insecure_option
@click.pass_context
def serve(
    ctx: click.Context,
    config: Path | None,
    external: tuple[str, ...],
    registration: tuple[str, ...],
    admin: str | None,
    services: tuple[str, ...],
    workers: int | None,
    log_format: str,
    log_level: str,
    insecure: bool,
) -> None:
    """Run a DMZ node: clients and agents connect to it.

    A request goes to a local service where one matches (--service), else to an agent that announced one.
    CONFIG is a YAML file; what is given here adds to it.

    \b
    Everything on loopback: clients at 8080, agents at 7000, admin at 7001
      broker serve
    Clients from anywhere, agents from this machine
      broker serve --external http://0.0.0.0:80 --registration http://127.0.0.1:7000
    HTTPS for clients
      broker serve --external 'https://0.0.0.0:443?cert=web.crt&key=web.key'
    A TCP port that leads to the service "db" behind an agent
      broker serve --external tcp://127.0.0.1:5432/db
    Agents from anywhere, with tokens: needs users, and so a file
      broker serve dmz.yaml

    The ports of the first example stand in where CONFIG gives none: all three where no flag does; else
    --external or --registration where it is missing (the latter only without local services).

    SIGTERM and SIGINT drain, the second one stops at once; SIGHUP reloads; SIGUSR1 opens the access log
    again; SIGUSR2 lets a new process take over (broker upgrade).
    """
    from broker.config import Flags, load
    from broker.node import run
    from broker.observe.logs import LogOptions

    flags = Flags(
        external=external,
        registration=registration,
        services=services,
        admin=admin,
        workers=workers,
        insecure=insecure,
        defaults="serve",
    )
    ctx.exit(run(load(config, flags), LogOptions(log_format, log_level)))
