"""broker bench"""

from __future__ import annotations

import click


@click.command(short_help="Load a running pair, or one that it starts.")
@click.argument("url", required=False)
@click.option("--connections", type=click.IntRange(1, 100_000), default=64, show_default=True)
@click.option("--seconds", type=click.FloatRange(0.1, 3600), default=5.0, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0.1, 1_000_000),
    help="Requests a second, whose latency then counts from when they were due. Otherwise every"
    " connection asks again as soon as it is answered.",
)
@click.option(
    "--tunnels",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="Of the pair that it starts.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="The figures for machines.")
@click.pass_context
def bench(
    ctx: click.Context,
    url: str | None,
    connections: int,
    seconds: float,
    rate: float | None,
    tunnels: int,
    quiet: bool,
    as_json: bool,
) -> None:
    """Send GET requests on keep-alive connections and say how they fared.

    URL is that of an external port of a running DMZ node. Without it a DMZ node, an agent and a service that
    answers 1 KiB are started on loopback, and what they cost is said too. The exit code is 1 where a request
    failed.

    \b
      broker bench
      broker bench http://127.0.0.1:8080/orders --connections 256 --rate 5000
    """
    from broker.bench.run import Options, run

    ctx.exit(run(Options(url, connections, seconds, rate, tunnels, quiet, as_json)))
