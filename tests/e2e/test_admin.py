"""The admin port: who may see and steer a node, over TLS and not, and what other sites' pages can't do."""

import json
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from broker.config.model import Secret
from broker.config.tokens import new_token, token_hash
from tests.harness.certificates import Authority, Files
from tests.harness.client import RawClient, fetch, host_of
from tests.harness.nodes import DmzNode, World, loopback, merge
from tests.harness.ports import free_port
from tests.harness.process import broker, run_broker
from tests.harness.waiting import wait_equal, wait_until

READER, OPERATOR, STRANGER = new_token(), new_token(), new_token()


def user(name: str, token: Secret, **may: Any) -> dict[str, Any]:
    return {"name": name, "tokens": [token_hash(token)], "may": may}


USERS = [
    user("prometheus", READER, admin="read"),
    user("ops", OPERATOR, admin="control"),
    user("orders", STRANGER, services=["orders.example"]),
]


def open_port(scheme: str = "http") -> str:
    """On every address, as an operator's machine reaches it."""
    return f"{scheme}://0.0.0.0:{free_port()}"


def guarded(world: World, admin: dict[str, Any], **more: Any) -> DmzNode:
    """A node whose admin port asks for credentials."""
    node: DmzNode = world.dmz(merge({"admin": admin, "users": USERS}, more), start=False)
    node.start(ready=False)
    node.process.wait_for_line(r"\bready\b")
    return node


@contextmanager
def client(node: DmzNode, token: Secret | None = None, **more: Any) -> Iterator[httpx.Client]:
    url = node.config["admin"]["listen"].replace("0.0.0.0", "localhost")
    headers = {"Authorization": f"Bearer {token.reveal()}"} if token else {}
    with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=20, **more) as made:
        yield made


def token_file(directory: Path, token: Secret) -> str:
    path = directory / f"{token.reveal()[-6:]}.token"
    path.write_text(token.reveal() + "\n")
    path.chmod(0o600)
    return str(path)


# --- who gets in -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
def test_what_each_user_may(world: World, workers: int) -> None:
    node = guarded(world, {"listen": open_port(), "auth": "token"}, workers=workers)
    seen = {}
    for name, token in {"nobody": None, "orders": STRANGER, "prometheus": READER, "ops": OPERATOR}.items():
        with client(node, token) as at:
            seen[name] = [at.get(path).status_code for path in ("/healthz", "/readyz", "/status", "/metrics")]
            seen[name].append(at.post("/reload").status_code)
    assert seen == {
        "nobody": [200, 200, 401, 401, 401],
        "orders": [200, 200, 403, 403, 403],
        "prometheus": [200, 200, 200, 200, 403],
        "ops": [200, 200, 200, 200, 200],
    }
    with client(node, new_token()) as at:
        answer = at.get("/status")
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, 'Bearer realm="broker"')
    assert answer.json()["accepts"] == ["token"]
    node.process.wait_for_line("the admin port: 127.0.0.1 came with an unknown token")
    node.process.wait_for_line("the admin port: prometheus at 127.0.0.1 may not POST /reload")
    node.process.wait_for_line("reload, asked for by ops at 127.0.0.1")
    with client(node, OPERATOR) as at:
        assert at.post("/drain").status_code == 202
    node.process.expect_exit(0)
    node.process.wait_for_line("asked for at the admin port by ops at 127.0.0.1")
    assert OPERATOR.reveal() not in node.process.output


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_changes_who_may(world: World, workers: int) -> None:
    """The user and the addresses; the file may take the operator's own right away."""
    node = guarded(world, {"listen": loopback(), "auth": "token"}, workers=workers)
    with client(node, OPERATOR) as at:
        assert at.get("/status").status_code == 200
        node.write(merge(node.config, {"users": [user("ops", OPERATOR, admin="read"), USERS[0]]}))
        assert at.post("/reload").status_code == 200
        assert (at.post("/reload").status_code, at.get("/status").status_code) == (403, 200)
    with client(node, READER) as at:
        node.write(merge(node.config, {"admin": {"deny": ["127.0.0.1"]}}))
        node.process.signal(1)
        wait_equal(lambda: at.get("/status").status_code, 403, "the address is refused")


def test_without_credentials_it_is_steered_from_its_own_machine(world: World) -> None:
    """--insecure: everybody sees, nobody from outside steers."""
    outside = own_address()
    node = world.dmz({"admin": {"listen": open_port()}, "workers": 1}, start=False)
    code, _, said = run_broker("serve", str(node.path))
    assert code == 2
    assert "0.0.0.0 is not a loopback address and the admin port asks for no credentials" in said
    process = world.process(broker("serve", str(node.path), "--insecure"))
    process.wait_for_line(r"\bready\b")
    far, near = (outside, node.admin[1]), ("127.0.0.1", node.admin[1])
    assert fetch(far, "/status", host=host_of(far)).status == 200
    answer = fetch(far, "/reload", "POST", body=b"", host=host_of(far))
    assert answer.status == 403
    assert b"steered from its own machine only" in answer.body
    assert fetch(near, "/reload", "POST", body=b"", host=host_of(near)).status == 200


