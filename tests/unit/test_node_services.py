"""Local services: compiled targets from the configuration, and names kept resolved."""

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from _fastpath.reactor import Reactor
from broker.config.model import ExternalPort, Limits, Match, Service, Timeouts, Upstream
from broker.services import resolver as resolver_module
from broker.services.local import LocalServices, at_agent, at_port
from broker.services.resolver import Resolver
from tests.unit.node_support import run, until


def service(match: Match, *upstreams: str, **own: int) -> Service:
    kind = "tcp" if match.name else "http"
    parsed = []
    for each in upstreams:
        if each.startswith("/"):
            parsed.append(Upstream(scheme=kind, path=each))
        else:
            host, _, port = each.rpartition(":")
            parsed.append(Upstream(scheme=kind, host=host, port=int(port)))
    limits = Limits().with_own(own)
    return Service(match=match, upstreams=tuple(parsed), limits=limits, timeouts=Timeouts(), own_limits=own)


class Names:
    """A resolver of names that the test decides about."""

    def __init__(self) -> None:
        self.answers: dict[str, list[str] | OSError] = {}
        self.asked: list[str] = []

    async def __call__(self, host, *_, **__):
        self.asked.append(host)
        answer = self.answers.get(host, socket.gaierror(-2, "Name or service not known"))
        if isinstance(answer, OSError):
            raise answer
        families = [socket.AF_INET6 if ":" in each else socket.AF_INET for each in answer]
        return [
            (family, socket.SOCK_STREAM, 6, "", (each, 0))
            for family, each in zip(families, answer, strict=True)
        ]


def with_services(test: Callable[[LocalServices, Resolver, Names], Awaitable[None]], monkeypatch) -> None:
    monkeypatch.setattr(resolver_module, "REFRESH_S", 0.01)
    monkeypatch.setattr(resolver_module, "RETRY_S", (0.005, 0.01))

    async def main() -> None:
        names = Names()
        loop = asyncio.get_running_loop()
        monkeypatch.setattr(loop, "getaddrinfo", names)
        reactor = Reactor(loop)
        reactor.start()
        resolver = Resolver()
        services = LocalServices(reactor, resolver)
        try:
            await test(services, resolver, names)
        finally:
            services.close()
            await resolver.close()
            reactor.close()
        assert len(asyncio.all_tasks()) == 1

    run(main(), "asyncio")


def addresses(services: LocalServices) -> list[str]:
    return services.status()[0]["addresses"]


def test_what_needs_no_resolving(monkeypatch):
    async def test(services: LocalServices, _: Resolver, names: Names) -> None:
        services.apply(
            at_agent(
                [
                    service(Match(host="x.example"), "127.0.0.1:80", "::1:81", "/run/x.sock"),
                    service(Match(name="db"), "10.0.0.1:5432"),
                ]
            )
        )
        assert addresses(services) == ["127.0.0.1:80", "[::1]:81", "/run/x.sock"]
        assert services.table.lookup(b"x.example", b"/") is not None
        assert services.table.lookup(b"y.example", b"/") is None
        assert set(services.table.names) == {"db"}
        assert names.asked == []

    with_services(test, monkeypatch)


def test_a_name_is_resolved_and_kept_fresh(monkeypatch):
    async def test(services: LocalServices, resolver: Resolver, names: Names) -> None:
        names.answers["up.example"] = ["192.0.2.1", "2001:db8::1"]
        services.apply(at_agent([service(Match(), "up.example:80")]))
        assert addresses(services) == []
        await resolver.first_answers(5)
        assert addresses(services) == ["192.0.2.1:80", "[2001:db8::1]:80"]
        names.answers["up.example"] = ["192.0.2.7"]
        await until(lambda: addresses(services) == ["192.0.2.7:80"])

    with_services(test, monkeypatch)


def test_the_last_good_addresses_stay(monkeypatch, caplog):
    async def test(services: LocalServices, resolver: Resolver, names: Names) -> None:
        names.answers["up.example"] = ["192.0.2.1"]
        services.apply(at_agent([service(Match(), "up.example:80")]))
        await resolver.first_answers(5)
        names.answers["up.example"] = socket.gaierror(-3, "Temporary failure in name resolution")
        await until(lambda: services.status()[0]["problem"])
        assert addresses(services) == ["192.0.2.1:80"]
        names.answers["up.example"] = ["192.0.2.2"]
        await until(lambda: not services.status()[0]["problem"])
        assert addresses(services) == ["192.0.2.2:80"]

    with_services(test, monkeypatch)
    assert sum("does not resolve" in record.getMessage() for record in caplog.records) == 1


def test_a_name_that_comes_later(monkeypatch):
    async def test(services: LocalServices, resolver: Resolver, names: Names) -> None:
        services.apply(at_agent([service(Match(), "up.example:80", "127.0.0.1:81")]))
        await resolver.first_answers(5)
        assert addresses(services) == ["127.0.0.1:81"]
        assert "up.example" in services.status()[0]["problem"]
        names.answers["up.example"] = ["192.0.2.1"]
        await until(lambda: addresses(services) == ["192.0.2.1:80", "127.0.0.1:81"])

    with_services(test, monkeypatch)


@pytest.mark.parametrize("host", ["x" * 300, "\u00e4.example", "a..b"])
def test_names_that_are_none_do_no_harm(monkeypatch, host):
    async def test(services: LocalServices, resolver: Resolver, names: Names) -> None:
        names.answers[host] = OSError(22, "Invalid argument")
        services.apply(at_agent([service(Match(), f"{host}:80")]))
        await resolver.first_answers(5)
        assert addresses(services) == []

    with_services(test, monkeypatch)


def test_a_reload_keeps_what_stays(monkeypatch):
    async def test(services: LocalServices, resolver: Resolver, _: Names) -> None:
        x = service(Match(host="x.example"), "up.example:80")
        y = service(Match(host="y.example"), "127.0.0.1:80")
        services.apply(at_agent([x, y]))
        before = {target.name: target for target in services.targets()}
        moved = service(Match(host="y.example"), "127.0.0.1:81")
        services.apply(at_agent([service(Match(host="x.example"), "up.example:80", body=5), moved]))
        after = {target.name: target for target in services.targets()}
        assert after["x.example/"] is before["x.example/"]
        assert after["y.example/"] is before["y.example/"]
        assert [each.name for each in after["y.example/"].backends] == ["127.0.0.1:81"]
        services.apply(at_agent([moved]))
        assert set(resolver._names) == set()
        assert services.table.lookup(b"x.example", b"/") is None

    with_services(test, monkeypatch)


def test_a_services_own_limits_stand_over_its_ports():
    port = ExternalPort(
        scheme="http",
        tls=None,
        host="127.0.0.1",
        port=0,
        name="web",
        registration=None,
        service=None,
        limits=Limits(body=1000, waiting=7),
        timeouts=Timeouts(first_byte=5),
    )
    (placed,) = at_port([service(Match(), "127.0.0.1:80", body=5)], port)
    assert (placed.limits.body, placed.limits.waiting, placed.timeouts.first_byte) == (5, 7, 5)
