"""Why an agent can't reach its DMZ node, or a DMZ node has no agents: one step after another, each timed.

    an entry of `connect`   name, route, tcp, (proxy,) tls, registration, rights, clock, round trip
    its services            upstream
    a DMZ node              port; what its admin port says: node, certificates, agents, failures (vitals.py)

A step that fails names the likely cause and what mends it (`causes.py`); the steps that build on it are left
out. Nothing is changed anywhere: the registration only asks what would be granted.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from _fastpath.backend import Backend
from _fastpath.tunnel import Tunnel
from broker.config.model import Config, Connect, HealthCheck, Listen, Proxy, Service, Upstream
from broker.node.causes import NONE, advice_for
from broker.node.steps import Failed, Step, failed, number, since, timed, warning
from broker.node.vitals import Ask, examine_node
from broker.services.probe import Probe
from broker.tls.client import ClientContext
from broker.tls.stream import TlsFailed, TlsStream
from broker.tunnel.addresses import AddressInfo, Target, is_literal, resolve
from broker.tunnel.dialler import (
    DialError,
    Dialler,
    Link,
    address_text,
    bind_token,
    connect,
    explain,
    pass_proxy,
    receive,
    secure,
)
from broker.tunnel.handshake import Refusal, Registration, read_verdict, registration_bytes
from broker.tunnel.messages import printable
from broker.tunnel.proxy import ProxyRefused
from broker.tunnel.uplink import context_of, node_name

ANSWER_S = 10.0
SKEW_S = 30.0  # between the clocks of both sides: more than that makes certificates look too old or too young
CONNECTS = HealthCheck(kind="tcp")
PORT_S = 3.0


@dataclass(slots=True)
class Patient:
    """One entry of `connect`, as the parts of a Dialler want to see it."""

    entry: Connect
    connect_timeout_s: float
    tls: ClientContext | None
    addresses: list[AddressInfo] = field(default_factory=list)

    @property
    def url(self) -> str:
        return self.entry.url

    @property
    def address(self) -> tuple[str, int]:
        return self.entry.host, self.entry.port

    @property
    def authority(self) -> str:
        return self.entry.authority

    @property
    def proxy(self) -> Proxy | None:
        return self.entry.proxy

    @property
    def bearer(self) -> bool:
        return self.entry.bearer

    async def resolve(self, _target: Target | None) -> list[AddressInfo]:
        return self.addresses or await resolve(*self.address)

    def registration(self, _index: int) -> Registration:
        return Registration(
            agent=node_name(),
            instance=secrets.token_hex(16),
            index=0,
            window=65536,
            streams=1,
            services=tuple(dict.fromkeys(service.match for service in self.entry.services)),
            token=self.entry.token.reveal() if self.entry.token is not None else None,
            look=True,
        )

    def make_tunnel(self, _dialler: Dialler, _link: Link) -> Tunnel:
        raise AssertionError("a look makes no tunnel")

    def is_news(self, _reason: str) -> bool:
        return False

    def on_up(self, _dialler: Dialler, _link: Link) -> None:
        pass


async def examine(config: Config, ask: Ask | None) -> AsyncIterator[Step]:
    """Every step as soon as it is over.

    `ask`: the status that an admin port tells; raises BrokerError. None: there is nothing to ask it with.
    """
    for entry in config.connect:
        async for step in examine_connect(entry, config.timeouts.connect / 1000):
            yield step
    for service in config.services:
        async for step in examine_service(service):
            yield step
    async for step in examine_ports(config):
        yield step
    if config.admin is None or not (config.registration or config.external):
        return
    if ask is None:
        yield warning(config.admin.url, "node", "not asked: the admin port wants a credential")
        return
    async for step in examine_node(config.admin.url, ask):
        yield step


# --- an agent's way to its DMZ node -----------------------------------------------------------------


async def examine_connect(entry: Connect, timeout_s: float) -> AsyncIterator[Step]:
    patient = Patient(entry, timeout_s, context_of(entry))
    sock: socket.socket | None = None
    stream: TlsStream | None = None
    try:
        if patient.proxy is None:
            for name, work in (("name", look_up), ("route", find_route)):
                step = await timed(entry.url, name, work(patient))
                yield step
                if step.state == "failed":
                    return
        started = time.perf_counter()
        try:
            sock = await connect(patient, None)
            if patient.proxy is not None:
                await asyncio.wait_for(pass_proxy(sock, patient.proxy, patient.authority), ANSWER_S)
        except (DialError, ProxyRefused, TimeoutError, OSError) as error:
            name = "tcp" if patient.proxy is None else "proxy"
            yield failed(entry.url, name, started, words_of(error))
            return
        way = f" through {patient.proxy.name}" if patient.proxy is not None else ""
        yield Step(
            entry.url, "tcp", "ok", since(started), f"connected to {address_text(sock.getpeername())}{way}"
        )
        if patient.tls is not None:
            started = time.perf_counter()
            try:
                stream = await asyncio.wait_for(secure(sock, patient.tls), ANSWER_S)
            except (TlsFailed, TimeoutError, OSError) as error:
                yield failed(entry.url, "tls", started, words_of(error))
                return
            version = stream.connection.get_protocol_version_name()
            yield Step(entry.url, "tls", "ok", since(started), f"{version}, its certificate is believed")
        async for step in ask_for_rights(patient, sock, stream):
            yield step
    finally:
        if sock is not None:
            sock.close()


async def look_up(patient: Patient) -> str:
    host, port = patient.address
    try:
        patient.addresses = await asyncio.wait_for(resolve(host, port), ANSWER_S)
    except socket.gaierror as error:
        raise Failed(f"the name {host} cannot be resolved ({error.strerror})") from None
    except TimeoutError:
        raise Failed(f"the name {host} got no answer within {ANSWER_S:.0f} s") from None
    shown = ", ".join(dict.fromkeys(str(info[4][0]) for info in patient.addresses))
    return f"{host} is an address" if is_literal(host) else f"{host} is {shown}"


async def find_route(patient: Patient) -> str:
    problem = ""
    for family, _, _, _, address in patient.addresses:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:  # sends nothing
            try:
                probe.connect(address)
            except OSError as error:
                problem = explain(error)
                continue
            return f"packets to {address[0]} leave from {probe.getsockname()[0]}"
    raise Failed(f"no way there: {problem}")


async def ask_for_rights(
    patient: Patient, sock: socket.socket, stream: TlsStream | None
) -> AsyncIterator[Step]:
    url = patient.entry.url
    started = time.perf_counter()
    try:
        async with asyncio.timeout(ANSWER_S):
            verdict, trip = await ask(patient, sock, stream)
    except (DialError, Refusal, TlsFailed, TimeoutError, OSError) as error:
        yield failed(url, "registration", started, words_of(error))
        return
    who = printable(str(verdict.get("user", "")))
    yield Step(url, "registration", "ok", since(started), f"accepted as user {who}")
    refused = [each for each in verdict["refused"] if isinstance(each, dict)]
    for each in refused:
        clause = printable(str(each.get("reason", "")))
        code = printable(str(each.get("code", "")))
        detail = f"{printable(str(each.get('service', '')))} is refused: {clause} ({code})"
        yield Step(url, "rights", "failed", 0.0, detail, advice_for("rights", code))
    count = len(patient.registration(0).services)
    if count and not refused:
        yield Step(url, "rights", "ok", 0.0, f"{number(count, 'service')} would be taken")
    their_time = verdict.get("time")
    if isinstance(their_time, int | float):
        skew = round(their_time - time.time(), 1) + 0.0  # not -0.0
        state = "warning" if abs(skew) > SKEW_S else "ok"
        advice = advice_for("clock", "skew") if state == "warning" else NONE
        yield Step(url, "clock", state, 0.0, f"its clock is {skew:+.1f} s from ours", advice)
    yield Step(url, "round trip", "ok", trip, "from the question to its answer")


async def ask(
    patient: Patient, sock: socket.socket, stream: TlsStream | None
) -> tuple[dict[str, Any], float]:
    """The node's verdict, and the seconds that it took."""
    registration = patient.registration(0)
    proves = registration.token is not None and not patient.bearer
    binding = await bind_token(sock, stream, patient) if proves else None
    request, _ = registration_bytes(registration, patient.authority, binding)
    sent = time.perf_counter()
    await asyncio.get_running_loop().sock_sendall(sock, stream.write(request) if stream else request)
    data = b""
    while True:
        chunk = await receive(sock, stream)
        data += chunk
        verdict = read_verdict(data, ended=not chunk)
        if verdict is not None:
            return verdict, since(sent)


