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

admin_option = click.option(
    "--admin",
    metavar="URL",
    default="http://127.0.0.1:7001",
    show_default=True,
    help="The admin port of the running node.",
)
