"""Certificates that are not believed, of every kind: what each of the two sides says."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from OpenSSL import SSL

from tests.harness.certificates import Authority, Files
from tests.harness.nodes import Agent, DmzNode, Snippet, World, everything, loopback

NOT_ACCEPTED = "the other side does not accept our certificate"


@dataclass(frozen=True)
class Case:
    """A certificate, what the side says that sees it, and what the other one says."""

    seen: str
    shown: str
    alert: int  # of the TLS protocol


CASES = {
    "wrong CA": Case(
        "the certificate is not trusted: no known CA signed it (who)",
        "the other side does not know the CA of our certificate",
        48,
    ),
    "expired": Case(
        "the certificate has expired (who)", "the other side says that our certificate has expired", 45
    ),
    "not yet valid": Case("the certificate is not valid yet (who)", NOT_ACCEPTED, 42),
    "revoked": Case(
        "the certificate has been revoked (who)",
        "the other side says that our certificate has been revoked",
        44,
    ),
    "weak key": Case("the key of the certificate is too weak (who)", NOT_ACCEPTED, 42),
    "other use": Case(
        "the certificate is not for this use (who)",
        "the other side says that our certificate is not for this use",
        43,
    ),
    "missing": Case(
        "the other side showed no certificate",
        "the other side wants a certificate, and none is configured",
        116,
    ),
}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


def shown_by_agent(authority: Authority, name: str, directory: Path) -> tuple[Files | None, list[str]]:
    """The certificate, and the revocation lists of who sees it."""
    crl = [str(authority.crl())]
    if name == "missing":
        return None, crl
    if name == "wrong CA":
        return Authority(directory, "strangers").issue(subject="who"), crl
    if name == "revoked":
        files = authority.issue(subject="who")
        return files, [str(authority.crl(files))]
    if name == "weak key":
        return authority.issue(subject="who", key=rsa.generate_private_key(65537, 1024)), crl
    if name == "other use":
        return authority.issue(subject="who", usage=ExtendedKeyUsageOID.SERVER_AUTH), crl
    return authority.issue(
        subject="who", **{"expired": {"days": -1}, "not yet valid": {"since": 1}}[name]
    ), crl


def node_that_asks(world: World, authority: Authority, crl: list[str]) -> DmzNode:
    tls = {
        "certificates": [authority.issue("localhost", days=90).snippet()],
        "client": {"mode": "require", "ca": str(authority.ca), "crl": crl},
    }
    return world.dmz(
        {
            "external": [{"name": "web", "listen": loopback("https", "localhost"), "tls": tls}],
            "registration": [{"name": "green", "listen": loopback("https", "localhost"), "tls": tls}],
        }
    )


def dial(world: World, url: str, tls: Snippet) -> Agent:
    extra = {"connect": [{"url": url, "tls": tls, "tunnels": 1}]}
    agent = world.agent(url, [everything(world.origin())], extra=extra, start=False)
    agent.start(ready=False)
    return agent


def said(node: DmzNode | Agent, pattern: str) -> str:
    return node.process.wait_for_line(pattern)[0]


@pytest.mark.parametrize("name", CASES)
def test_an_agent_that_the_node_refuses(
    world: World, authority: Authority, tmp_path: Path, name: str
) -> None:
    """At the registration port and at an external one, by a client that is not ours, too."""
    case = CASES[name]
    files, crl = shown_by_agent(authority, name, tmp_path)
    dmz = node_that_asks(world, authority, crl)
    own = {"cert": str(files.cert), "key": str(files.key)} if files else {}
    agent = dial(world, dmz.registration_url(), {"ca": str(authority.ca), **own})
    if name == "weak key":
        assert "has a weak key: RSA of 1024 bits; use EC P-256 or RSA of 2048 bits or more" in said(
            agent, ".*weak key.*"
        )
        agent.process.expect_exit(2)
    else:
        assert f"TLS failed: {case.shown}" in said(agent, r"no tunnel to .*")
        assert case.seen in said(dmz, r"registration port green: TLS with .* failed: .*")
    if name in ("expired", "not yet valid"):  # it was said before anybody was dialled
        said(agent, f"the certificate .* {'has expired on' if name == 'expired' else 'is not valid before'}")
    for port, address in (
        ("external port web", dmz.external),
        ("registration port green", dmz.registration_at()),
    ):
        command = ["openssl", "s_client", "-connect", "{}:{}".format(*address), "-ign_eof"]
        if files:
            command += ["-cert", str(files.cert), "-key", str(files.key), "-cipher", "ALL:@SECLEVEL=0"]
        done = subprocess.run(command, input=b"x\n", capture_output=True, check=False, timeout=60)
        assert f"SSL alert number {case.alert}".encode() in done.stderr, done.stderr
        assert case.seen in said(dmz, rf"{re.escape(port)}: TLS with .* failed: {re.escape(case.seen)}.*")
    assert not dmz.status()["tunnels"]


# --- nodes that an agent does not believe ---------------------------------------


@contextmanager
def server_with(files: Files) -> Iterator[tuple[int, list[str]]]:
    """A server with a certificate that a DMZ node would not start with; what went wrong in its handshakes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.load_cert_chain(files.cert, files.key)
    problems: list[str] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            try:
                with context.wrap_socket(sock, server_side=True) as secure:
                    secure.recv(1)
            except OSError as error:
                problems.append(str(error))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], problems
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