# --- services and ports -------------------------------------------------------------------------------


async def examine_service(service: Service) -> AsyncIterator[Step]:
    try:
        probe = Probe(service, service.health or CONNECTS)
    except (ValueError, OSError) as error:
        yield failed(str(service.match), "upstream", time.perf_counter(), str(error))
        return
    for upstream in service.upstreams:
        subject = f"{service.match} at {upstream.url}"
        started = time.perf_counter()
        try:
            backends = await backends_of(upstream)
        except OSError as error:
            yield failed(
                subject,
                "upstream",
                started,
                f"the name {upstream.host} cannot be resolved ({explain(error)})",
            )
            continue
        problems = [await probe(backend) for backend in backends]
        if all(problems):
            yield failed(subject, "upstream", started, problems[0])
        else:
            yield Step(
                subject,
                "upstream",
                "ok",
                since(started),
                "answers" if service.health else "accepts connections",
            )


async def backends_of(upstream: Upstream) -> list[Backend]:
    if upstream.path:
        return [Backend((socket.AF_UNIX, upstream.path))]
    found = await resolve(upstream.host, upstream.port)
    return [Backend((int(info[0]), info[4][0], upstream.port, upstream.host)) for info in found]


async def examine_ports(config: Config) -> AsyncIterator[Step]:
    ports: list[tuple[str, Listen]] = [(f"external port {each.name}", each) for each in config.external]
    ports += [(f"registration port {each.name}", each) for each in config.registration]
    for what, port in ports:
        started = time.perf_counter()
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(inside(port.host), port.port), PORT_S)
            writer.close()
        except (OSError, TimeoutError) as error:
            yield failed(f"{what} {port.url}", "port", started, words_of(error))
            continue
        yield Step(f"{what} {port.url}", "port", "ok", since(started), "somebody accepts there")


def inside(host: str) -> str:
    """Where a port that listens on `host` is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def words_of(error: Exception) -> str:
    if isinstance(error, DialError):
        return error.reason
    if isinstance(error, Refusal):
        answer = f"refused with {error.status} {error.code}: " if error.status else ""
        return answer + error.sentence.rstrip(".")
    if isinstance(error, TimeoutError):
        return f"no answer within {ANSWER_S:.0f} s"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno).lower()
    return printable(str(error)) or type(error).__name__
