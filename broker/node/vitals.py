"""How a running DMZ node does, as its admin port tells: for `broker doctor`, on that machine."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from broker.errors import BrokerError
from broker.node.steps import Failed, Step, failed, number, since, warning
from broker.tunnel.messages import printable

LATE_S = 600.0  # failures that are older are no news
SOON_DAYS = 14.0

Status = dict[str, Any]
Ask = Callable[[str], Status]


async def examine_node(admin: str, ask: Ask) -> AsyncIterator[Step]:
    """`ask`: the status that an admin port tells; raises BrokerError."""
    started = time.perf_counter()
    try:
        status = await ask_status(admin, ask)
        yield Step(admin, "node", "ok", since(started), at_work(status))
    except Failed as error:
        yield failed(admin, "node", started, str(error))
        return
    for look in (certificates, agents, failures):
        for step in look(admin, status):
            yield step


async def ask_status(admin: str, ask: Ask) -> Status:
    try:
        status = await asyncio.to_thread(ask, admin)
    except BrokerError as error:
        raise Failed(printable(str(error))) from None
    if "registration" not in status:
        raise Failed("what answers there is no admin port of a broker node")
    return status


def at_work(status: Status) -> str:
    """What runs; Failed where it is not ready."""
    if not status["ready"]:
        raise Failed(f"not ready: {'; '.join(status['reasons'])}")
    workers = number(len(status["workers"]), "worker") if status["workers"] else "1 process"
    return f"version {status['version']} is ready, {workers}, up for {status['uptime_s']:.0f} s"


def certificates(admin: str, status: Status) -> Iterator[Step]:
    rows = sorted(status["certificates"], key=lambda row: float(row["days_left"]))
    for row in rows:
        what = f"{row['kind']} of {row['at']}: {row['file']}"
        if row["days_left"] <= 0:
            yield failed(admin, "certificates", time.perf_counter(), f"{what} has expired")
        elif row["days_left"] < SOON_DAYS:
            yield warning(admin, "certificates", f"{what} expires in {row['days_left']:.0f} days")
    if rows and rows[0]["days_left"] >= SOON_DAYS:
        yield Step(
            admin, "certificates", "ok", 0.0, f"the first one expires in {rows[0]['days_left']:.0f} days"
        )


def agents(admin: str, status: Status) -> Iterator[Step]:
    for port in status["registration"]:
        refusals = ", ".join(f"{count} {code}" for code, count in port["refusals"].items() if count)
        refused = f"logins were refused: {refusals}" if refusals else ""
        at = f"registration port {port['name']}"
        if not port["tunnels"]:
            detail = f"no agent is registered at {port['name']}" + (f"; {refused}" if refused else "")
            yield failed(at, "agents", time.perf_counter(), detail)
            continue
        names = {
            (tunnel["user"], tunnel["agent"])
            for tunnel in status["tunnels"]
            if tunnel["registration"] == port["name"]
        }
        shown = ", ".join(sorted(f"{agent} ({user})" for user, agent in names))
        yield Step(at, "agents", "ok", 0.0, f"{number(port['tunnels'], 'tunnel')} of {shown}")
        if refused:
            yield warning(at, "agents", refused)


def failures(admin: str, status: Status) -> Iterator[Step]:
    """What clients have met in the last minutes."""
    late = [each for each in status["last_failures"] if each["time"] > time.time() - LATE_S]
    counts = Counter((each["code"], each["service"]) for each in late)
    for (code, service), count in counts.most_common(5):
        reason = next(each["reason"] for each in late if (each["code"], each["service"]) == (code, service))
        where = f" at {service}" if service else ""
        why = f" ({reason})" if reason else ""
        yield warning(admin, "failures", f"{number(count, 'request')} ended with {code}{where}{why}")
