"""broker demo"""

from __future__ import annotations

import click


@click.command(short_help="Try it: DMZ node, agent and service on loopback.")
@click.option("--once", is_flag=True, help="End after the one request.")
@click.pass_context
def demo(ctx: click.Context, once: bool) -> None:
    """Run a DMZ node, an agent and a sample service on loopback, and send a request through.

    Prints the answer and a line to try; stays until Ctrl-C.

    \b
      broker demo
      broker demo --once                 a test that the program works here
    """
    from broker.node.demo import run

    ctx.exit(run(once=once))
