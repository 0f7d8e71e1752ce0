"""The group of all commands, and how a failure becomes a message and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import click

from broker import __version__
from broker.errors import BrokerError, ConfigError

# Every command is the object of its own name in the module of that name.
COMMANDS = (
    "serve",
    "connect",
    "check",
    "status",
    "top",
    "doctor",
    "reload",
    "upgrade",
    "drain",
    "stop",
    "token",
    "tls",
    "demo",
    "bench",
)


class Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in COMMANDS if importlib.util.find_spec(f"broker.cli.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(importlib.import_module(f"broker.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokerError as error:
            _tell_predecessor(error)
            # A configuration's problems begin with their place, as a compiler's do.
            click.echo(str(error) if isinstance(error, ConfigError) else f"broker: {error}", err=True)
            ctx.exit(error.exit_code)


def _tell_predecessor(error: BrokerError) -> None:
    """Where this process was to take over from another one, that one wants to know why it does not."""
    if "BROKER_HANDOVER" in os.environ:
        from broker.node.handover import report_failure

        report_failure(str(error))


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="`broker COMMAND --help` says more, with examples. Exit codes: 0 done, 1 failed, 2 wrong usage or"
    " configuration.",
)
@click.version_option(__version__, prog_name="broker")
def broker() -> None:
    """Reach services behind a firewall through tunnels that they open themselves.

    \b
      broker serve                                    on the machine that clients can reach
      broker connect http://DMZ:7000 --service http://127.0.0.1:9000
                                                      on a machine that can reach the service
      broker demo                                     both on this machine, to try it
    """


def main() -> None:
    broker(prog_name="broker")
