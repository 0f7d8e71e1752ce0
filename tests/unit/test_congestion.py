"""The congestion control of a node's connections: clients, tunnels, upstreams."""

import asyncio
import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from broker import config as configuration
from broker.config import values
from broker.config.model import Flags
from broker.node import Node
from tests.unit.node_support import until
from tests.unit.test_node_node import ANY, Rig, external_url, registration_url, with_rig

SYSTEM = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def connections() -> dict[tuple[int, int], str]:
    """Congestion control by (own port, peer's port), of this process's TCP connections."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as sock:
                if sock.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                ports = sock.getsockname()[1], sock.getpeername()[1]
                choice = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                found[ports] = choice.rstrip(b"\0").decode()
        except OSError:
            continue  # gone meanwhile, or not connected
    return found


def port(url: str) -> int:
    return int(url.rpartition(":")[2])


async def choices(rig: Rig, choice: str) -> dict[str, str]:
    """What each kind of connection uses while a client is connected."""

    async def start(**flags: object) -> Node:
        config = configuration.load(None, Flags(**flags))  # type: ignore[arg-type]
        return await rig.start(replace(config, congestion=choice))

    upstream = await rig.upstream()
    dmz = await start(external=(ANY,), registration=(ANY,))
    agent = await start(connect=(registration_url(dmz),), services=(upstream,))
    await until(lambda: not agent.not_ready() and dmz.parts.registered)
    reader, writer = await asyncio.open_connection("127.0.0.1", port(external_url(dmz)))
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b" 200 " in await reader.readline()
    all_of_them = connections()
    client = writer.get_extra_info("sockname")[1]
    writer.close()
    registration = port(registration_url(dmz))
    return {
        "client": all_of_them[port(external_url(dmz)), client],
        "accepted tunnel": next(c for (own, _), c in all_of_them.items() if own == registration),
        "dialled tunnel": next(c for (_, peer), c in all_of_them.items() if peer == registration),
        "upstream": next(c for (_, peer), c in all_of_them.items() if peer == port(upstream)),
    }


@pytest.mark.parametrize(("choice", "expected"), [("auto", "reno"), ("system", SYSTEM), ("reno", "reno")])
def test_every_connection_uses_what_was_chosen(choice: str, expected: str) -> None:
    async def test(rig: Rig) -> None:
        assert set((await choices(rig, choice)).values()) == {expected}

    with_rig(test)


@pytest.mark.parametrize("name", ["auto", "system", "reno"])
def test_what_may_be_chosen(name: str) -> None:
    assert values.parse_congestion(name) == name


@pytest.mark.parametrize("name", ["", "nosuch", "a" * 16, "reno\n", 3, None])
def test_what_the_kernel_does_not_offer(name: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        values.parse_congestion(name)
