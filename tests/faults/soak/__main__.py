"""A soak: mixed load while processes are killed, frozen, replaced, restarted and reloaded, and links break.

    scripts/soak [MINUTES] [--workers N] [--seed N]

Counted, and zero unless something is wrong:

    failed      an idempotent request without a right answer: an error, no answer, a wrong body
    shortened   an answer that looked whole and was not
    duplicated  a POST that the service saw more than once

Told, but no failures, since nobody can do better: a download that was visibly cut in its middle
(`cut`: its head had been passed on), a POST that may have been delivered when its tunnel was lost (`unsure`),
TCP and WebSocket connections that ended with their tunnel (`ended`), and connections that were made once more
because the process that had the client's was killed or restarted (`again`).
"""

import argparse
import logging
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

from tests.faults.proxy import FaultProxy
from tests.faults.soak.chaos import Chaos
from tests.faults.soak.clients import PATIENCE_S, Clients, Outages
from tests.faults.soak.service import Service
from tests.harness.nodes import World, loopback

AGENTS = 3
TELL_S = 30.0
LOG = Path("build/soak.log")


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak")
    parser.add_argument("minutes", nargs="?", type=float, default=10)
    parser.add_argument("--workers", type=int, default=2, help="of the DMZ node")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 31))
    options = parser.parse_args()
    print(f"{options.minutes:g} minutes, {options.workers} workers, seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as place:
        world = World(Path(place))
        try:
            return soak(world, options.minutes * 60, options.workers, options.seed)
        except BaseException:
            LOG.write_text(world.output)
            raise
        finally:
            world.discard()


def soak(world: World, seconds: float, workers: int, seed: int) -> int:
    service = Service()
    ports = [{"name": "web", "listen": loopback()}, {"name": "echo", "listen": loopback("tcp", rest="/echo")}]
    dmz = world.dmz({"external": ports, "timeouts": {"agent_wait": "60s"}, "workers": workers})
    proxies = [FaultProxy(dmz.registration_at()) for _ in range(AGENTS)]
    offered = [
        {"match": "/", "upstream": f"http://127.0.0.1:{service.http}"},
        {"name": "echo", "upstream": f"tcp://127.0.0.1:{service.tcp}"},
    ]
    agents = [world.agent(proxy.url, offered, 2) for proxy in proxies]
    dmz.wait_agents(2 * AGENTS)
    outages = Outages()
    chaos = Chaos(dmz, agents, proxies, outages, seed)
    clients = Clients(dmz, outages)
    began = told = time.monotonic()
    rss = dmz.process.rss()
    try:
        while time.monotonic() - began < seconds and not clients.problems:
            chaos.one()
            chaos.pause(0.2, 2)
            if time.monotonic() - told > TELL_S:
                told = time.monotonic()
                print(f"{told - began:5.0f} s  {dict(clients.counts)}", flush=True)
    except BaseException:
        chaos.discard()
        raise
    clients.end()
    grown = (rss, chaos.memory())
    chaos.end()
    world.close()
    for proxy in proxies:
        proxy.close()
    return report(world, clients, chaos, service, grown)


def report(world: World, clients: Clients, chaos: Chaos, service: Service, grown: tuple[int, int]) -> int:
    counts = clients.counts
    duplicated = [number for number, times in service.posts.items() if times > 1]
    print(f"faults: {dict(chaos.done)}")
    print(f"load: {dict(counts)}")
    print(f"memory of the DMZ node: {grown[0] >> 20} MiB at the start, {grown[1] >> 20} MiB at the end")
    print(f"failed {counts['failed']}, shortened {counts['shortened']}, duplicated {len(duplicated)}")
    print("\n".join(clients.problems[:20]))
    if clients.problems or duplicated:
        LOG.write_text(world.output)
        print(f"what the nodes said is in {LOG}")
        return 1
    return 0


if __name__ == "__main__":
    socket.setdefaulttimeout(PATIENCE_S)
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)  # its clients are agents that are killed
    sys.exit(main())
