"""Agents that reach their DMZ node through an HTTP proxy: tinyproxy, with and without a login."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from tests.harness.certificates import Authority
from tests.harness.nodes import Agent, DmzNode, Pair, Snippet, World, everything, loopback
from tests.harness.origin import pattern
from tests.harness.process import environment, run_broker
from tests.harness.proxies import Tinyproxy

MIB = 1 << 20
LOGIN = ("agent", "hush-hush")


def tinyproxy(world: World, login: tuple[str, str] | None = None, denied: str = "") -> Tinyproxy:
    proxy = Tinyproxy(world.directory / f"proxy-{len(world.processes)}", login, denied)
    world.process(proxy.process)
    return proxy


def agent_through(world: World, dmz: DmzNode, proxy: Snippet, ready: bool = True, **entry: object) -> Agent:
    url = dmz.registration_url()
    agent = world.agent(
        url,
        [everything(world.origin(f"origin-{len(world.origins)}"))],
        extra={"connect": [{"url": url, "tunnels": 1, "proxy": proxy, **entry}]},
        start=False,
    )
    agent.start(ready)
    return agent


def credentials(world: World, text: str) -> str:
    file = world.directory / "proxy.credentials"
    file.write_text(f"{text}\n")
    file.chmod(0o600)
    return file.name


def refusal(agent: Agent) -> str:
    return agent.process.wait_for_line(r"no tunnel to .*")[0]


def assert_pair(agent: Agent, dmz: DmzNode, world: World) -> None:
    origin = world.origins[-1]
    body = pattern(2 * MIB, seed=3)
    origin.on("/large", lambda c, _: c.answer(body=body))
    pair = Pair(dmz, agent, origin)
    assert pair.fetch("/large").body == body
    pair.assert_alive()


@pytest.mark.parametrize("login", [None, LOGIN], ids=["open", "login"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_tunnel_through_a_proxy(
    world: World, tmp_path: Path, scheme: str, login: tuple[str, str] | None
) -> None:
    proxy = tinyproxy(world, login)
    authority = Authority(tmp_path)
    tls: Snippet = {"certificates": [authority.issue("localhost", days=90).snippet()]}
    listen = {"name": "green", "listen": loopback(scheme, "localhost")}
    dmz = world.dmz({"registration": [{**listen, "tls": tls} if scheme == "https" else listen]})
    through = {"url": proxy.url}
    if login:
        through["credentials_file"] = credentials(world, ":".join(login))
    entry = {"tls": {"ca": str(authority.ca)}} if scheme == "https" else {}
    agent = agent_through(world, dmz, through, **entry)
    assert_pair(agent, dmz, world)
    port = dmz.registration_at()[1]
    assert f"CONNECT localhost:{port} HTTP/1.1" in proxy.log
    assert f"through the proxy 127.0.0.1:{proxy.port}" in agent.process.output
    assert LOGIN[1] not in agent.process.output


def test_what_a_proxy_refuses_is_said(world: World) -> None:
    dmz = world.dmz()
    proxy = tinyproxy(world, LOGIN)
    nobody = agent_through(world, dmz, {"url": proxy.url}, ready=False)
    assert f"the proxy 127.0.0.1:{proxy.port} wants a user name and a password" in refusal(nobody)
    wrong = {"url": proxy.url, "credentials_file": credentials(world, "agent:wrong-guess")}
    stranger = agent_through(world, dmz, wrong, ready=False)
    assert "does not accept the user name and password" in refusal(stranger)
    assert "wrong-guess" not in stranger.process.output
    strict = tinyproxy(world, denied=r"127\.0\.0\.1")
    denied = agent_through(world, dmz, {"url": strict.url}, ready=False)
    assert f"forbids connections to 127.0.0.1:{dmz.registration_at()[1]}" in refusal(denied)
    nothing = loopback()
    absent = agent_through(world, dmz, {"url": nothing}, ready=False)
    assert f"the proxy {nothing.removeprefix('http://')}: connection refused" in refusal(absent)
    no_proxy = agent_through(world, dmz, {"url": f"http://127.0.0.1:{dmz.external[1]}"}, ready=False)
    assert re.search(r"answered CONNECT .* with status 4\d\d|does not answer like|forbids", refusal(no_proxy))
    assert not dmz.status()["tunnels"]


def test_a_dmz_node_that_is_down_behind_a_proxy(world: World) -> None:
    dmz = world.dmz(start=False)
    agent = agent_through(world, dmz, {"url": tinyproxy(world).url}, ready=False)
    assert f"can't reach 127.0.0.1:{dmz.registration_at()[1]}" in refusal(agent)
    dmz.start()
    dmz.wait_agents(1)


def test_the_environment_names_the_proxy(world: World) -> None:
    """For what is not on loopback; a name of this machine isn't, whatever it resolves to."""
    name = socket.gethostname().lower()
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        pytest.skip("this machine's name does not resolve")
    proxy = tinyproxy(world, LOGIN)
    dmz = world.dmz(start=False)
    dmz.config["registration"][0]["listen"] = loopback(host="0.0.0.0")
    code, hashed, _ = run_broker("token", "new", "--out", "agent.token", cwd=world.directory)
    assert code == 0
    dmz.config["users"] = [{"name": "team", "tokens": [hashed.strip()], "may": {"services": ["*"]}}]
    dmz.write(dmz.config)
    dmz.start()
    url = f"http://{name}:{dmz.registration_at()[1]}"
    agent = world.agent(
        url,
        [everything(world.origin())],
        extra={"connect": [{"url": url, "tunnels": 1, "token_file": "agent.token"}]},
        start=False,
    )
    login = ":".join(LOGIN)
    agent.env = environment(
        {"HTTP_PROXY": proxy.url.replace("//", f"//{login}@"), "NO_PROXY": "other.example"}
    )
    agent.start()
    assert_pair(agent, dmz, world)
    assert f"CONNECT {name}:{dmz.registration_at()[1]} HTTP/1.1" in proxy.log
    assert LOGIN[1] not in agent.process.output
    agent.stop()
    before = proxy.log
    agent.env = environment({"HTTP_PROXY": proxy.url, "NO_PROXY": name})
    agent.start()
    dmz.wait_agents(1)
    assert proxy.log == before
