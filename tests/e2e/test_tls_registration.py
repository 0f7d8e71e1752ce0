"""Registration over TLS: tunnels, trust on both sides, and every mixture with external ports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.harness.certificates import Authority, Files
from tests.harness.client import RawClient, chunked, fetch
from tests.harness.nodes import Agent, DmzNode, Pair, Snippet, World, everything, loopback
from tests.harness.origin import pattern, sha256
from tests.harness.process import environment
from tests.harness.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def node_files(authority: Authority) -> Files:
    return authority.issue("localhost", days=90)


def registration(files: Files, **tls: Any) -> Snippet:
    listen = loopback("https", "127.0.0.1").replace("127.0.0.1", "localhost")
    return {
        "registration": [
            {"name": "green", "listen": listen, "tls": {"certificates": [files.snippet()], **tls}}
        ]
    }


def dmz_node(world: World, files: Files, mode: str = "direct", **tls: Any) -> DmzNode:
    node = world.dmz(registration(files, **tls), start=False)
    node.env = environment({"BROKER_TLS": mode})
    node.start()
    return node


def agent_node(
    world: World, dmz: DmzNode, tls: Snippet, mode: str = "direct", ready: bool = True
) -> tuple[Agent, Any]:
    origin = world.origin(f"origin-{len(world.origins)}")
    extra = {"connect": [{"url": dmz.registration_url(), "tls": tls, "tunnels": 2}]}
    agent = world.agent(dmz.registration_url(), [everything(origin)], 2, extra, start=False)
    agent.env = environment({"BROKER_TLS": mode})
    agent.start(ready)
    return agent, origin


@pytest.mark.parametrize("mode", ["direct", "methods"])
def test_a_tunnel_over_tls(world: World, authority: Authority, node_files: Files, mode: str) -> None:
    dmz = dmz_node(world, node_files, mode)
    agent, origin = agent_node(world, dmz, {"ca": str(authority.ca)}, mode)
    pair = Pair(dmz, agent, origin)
    dmz.wait_agents(2)
    body = pattern(20 * MIB, seed=7)
    origin.on("/large", lambda c, _: c.answer(body=body))
    with pair.client() as client:
        for number in range(20):
            assert client.request(target=f"/{number}").status == 200
        answer = client.request(target="/large", digest=True)
        assert (answer.size, answer.digest) == (len(body), sha256(body))
        client.send_request("PUT", "/upload", [("Transfer-Encoding", "chunked")])
        client.send(chunked([body[at : at + 70_001] for at in range(0, len(body), 70_001)]))
        assert json.loads(client.read_response().body)["sha256"] == sha256(body)
    pair.assert_alive()


def refused_because(agent: Agent, words: str) -> None:
    assert words in agent.process.wait_for_line(r"no tunnel to .*")[0]


def test_what_an_agent_does_not_believe(
    world: World, authority: Authority, node_files: Files, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path, "strangers")
    dmz = dmz_node(world, node_files)
    stranger, _ = agent_node(world, dmz, {"ca": str(strangers.ca)}, ready=False)
    refused_because(stranger, "the certificate is not trusted")
    system, _ = agent_node(world, dmz, {}, ready=False)
    refused_because(system, "the certificate is not trusted")
    other = dmz_node(world, authority.issue("other.example", days=90))
    misnamed, _ = agent_node(world, other, {"ca": str(authority.ca)}, ready=False)
    refused_because(misnamed, "the certificate is valid, but not for localhost (other.example)")
    other.process.wait_for_line(
        "failed: the other side does not accept our certificate: it may be for another name"
    )
    assert not dmz.status()["tunnels"] and not other.status()["tunnels"]


def test_agents_with_certificates(world: World, authority: Authority, node_files: Files) -> None:
    dmz = dmz_node(world, node_files, client={"mode": "require", "ca": str(authority.ca)})
    files = authority.issue(subject="agent-1", days=90)
    trust = {"ca": str(authority.ca)}
    agent_node(world, dmz, {**trust, "cert": str(files.cert), "key": str(files.key)})
    dmz.wait_agents(2)
    agent_node(world, dmz, trust, ready=False)
    dmz.process.wait_for_line("TLS with .* failed: the other side showed no certificate")
    assert len(dmz.status()["tunnels"]) == 2


def test_plain_against_tls(world: World, authority: Authority, node_files: Files) -> None:
    """Either way round both sides say what is wrong."""
    dmz = dmz_node(world, node_files)
    answer = fetch(("localhost", dmz.registration_at()[1]), "/tunnel")
    assert (answer.status, answer.headers["Broker-Error"]) == (400, "bad-request")
    assert "https://" in json.loads(answer.body)["detail"]
    plain = world.dmz()
    url = plain.registration_url().replace("http://127.0.0.1", "https://localhost")
    agent = world.agent(url, [{"match": "/", "upstream": world.origin().url}], start=False)
    agent.start(ready=False)
    refused_because(agent, "does it speak TLS?")


def test_silence_garbage_and_pieces(world: World, authority: Authority, node_files: Files) -> None:
    dmz = dmz_node(world, node_files)
    port = ("localhost", dmz.registration_at()[1])
    with RawClient(port) as silent, RawClient(port) as garbage:
        silent.send(b"\x16\x03\x01")
        garbage.send(b"\x16\x03\x01\x02\x00" + b"\xff" * 600)
        agent_node(world, dmz, {"ca": str(authority.ca)})
        dmz.wait_agents(2)
        wait_until(lambda: "failed" in dmz.process.output, "the garbage is spoken of")


def test_a_reload_changes_the_certificate(world: World, authority: Authority, node_files: Files) -> None:
    dmz = dmz_node(world, node_files)
    _, origin = agent_node(world, dmz, {"ca": str(authority.ca)})
    dmz.wait_agents(2)
    dmz.config["registration"][0]["tls"]["certificates"] = [authority.issue("localhost", days=200).snippet()]
    dmz.write(dmz.config)
    assert dmz.admin_post("/reload").status == 200
    agent_node(world, dmz, {"ca": str(authority.ca)})
    dmz.wait_agents(4)
    assert origin is not None
