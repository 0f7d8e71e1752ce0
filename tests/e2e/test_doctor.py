"""broker doctor: the mistakes that it knows are made; it must name step, cause and what mends them."""

import json
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.harness.certificates import Authority
from tests.harness.nodes import DmzNode, Snippet, World, loopback
from tests.harness.origin import Connection
from tests.harness.ports import free_port
from tests.harness.process import run_broker
from tests.harness.proxies import Tinyproxy
from tests.harness.servers import Nginx


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def doctor(*args: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """The exit code, and by name the last of each kind of step."""
    code, out, err = run_broker("doctor", "--json", *args)
    steps = [json.loads(line) for line in out.splitlines()]
    assert steps, err
    return code, {step["step"]: step for step in steps}


def failing(step: str, *args: str) -> dict[str, Any]:
    """The one step that fails, and fails with advice."""
    code, steps = doctor(*args)
    assert code == 1, steps
    assert [name for name, each in steps.items() if each["state"] == "failed"] == [step], steps
    assert steps[step]["cause"]
    assert steps[step]["mend"]
    return steps[step]


def green(world: World, url: str, service: str = "", **connect: Any) -> str:
    """An agent's configuration file."""
    origin = world.origin(f"o{len(world.origins)}")
    path = world.directory / f"green-{len(world.origins)}.yaml"
    config: Snippet = {
        "connect": [{"url": url, **connect}],
        "services": [{"match": service or "orders.example", "upstream": origin.url}],
    }
    path.write_text(yaml.safe_dump(config))
    return str(path)


def credentials(directory: Path, name: str) -> tuple[str, str]:
    """A token's file and its hash."""
    file = directory / f"{name}.token"
    code, out, _ = run_broker("token", "new", "--out", str(file))
    assert code == 0
    return str(file), out.strip()


def with_users(world: World, **users: str) -> DmzNode:
    """A DMZ node whose users may offer NAME.example, by their token's hash."""
    return world.dmz(
        {
            "users": [
                {"name": name, "tokens": [digest], "may": {"services": [f"{name}.example", "both.example"]}}
                for name, digest in users.items()
            ]
        }
    )


@pytest.mark.quick
def test_all_is_well(world: World) -> None:
    token, digest = credentials(world.directory, "orders")
    dmz = with_users(world, orders=digest)
    code, steps = doctor(green(world, dmz.registration_url(), token_file=token))
    assert code == 0, steps
    names = ["name", "route", "tcp", "registration", "rights", "clock", "round trip", "upstream"]
    assert list(steps) == names
    assert {each["state"] for each in steps.values()} == {"ok"}
    assert steps["registration"]["detail"] == "accepted as user orders"
    assert 0 < steps["round trip"]["ms"] < 10_000
    assert dmz.status()["tunnels"] == [], "it only asked"
    code, out, _ = run_broker("doctor", dmz.registration_url(), "--token-file", token)
    assert code == 0
    assert "round trip" in out
    assert "\x1b" not in out, "no colours where there is no terminal"


def test_names_and_ports(world: World) -> None:
    step = failing("name", "http://no-such-host.invalid:7000")
    assert "cannot be resolved" in step["detail"]
    step = failing("tcp", f"http://127.0.0.1:{free_port()}")
    assert "refused" in step["detail"]
    assert "broker serve" in step["mend"]


def test_credentials_and_rights(world: World) -> None:
    token, digest = credentials(world.directory, "orders")
    other_token, other_digest = credentials(world.directory, "other")
    unknown, _ = credentials(world.directory, "unknown")
    dmz = with_users(world, orders=digest, other=other_digest)
    url = dmz.registration_url()
    for wrong in ({}, {"token_file": unknown}):
        step = failing("registration", green(world, url, **wrong))
        assert "401 unauthenticated" in step["detail"]
        assert "token_file" in step["mend"]
    step = failing("registration", green(world, url, "else.example", token_file=token))
    assert "403 forbidden" in step["detail"]
    assert "may" in step["mend"]
    origin = world.origin("taken")
    extra = {"connect": [{"url": url, "tunnels": 1, "token_file": other_token}]}
    world.agent(url, [{"match": "both.example", "upstream": origin.url}], 1, extra)
    step = failing("registration", green(world, url, "both.example", token_file=token))
    assert "409 conflict" in step["detail"]
    assert "another user" in step["cause"]


@pytest.mark.timeout(120)
def test_tls(world: World, authority: Authority) -> None:
    good, expired, elsewhere = (
        authority.issue("localhost"),
        authority.issue("localhost", days=-1),
        authority.issue("b.example"),
    )

    def node(files: Any, **more: Any) -> str:
        listen = loopback("https").replace("127.0.0.1", "localhost")
        port = {"name": "green", "listen": listen, "tls": {"certificates": [files.snippet()], **more}}
        return world.dmz({"registration": [port]}).registration_url()

    url, ca = node(good), {"tls": {"ca": str(authority.ca)}}
    code, steps = doctor(green(world, url, **ca))
    assert code == 0
    assert "TLSv1.3" in steps["tls"]["detail"]
    assert "CA" in failing("tls", green(world, url))["cause"]
    assert "another name" in failing("tls", green(world, node(elsewhere), **ca))["cause"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(expired.cert, expired.key)  # a node would refuse to start with it
    assert "clock" in failing("tls", green(world, world.origin("old", tls=context).url, **ca))["cause"]
    demanding = node(good, client={"mode": "require", "ca": str(authority.ca)})
    assert "cert" in failing("registration", green(world, demanding, **ca))["mend"]
    # Plain against TLS, either way.
    assert "https://" in failing("registration", url.replace("https", "http"))["mend"]
    plain = world.dmz(name="plain").registration_url()
    assert "http://" in failing("tls", green(world, plain.replace("http", "https"), **ca))["mend"]


def test_what_listens_there_is_something_else(world: World) -> None:
    origin = world.origin()
    assert "something else" in failing("registration", origin.url)["cause"]
    dmz = world.dmz()
    external = "http://{}:{}".format(*dmz.external)
    assert "something else" in failing("registration", external)["cause"]


def test_another_version(world: World) -> None:
    """A node of another protocol version answers 426."""
    origin = world.origin()

    def answer(connection: Connection, _head: object) -> bool:
        fields = [("Broker-Error", "unsupported"), ("Broker-Version", "2"), ("Upgrade", "broker-tunnel")]
        connection.answer(426, b'{"detail": "This node speaks version 2."}', fields, "Upgrade Required")
        connection.close()
        return True

    origin.on("/tunnel", answer)
    assert "versions" in failing("registration", origin.url)["cause"]


def test_clocks_that_differ(world: World) -> None:
    origin = world.origin()

    def answer(connection: Connection, _head: object) -> None:
        verdict = {"node": "far", "user": "anonymous", "time": time.time() + 3600, "refused": []}
        connection.answer(200, json.dumps(verdict).encode(), [("Content-Type", "application/json")])

    origin.on("/tunnel", answer)
    code, steps = doctor(origin.url)
    assert code == 0, "a warning"
    assert steps["clock"]["state"] == "warning"
    assert "clock" in steps["clock"]["cause"]


def test_a_proxy_in_between(world: World) -> None:
    token, digest = credentials(world.directory, "orders")
    dmz = with_users(world, orders=digest)
    proxy = Tinyproxy(world.directory / "proxy", ("user", "secret"))
    try:
        url = dmz.registration_url().replace("127.0.0.1", "localhost")
        file = green(world, url, token_file=token, proxy={"url": proxy.url})
        step = failing("proxy", file)
        assert "login" in step["cause"]
        assert "credentials" in step["mend"]
    finally:
        proxy.process.kill()


def test_an_upstream_that_is_down(world: World) -> None:
    dmz = world.dmz()
    path = world.directory / "down.yaml"
    upstream = f"http://127.0.0.1:{free_port()}"
    path.write_text(
        yaml.safe_dump({"connect": [{"url": dmz.registration_url()}], "services": [{"upstream": upstream}]})
    )
    step = failing("upstream", str(path))
    assert "refused" in step["detail"]


def test_a_dmz_node(world: World) -> None:
    dmz = world.dmz()
    step = failing("agents", str(dmz.path))
    assert step["detail"] == "no agent is registered at green"
    origin = world.origin()
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": origin.url}])
    code, steps = doctor(str(dmz.path))
    assert code == 0
    assert list(steps) == ["port", "node", "agents"]
    assert re.fullmatch(r"1 tunnel of \S+ \(anonymous\)", steps["agents"]["detail"])
    assert "is ready, 1 process, up for" in steps["node"]["detail"]
    dmz.stop()
    code, steps = doctor(str(dmz.path))
    assert code == 1
    assert steps["port"]["state"] == steps["node"]["state"] == "failed"
    assert "running" in steps["node"]["cause"]


def test_a_dmz_node_whose_admin_port_asks_who_it_is(world: World) -> None:
    """Over https, too; without a credential the rest is looked at all the same."""
    token, digest = credentials(world.directory, "ops")
    authority = Authority(world.directory)
    tls = {"certificates": [authority.issue("localhost", days=90).snippet()]}
    listen = loopback("https", "localhost")
    users = [{"name": "ops", "tokens": [digest], "may": {"admin": "read"}}]
    dmz = world.dmz({"admin": {"listen": listen, "auth": "token", "tls": tls}, "users": users}, start=False)
    dmz.start(ready=False)
    dmz.process.wait_for_line(r"\bready\b")
    _, steps = doctor(str(dmz.path))
    assert steps["node"]["state"] == "warning"
    assert "--token-file" in steps["node"]["mend"]
    _, steps = doctor(str(dmz.path), "--token-file", str(token))
    assert steps["node"]["state"] == "failed"
    assert "--ca" in steps["node"]["mend"]
    opened = ("--token-file", str(token), "--ca", str(authority.ca))
    for more in ((), ("--admin", listen)):
        _, steps = doctor(str(dmz.path), *opened, *more)
        assert (steps["node"]["state"], steps["agents"]["state"]) == ("ok", "failed")
    other, _ = credentials(world.directory, "other")
    _, steps = doctor(str(dmz.path), "--token-file", str(other), "--ca", str(authority.ca))
    assert "refused" in steps["node"]["detail"]


def test_a_dmz_node_says_why_agents_are_refused(world: World) -> None:
    """What the agent's doctor is told, seen from the other side."""
    token, digest = credentials(world.directory, "orders")
    unknown, _ = credentials(world.directory, "unknown")
    dmz = with_users(world, orders=digest)
    url = dmz.registration_url()
    for offered, given, code, cause in (
        ("orders.example", unknown, "unauthenticated", "no user has"),
        ("else.example", token, "forbidden", "may not"),
    ):
        origin = world.origin(f"at-{code}")
        extra = {"connect": [{"url": url, "tunnels": 1, "token_file": given}]}
        agent = world.agent(url, [{"match": offered, "upstream": origin.url}], 1, extra, start=False)
        agent.start(ready=False)
        agent.process.wait_for_line(code)
        step = failing("agents", str(dmz.path))
        assert f" {code}" in step["detail"]
        if code == "unauthenticated":
            assert cause in step["cause"]
        agent.process.kill()


def test_a_dmz_node_with_a_certificate_that_ends(world: World, authority: Authority) -> None:
    soon = authority.issue("localhost", days=3)
    tls = {"certificates": [soon.snippet()]}
    dmz = world.dmz(
        {
            "external": [{"name": "web", "listen": loopback("https"), "tls": tls}],
            "services": [{"upstream": world.origin().url}],
        }
    )
    _, steps = doctor(str(dmz.path))
    assert steps["certificates"]["state"] == "warning"
    assert re.search(r"expires in [23] days", steps["certificates"]["detail"])
    assert "broker reload" in steps["certificates"]["mend"]


def test_a_dmz_node_whose_clients_fail(world: World) -> None:
    pair = world.pair()
    pair.origin.close()
    assert pair.fetch("/").status == 502
    code, steps = doctor(str(pair.dmz.path))
    assert code == 0, "a warning"
    assert (
        steps["failures"]["detail"]
        == "1 request ended with upstream-unreachable at / (the upstream refused the connection)"
    )
    assert "agent's machine" in steps["failures"]["mend"]


def test_a_proxy_in_between_that_does_not_pass_upgrades(world: World) -> None:
    """An ordinary reverse proxy: it speaks HTTP/1.0 to the node, and drops Upgrade."""
    dmz = world.dmz()
    proxy = Nginx(world.directory / "between", f"location / {{ proxy_pass {dmz.registration_url()}; }}")
    try:
        step = failing("registration", proxy.url)
        assert "in between" in step["cause"]
        assert "Upgrade" in step["mend"]
    finally:
        proxy.close()


def test_what_is_printed(world: World) -> None:
    """Each step a line, with its time; below a failed one the cause and what mends it."""
    code, out, err = run_broker("doctor", f"http://127.0.0.1:{free_port()}")
    assert (code, err) == (1, "")
    lines = out.splitlines()
    assert re.fullmatch(r"  ok +name +\d+\.\d ms  127\.0\.0\.1 is an address", lines[1])
    assert re.fullmatch(r"  failed +tcp +\d+\.\d ms  connection refused", lines[3])
    assert lines[4].strip().startswith("likely: nothing listens at that port")
    assert lines[5].strip().startswith("mend:   is `broker serve` up there")
    assert len(lines) == 6
