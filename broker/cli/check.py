"""broker check"""

from __future__ import annotations

from pathlib import Path

import click

from broker.cli.options import insecure_option


@click.command(short_help="Check a configuration file.")
@click.argument("config", type=click.Path(path_type=Path))
@insecure_option
def check(config: Path, insecure: bool) -> None:
    """Check a configuration file without running it.

    Every error is told at once, with file, line and key path, and the exit code is then 2. Where there is
    none, it says what would listen, what would be dialled, and which services there are.

    \b
      broker check dmz.yaml && broker reload
    """
    from broker.config import Flags, describe, load

    found = load(config, Flags(insecure=insecure, defaults="serve"))
    for warning in found.warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(describe(found))