def own_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but loopback")
        return str(sock.getsockname()[0])


def test_what_would_let_nobody_in_is_refused(world: World) -> None:
    agents = {"users": [user("orders", STRANGER, services=["*"])]}
    node = world.dmz(
        {"admin": {"listen": open_port(), "auth": ["token", "certificate"]}, **agents}, start=False
    )
    code, _, said = run_broker("check", str(node.path))
    assert code == 2
    assert "admin.auth: certificate needs a port that asks for them" in said
    assert (
        "admin.auth: nobody could get in: no user has tokens or certificates and may: {admin: read}" in said
    )


# --- over TLS ----------------------------------------------------------------------------------------


def tls_of(files: Files, **client: Any) -> dict[str, Any]:
    return (
        {"certificates": [files.snippet()], "client": client}
        if client
        else {"certificates": [files.snippet()]}
    )


def test_over_tls_by_certificate(world: World, tmp_path: Path) -> None:
    """Who shows the operator's certificate gets in; a revoked one, and a foreign name, do not."""
    authority = Authority(tmp_path)
    server, ops, lost = (
        authority.issue("localhost"),
        authority.issue(subject="ops"),
        authority.issue(subject="ops"),
    )
    rule = {"ca": str(authority.ca), "subject": "CN=ops"}
    tls = tls_of(server, mode="request", ca=str(authority.ca), crl=str(authority.crl(lost)))
    people = {"users": [{"name": "ops", "certificates": [rule], "may": {"admin": "control"}}]}
    node = world.dmz(
        {"admin": {"listen": open_port("https"), "auth": "certificate", "tls": tls}, **people}, start=False
    )
    node.start(ready=False)
    node.process.wait_for_line(r"\bready\b")
    believes = ssl.create_default_context(cafile=authority.ca)
    with client(node, verify=believes) as at:
        assert at.get("/readyz").status_code == 200
        answer = at.get("/status")
        assert (answer.status_code, answer.json()["accepts"]) == (401, ["certificate"])
    believes.load_cert_chain(ops.cert, ops.key)
    with client(node, verify=believes) as at:
        status = at.get("/status")
        assert [each["file"] for each in status.json()["certificates"] if each["kind"] == "certificate"] == [
            str(server.cert)
        ]
        assert at.get("/status", headers={"Host": "rebound.example"}).status_code == 403
        assert at.post("/reload").status_code == 200
    revoked = ssl.create_default_context(cafile=authority.ca)
    revoked.load_cert_chain(lost.cert, lost.key)
    with client(node, verify=revoked) as at, pytest.raises(httpx.TransportError):
        at.get("/status")


@pytest.mark.parametrize("workers", [1, 2])
def test_a_reload_reads_its_certificates_again(world: World, tmp_path: Path, workers: int) -> None:
    authority = Authority(tmp_path)
    first, second = authority.issue("localhost"), authority.issue("localhost")
    node = guarded(
        world, {"listen": open_port("https"), "auth": "token", "tls": tls_of(first)}, workers=workers
    )

    def presented() -> bytes:
        return ssl.get_server_certificate(("127.0.0.1", node.admin[1])).encode()

    assert presented().split() == first.cert.read_bytes().split()
    with client(node, OPERATOR, verify=ssl.create_default_context(cafile=authority.ca)) as at:
        node.write(merge(node.config, {"admin": {"tls": tls_of(second)}}))
        assert at.post("/reload").status_code == 200
        assert presented().split() == second.cert.read_bytes().split()
        assert at.get("/status").status_code == 200
    first.cert.write_text("nothing")
    second.cert.write_text("nothing")
    node.process.signal(1)
    node.process.wait_for_line("reload failed, nothing has changed")


