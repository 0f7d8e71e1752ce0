"""A thousand agents in one process: real diallers, each a process instance of its own to the DMZ node.

    python -m tests.faults.many_agents PORT COUNT

Prints `up N` whenever the number of tunnels that are up has changed, at most ten times a second. The services
that they announce are answered by nobody here: what is looked at is how they come back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import sys

import uvloop

from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from broker.config.model import Connect, Limits, Match, Service, Timeouts, Upstream
from broker.tunnel.uplink import Agent, TunnelSettings, Uplink

LOOK_S = 0.1


async def main(port: int, count: int) -> None:
    logging.disable(logging.WARNING)
    reactor = Reactor(asyncio.get_running_loop())
    reactor.start()
    service = Service(
        match=Match(host="many.example"),
        upstreams=(Upstream(scheme="http", host="127.0.0.1", port=9),),
        limits=Limits(),
        timeouts=Timeouts(),
    )
    connect = Connect(
        scheme="http",
        host="127.0.0.1",
        port=port,
        token=None,
        token_file=None,
        tunnels=1,
        services=(service,),
    )
    settings = TunnelSettings(65536, 100, 5000, 1 << 20)
    uplinks = [
        Uplink(
            reactor,
            Agent(f"agent-{number}", secrets.token_hex(16)),
            connect,
            RouteTable([]),
            settings,
            5.0,
            lambda: None,
        )
        for number in range(count)
    ]
    for uplink in uplinks:
        uplink.start()
    told = -1
    while True:
        up = sum(uplink.ready for uplink in uplinks)
        if up != told:
            told = up
            sys.stdout.write(f"up {up}\n")
            sys.stdout.flush()
        await asyncio.sleep(LOOK_S)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))