NODES = {
    "wrong CA": ("the certificate is not trusted: no known CA signed it (localhost)", "unknown ca"),
    "expired": ("the certificate has expired (localhost)", "certificate expired"),
    "not yet valid": ("the certificate is not valid yet (localhost)", "bad certificate"),
    "revoked": ("the certificate has been revoked (localhost)", "certificate revoked"),
    "weak key": ("the key of the certificate is too weak (localhost)", "bad certificate"),
    "other use": ("the certificate is not for this use (localhost)", "unsupported certificate"),
    "wrong name": ("the certificate is valid, but not for localhost (other.example)", "bad certificate"),
}


def shown_by_node(authority: Authority, name: str, directory: Path) -> Files:
    if name == "wrong CA":
        return Authority(directory, "strangers").issue("localhost")
    if name == "weak key":
        return authority.issue("localhost", key=rsa.generate_private_key(65537, 1024))
    if name == "other use":
        return authority.issue("localhost", usage=ExtendedKeyUsageOID.CLIENT_AUTH)
    if name == "wrong name":
        return authority.issue("other.example")
    more = {"expired": {"days": -1.0}, "not yet valid": {"since": 1.0}}.get(name, {})
    return authority.issue("localhost", **more)


@pytest.mark.parametrize("name", NODES)
def test_a_node_that_an_agent_refuses(world: World, authority: Authority, tmp_path: Path, name: str) -> None:
    words, alert = NODES[name]
    files = shown_by_node(authority, name, tmp_path)
    tls: Snippet = {"ca": str(authority.ca)}
    if name == "revoked":
        tls["crl"] = str(authority.crl(files))
    with server_with(files) as (port, problems):
        agent = dial(world, f"https://localhost:{port}", tls)
        assert f"TLS failed: {words}" in said(agent, r"no tunnel to .*")
        agent.stop()
        assert alert in problems[0], problems


@pytest.mark.parametrize("name", NODES)
def test_what_a_node_says_of_being_refused(world: World, authority: Authority, name: str) -> None:
    """The alert of every refusal, by a client that sends it, whatever the certificate."""
    alert = NODES[name][1]
    words = {
        "unknown ca": "the other side does not know the CA of our certificate",
        "certificate expired": "the other side says that our certificate has expired",
        "bad certificate": f"{NOT_ACCEPTED}: it may be for another name, not valid yet, or its key too weak",
        "certificate revoked": "the other side says that our certificate has been revoked",
        "unsupported certificate": "the other side says that our certificate is not for this use",
    }
    tls = {"certificates": [authority.issue("localhost", days=90).snippet()]}
    dmz = world.dmz(
        {
            "external": [{"name": "web", "listen": loopback("https"), "tls": tls}],
            "registration": [{"name": "green", "listen": loopback("https"), "tls": tls}],
        }
    )
    for address in (dmz.external, dmz.registration_at()):
        with socket.create_connection(address, 20) as sock:
            send_alert(sock, alert)
    for port in ("external port web", "registration port green"):
        said(dmz, rf"{port}: TLS with .* failed: {re.escape(words[alert])}")


def send_alert(sock: socket.socket, name: str) -> None:
    """Answer the server's certificate with this alert, in clear: TLS 1.2, where it still may be."""
    number = {
        "bad certificate": 42,
        "unsupported certificate": 43,
        "certificate revoked": 44,
        "certificate expired": 45,
        "unknown ca": 48,
    }[name]
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)
    connection = SSL.Connection(context, None)
    connection.set_connect_state()
    with pytest.raises(SSL.WantReadError):
        connection.do_handshake()
    sock.sendall(connection.bio_read(65536))
    assert sock.recv(65536)
    sock.sendall(bytes([21, 3, 3, 0, 2, 2, number]))
