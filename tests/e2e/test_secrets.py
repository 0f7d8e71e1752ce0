"""Secrets stay where they are: in no log at any level, no answer, no status, no command line, no message."""

from __future__ import annotations

import base64
import hashlib
import json
import urllib.parse
from pathlib import Path

from broker.config.model import Secret
from broker.config.passwords import format_password_hash, hash_password
from tests.harness.certificates import Authority
from tests.harness.client import RawClient, fetch
from tests.harness.nodes import Agent, DmzNode, Snippet, World, agent_config, dmz_config, everything, loopback
from tests.harness.process import family, run_broker
from tests.harness.waiting import wait_until

AGENT = "broker_agent-token-that-is-kept-4711"
CLIENT = "broker_client-token-that-is-kept-4712"
WRONG = "broker_wrong-token-that-is-kept-4713"
PASSWORD = "a password: that is kept 4714"
GUESS = "a guess: that is kept 4715"
MISPLACED = "broker_misplaced-token-that-is-kept-4716"
QUERY = "a-query-that-is-kept-4717"


class Loud(DmzNode):
    flags = ("--workers", "2", "--log-level", "debug")  # type: ignore[assignment]


class LoudAgent(Agent):
    flags = ("--log-level", "debug")


def spellings(secret: str) -> set[str]:
    """As it may be written by accident."""
    data = secret.encode()
    encoded = (base64.b64encode(data), base64.urlsafe_b64encode(data), data.hex().encode())
    quoted = (urllib.parse.quote(secret), json.dumps(secret)[1:-1], secret)
    return {*quoted, *(each.decode().rstrip("=") for each in encoded)}


def sha256(token: str) -> str:
    return "sha256:" + hashlib.sha256(token.encode()).hexdigest()


def kept(directory: Path, name: str, text: str) -> str:
    path = directory / name
    path.write_text(text + "\n")
    path.chmod(0o600)
    return str(path)


def loud_pair(world: World, authority: Authority) -> tuple[DmzNode, Agent]:
    """Everything that has secrets: tokens, passwords, keys, at debug level, with access logs."""
    here = world.directory
    password = format_password_hash(hash_password(Secret(PASSWORD)))
    users = [
        {"name": "agent", "tokens": [sha256(AGENT)], "may": {"services": ["*"], "call": []}},
        {"name": "caller", "tokens": [sha256(CLIENT)], "passwords": [password], "may": {"call": ["*"]}},
    ]
    tls = {"tls": {"certificates": [authority.issue("localhost", days=90).snippet()]}}
    more: Snippet = {
        "external": [{"name": "web", "listen": loopback(), "auth": ["token", "basic"]}],
        "registration": [{"name": "green", "listen": loopback("https", "localhost"), **tls}],
        "users": users,
        "access_log": {"path": str(here / "access.log"), "query": False},
    }
    dmz = Loud(here, "dmz", dmz_config(more))
    world.nodes.append(dmz)
    dmz.start()
    origin = world.origin()
    token = {"token_file": kept(here, "agent.token", AGENT), "tls": {"ca": str(authority.ca)}}
    agent = LoudAgent(here, "agent", agent_config([], [everything(origin)]))
    agent.write({**agent.config, "connect": [{"url": dmz.registration_url(), "tunnels": 2, **token}]})
    world.nodes.append(agent)
    agent.start()
    dmz.wait_agents(2)
    return dmz, agent


def authorization(kind: str, text: str) -> tuple[str, str]:
    return "Authorization", f"{kind} " + (
        base64.b64encode(text.encode()).decode() if kind == "Basic" else text
    )


def test_nothing_tells_a_secret(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    dmz, agent = loud_pair(world, authority)
    told: list[str] = []
    for kind, text, status in [
        ("Bearer", CLIENT, 200), ("Bearer", WRONG, 401), ("Basic", f"caller:{PASSWORD}", 200),
        ("Basic", f"caller:{GUESS}", 401), ("Basic", f"nobody:{GUESS}", 401), ("Bearer", AGENT, 403),
    ]:  # fmt: skip
        response = fetch(dmz.external, f"/x?token={QUERY}", fields=[authorization(kind, text)])
        assert response.status == status
        if status != 200:  # else it is what the service has been sent
            told.append(str(response))
    with RawClient(dmz.external) as client:  # what is not even HTTP
        client.send(f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {CLIENT}\r\n\r\n".encode())
        told.append(client.read_to_end().decode("latin-1"))
    for path in ("/status", "/metrics", "/"):
        told += [fetch(node.admin, path, host="localhost").body.decode() for node in (dmz, agent)]
    told += a_file_with_mistakes(world, dmz)
    told += commands(world, dmz, agent)
    told += [
        Path(f"/proc/{pid}/cmdline").read_text() for pid in (*family(dmz.process.pid), agent.process.pid)
    ]
    for node in (agent, dmz):
        node.stop()
    told += [world.output, (world.directory / "access.log").read_text()]
    everything_told = "\n".join(told)
    assert "debug" in everything_told
    assert "caller" in everything_told
    keys = [path.read_text().splitlines()[1] for path in tmp_path.glob("*.key")]
    assert keys
    for secret in (AGENT, CLIENT, WRONG, PASSWORD, GUESS, MISPLACED, QUERY, *keys):
        found = [each for each in spellings(secret) if each in everything_told]
        assert not found, (secret, [line for line in everything_told.splitlines() if found[0] in line][:3])


def a_file_with_mistakes(world: World, dmz: DmzNode) -> list[str]:
    """A token where its hash belongs, and a key that does not exist: refused by a reload, and by check."""
    good = dmz.config
    users = [*good["users"], {"name": "x", "tokens": [MISPLACED], "passwords": [GUESS]}]
    dmz.write({**good, "users": users, "admin": {**good["admin"], "token": MISPLACED}})
    answer = dmz.admin_post("/reload")
    assert answer.status != 200
    code, out, errors = run_broker("check", str(dmz.path), cwd=world.directory)
    assert code == 2
    dmz.write(good)
    assert dmz.admin_post("/reload").status == 200
    wait_until(dmz.ready, "the node goes on")
    return [answer.body.decode(), out, errors]


def commands(world: World, dmz: DmzNode, agent: Agent) -> list[str]:
    told = []
    admin = "http://{}:{}".format(*dmz.admin)
    wrong = kept(world.directory, "wrong.token", WRONG)
    for words in (
        ("check", str(dmz.path)),
        ("status", "--admin", admin),
        ("status", "--admin", admin, "--json", "--token-file", wrong),
        ("doctor", str(agent.path)),
        ("doctor", str(dmz.path)),
        ("tls", "show", str(dmz.path)),
    ):
        _, out, errors = run_broker(*words, cwd=world.directory)
        told += [out, errors]
    return told