def test_what_ssl_cannot_do_is_refused(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("localhost")
    tls = {"certificates": [{**files.snippet(), "ocsp": str(authority.ocsp(files))}], "groups": "X25519"}
    node = world.dmz(
        {"admin": {"listen": open_port("https"), "auth": "token", "tls": tls}, "users": USERS}, start=False
    )
    code, _, said = run_broker("check", str(node.path))
    assert code == 2
    assert "staples no OCSP responses" in said and "groups can't be chosen" in said


# --- the commands ------------------------------------------------------------------------------------


def test_the_commands_bring_a_token_and_believe_one_ca(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = tls_of(authority.issue("localhost"))
    node = guarded(world, {"listen": open_port("https"), "auth": "token", "tls": tls})
    url = f"https://localhost:{node.admin[1]}"
    ca = ["--ca", str(authority.ca)]
    code, said, _ = run_broker(
        "status", "--admin", url, *ca, "--json", "--token-file", token_file(tmp_path, READER)
    )
    assert code == 0 and json.loads(said)["ready"] is True
    reader, operator = token_file(tmp_path, READER), token_file(tmp_path, OPERATOR)
    wrong = {
        "status": (
            ["status", "--admin", url, *ca],
            "wants a token (Authorization: Bearer). Give --token-file FILE.",
        ),
        "reload": (
            ["reload", "--admin", url, *ca, "--token-file", reader],
            "no right to this: it takes may: {admin: control}",
        ),
        "ca": (["status", "--admin", url, "--token-file", reader], "its certificate is not believed"),
        "http": (["status", "--admin", url.replace("https", "http")], "is it an https:// URL?"),
    }
    for name, (command, words) in wrong.items():
        code, _, said = run_broker(*command)
        assert code == 1 and words in said, name
    code, _, said = run_broker("status", "--admin", url, "--token-file", str(tmp_path / "none"))
    assert code == 2 and "--token-file: the file" in said
    for command in ("reload", "drain"):
        code, _, said = run_broker(command, "--admin", url, *ca, "--token-file", operator)
        assert code == 0, said
    node.process.expect_exit(0)


def test_the_commands_show_a_certificate(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ops = authority.issue(subject="ops")
    tls = tls_of(authority.issue("localhost"), mode="require", ca=str(authority.ca))
    rule = {"ca": str(authority.ca), "subject": "CN=ops"}
    people = {"users": [{"name": "ops", "certificates": [rule], "may": {"admin": "control"}}]}
    node = world.dmz(
        {"admin": {"listen": open_port("https"), "auth": "certificate", "tls": tls}, **people}, start=False
    )
    node.start(ready=False)
    node.process.wait_for_line(r"\bready\b")
    at = ["--admin", f"https://localhost:{node.admin[1]}", "--ca", str(authority.ca)]
    code, _, said = run_broker("status", *at)
    assert code == 1 and "a client certificate (--cert and --key)" in said
    code, _, said = run_broker("stop", *at, "--cert", str(ops.cert), "--key", str(ops.key))
    assert code == 0, said
    node.process.expect_exit(0)


# --- other sites' pages, and clients that do not mean well ------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "headers", "status"),
    [
        ("GET", "/status", {}, 200),
        ("GET", "/status", {"Sec-Fetch-Site": "same-origin"}, 200),
        ("GET", "/status", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}, 403),
        ("GET", "/status", {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"}, 403),
        ("GET", "/status", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 200),
        ("POST", "/reload", {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}, 403),
        ("POST", "/reload", {"Sec-Fetch-Site": "cross-site", "Content-Type": "application/json"}, 403),
        ("POST", "/reload", {"Origin": "https://127.0.0.1", "Broker-Admin": "1"}, 403),
        ("POST", "/reload", {"Origin": "null", "Content-Type": "application/json"}, 403),
        ("POST", "/reload", {"Sec-Fetch-Site": "same-origin", "Content-Type": "text/plain"}, 403),
        ("POST", "/reload", {"Sec-Fetch-Site": "same-origin", "Content-Type": "application/json"}, 200),
        ("POST", "/reload", {"Host": "evil.example"}, 403),
        ("GET", "/status", {"Host": "evil.example"}, 403),
        ("GET", "/metrics", {"Host": "127.0.0.1.evil.example"}, 403),
        ("GET", "/readyz", {"Host": "probe.example"}, 200),
    ],
)
def test_other_sites_pages(
    admin_node: DmzNode, method: str, target: str, headers: dict[str, str], status: int
) -> None:
    with client(admin_node) as at:
        assert at.request(method, target, headers=headers).status_code == status


@pytest.fixture(scope="module")
def admin_node(module_world: World) -> DmzNode:
    node: DmzNode = module_world.dmz()
    return node


def test_a_token_makes_any_name_ours(world: World) -> None:
    """A proxy in front may keep the name that it was asked for; no other site's page has the token."""
    node = guarded(world, {"listen": loopback(), "auth": "token"})
    with client(node, READER) as at:
        assert at.get("/status", headers={"Host": "broker.example"}).status_code == 200
        assert at.get("/status", headers={"Origin": "http://evil.example"}).status_code == 403


def test_silent_connections_do_not_keep_others_out(world: World) -> None:
    node = world.dmz()
    silent = [RawClient(node.admin) for _ in range(300)]
    try:
        for each in silent[:256]:
            each.send(b"GET /status HTTP/1.1\r\n")
        # Those over the limit are cut at once, the others when their head is too late: then there is room.
        wait_until(node.ready, "somebody else is served", 40)
    finally:
        for each in silent:
            each.close()


def test_an_agent_without_a_tunnel_is_not_ready(world: World) -> None:
    pair = world.pair()
    at = pair.agent.admin
    assert fetch(at, "/readyz", host=host_of(at)).status == 200
    pair.dmz.stop()
    wait_until(lambda: not pair.agent.ready(), "the agent is not ready")
    answer = fetch(at, "/readyz", host=host_of(at))
    assert (answer.status, json.loads(answer.body)) == (503, {"ready": False, "reasons": ["no tunnel is up"]})
    assert fetch(at, "/healthz", host=host_of(at)).status == 200
    pair.dmz.start()
    pair.agent.wait_ready()
