"""Options that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

config_argument = click.argument("config", required=False, type=click.Path(path_type=Path))

service_option = click.option(
    "--service",
    "services",
    multiple=True,
    metavar="SPEC",
    help="[HOST][/PATH]=UPSTREAM, UPSTREAM alone for every request, NAME=tcp://HOST:PORT, or"
    " HOST=tls://HOST:PORT. UPSTREAM is http://HOST:PORT, https://HOST:PORT or unix:PATH, HOST may be"
    " *.example.com. May be repeated; adds to CONFIG's.",
)

node_admin_option = click.option(
    "--admin", metavar="URL", help="Where this node is watched and steered. Replaces CONFIG's."
)

insecure_option = click.option(
    "--insecure", is_flag=True, help="Allow ports beyond loopback that ask for no credentials."
)

log_format_option = click.option(
    "--log-format",
    type=click.Choice(("auto", "text", "json")),
    default="auto",
    show_default=True,
    help="Of this program's log on standard error: text for people, or a JSON object per line; auto is text"
    " in a terminal.",
)

log_level_option = click.option(
    "--log-level",
    type=click.Choice(("debug", "info", "warning", "error")),
    default="info",
    show_default=True,
    help="The lowest level that is logged.",
)

ca_option = click.option(
    "--ca",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar="BROKER_ADMIN_CA",
    help="The only CAs that are believed, of an https port. Or in BROKER_ADMIN_CA.",
)
cert_option = click.option(
    "--cert",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A client certificate, with its key or with --key.",
)
key_option = click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help="Its private key.")

ADMIN_OPTIONS = (
    click.option(
        "--admin",
        metavar="URL",
        default="http://127.0.0.1:7001",
        show_default=True,
        envvar="BROKER_ADMIN",
        help="The admin port of the running node. Or in BROKER_ADMIN.",
    ),
    click.option(
        "--token-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        envvar="BROKER_ADMIN_TOKEN_FILE",
        help="A token, where the port asks for one. Or in BROKER_ADMIN_TOKEN_FILE.",
    ),
    ca_option,
    cert_option,
    key_option,
)


def admin_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where the admin port is and what opens it, passed to the command as one `access`."""

    @functools.wraps(command)
    def with_access(
        admin: str,
        token_file: Path | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        **more: Any,
    ) -> None:
        from broker.cli.admin import Access

        command(access=Access(url=admin, token_file=token_file, ca=ca, cert=cert, key=key), **more)

    for option in reversed(ADMIN_OPTIONS):
        with_access = option(with_access)
    return with_access
