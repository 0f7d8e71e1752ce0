"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path

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

admin_option = click.option(
    "--admin",
    metavar="URL",
    default="http://127.0.0.1:7001",
    show_default=True,
    help="The admin port of the running node.",
)
