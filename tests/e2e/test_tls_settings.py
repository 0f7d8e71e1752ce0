"""What a port's TLS can be told to be, by openssl; what both sides say of certificates they refuse."""

from __future__ import annotations

import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.ocsp import OCSPCertStatus

from tests.harness.certificates import Authority, Files
from tests.harness.client import RawClient
from tests.harness.message import Closed
from tests.harness.nodes import Agent, DmzNode, Snippet, World, everything, loopback
from tests.harness.process import environment, run_broker
from tests.harness.waiting import wait_until

NAME = "shop.example"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def shop(authority: Authority) -> Files:
    return authority.issue(NAME, days=90)


def node_with(world: World, *certificates: Snippet, **tls: object) -> DmzNode:
    port = {"name": "web", "listen": loopback("https"), "tls": {"certificates": list(certificates), **tls}}
    return world.dmz({"external": [port]})


def s_client(node: DmzNode, *options: str, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    """One connection; it ends after the handshake, or after an answer to `data`."""
    return subprocess.run(
        ["openssl", "s_client", "-connect", "{}:{}".format(*node.external), "-servername", NAME, *options],
        input=data.decode(),
        capture_output=True,
        check=False,
        timeout=30,
        text=True,
        errors="replace",
    )


def succeeds(node: DmzNode, *options: str) -> bool:
    return s_client(node, *options).returncode == 0


def test_versions_and_ciphers_of_the_default(world: World, shop: Files) -> None:
    node = node_with(world, shop.snippet())
    for version, suite, taken in (
        ("-tls1_2", "ECDHE-ECDSA-AES128-GCM-SHA256", True),
        ("-tls1_2", "ECDHE-ECDSA-CHACHA20-POLY1305", True),
        ("-tls1_2", "ECDHE-ECDSA-AES128-SHA256", False),
        ("-tls1_2", "ECDHE-ECDSA-AES256-SHA", False),
        ("-tls1_1", "ALL:@SECLEVEL=0", False),
    ):
        assert succeeds(node, version, "-cipher", suite) == taken, (version, suite)
    for suite in ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"):
        assert succeeds(node, "-tls1_3", "-ciphersuites", suite), suite


def test_groups_of_the_default_and_chosen_ones(world: World, shop: Files) -> None:
    default = node_with(world, shop.snippet())
    chosen = node_with(world, shop.snippet(), groups="secp384r1:secp521r1")
    for group, usual, special in (
        ("X25519", True, False),
        ("prime256v1", True, False),
        ("secp384r1", True, True),
        ("secp521r1", False, True),
        ("X448", False, False),
    ):
        assert succeeds(default, "-groups", group) == usual, group
        assert succeeds(chosen, "-groups", group) == special, group
    wait_until(
        lambda: "no group for the key exchange is common" in chosen.process.output, "the reason is logged"
    )


def test_a_higher_minimum_and_own_ciphers(world: World, shop: Files) -> None:
    strict = node_with(world, shop.snippet(), min_version="1.3")
    assert succeeds(strict, "-tls1_3")
    assert not succeeds(strict, "-tls1_2")
    strict.process.wait_for_line("TLS with 127.0.0.1 failed: no TLS version is common to both sides")
    own = node_with(world, shop.snippet(), ciphers="ECDHE-ECDSA-AES256-GCM-SHA384")
    assert succeeds(own, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES256-GCM-SHA384")
    assert not succeeds(own, "-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-GCM-SHA256")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_tickets_on_and_off(world: World, shop: Files, tmp_path: Path, version: str) -> None:
    ask = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()
    for tickets in (True, False):
        node = node_with(world, shop.snippet(), tickets=tickets)
        session = str(tmp_path / f"session{version}{tickets}")
        s_client(node, version, "-sess_out", session, "-ign_eof", data=ask)
        again = s_client(node, version, "-sess_in", session, "-ign_eof", data=ask)
        assert ("Reused, TLSv1" in again.stdout) == tickets, again.stdout


def test_a_stapled_response(world: World, authority: Authority, shop: Files) -> None:
    plain = authority.issue("plain.example")
    stapled = {**shop.snippet(), "ocsp": str(authority.ocsp(shop))}
    node = node_with(world, stapled, plain.snippet())
    answer = s_client(node, "-status", "-CAfile", str(authority.ca)).stdout
    assert "OCSP Response Status: successful" in answer
    assert "Cert Status: good" in answer
    assert (
        "OCSP response: no response sent" in s_client(node, "-status", "-servername", "plain.example").stdout
    )
    authority.ocsp(shop, hours=-1)
    assert node.admin_post("/reload").status == 200
    assert "OCSP response: no response sent" in s_client(node, "-status").stdout
    assert "it is not stapled" in node.process.output
    states = {each["kind"]: each["days_left"] for each in node.status()["certificates"]}
    assert states["OCSP response"] < 0 < states["certificate"]


def test_what_check_refuses(world: World, authority: Authority, shop: Files, tmp_path: Path) -> None:
    other = authority.issue("other.example")
    crl = str(authority.crl())
    weak = authority.issue(NAME, key=rsa.generate_private_key(65537, 1024))
    for tls, words in (
        ({"certificates": [weak.snippet()]}, "has a weak key: RSA of 1024 bits; use EC P-256 or RSA of 2048"),
        ({"certificates": [authority.issue(NAME, days=-1).snippet()]}, "has expired on"),
        ({"certificates": [{**shop.snippet(), "key": str(other.key)}]}, "is not the key of"),
        ({"certificates": [{**shop.snippet(), "ocsp": str(other.cert)}]}, "is not an OCSP response in DER"),
        (
            {"certificates": [{**shop.snippet(), "ocsp": str(authority.ocsp(other))}]},
            "is the OCSP response of another certificate",
        ),
        (
            {"certificates": [{**other.snippet(), "ocsp": str(revoked_response(authority, other))}]},
            "says that the certificate is revoked",
        ),
        (
            {"certificates": [shop.snippet()], "groups": "X25519:nonsense"},
            "groups: OpenSSL does not know all",
        ),
        ({"certificates": [shop.snippet()], "ciphers": "nonsense"}, "ciphers: OpenSSL knows none"),
        (
            {
                "certificates": [shop.snippet()],
                "client": {"mode": "require", "ca": str(authority.ca), "crl": [crl, str(shop.cert)]},
            },
            "holds no certificate revocation list",
        ),
    ):
        node = world.dmz(
            {"external": [{"name": "web", "listen": loopback("https"), "tls": tls}]}, start=False
        )
        code, _, said = run_broker("check", str(node.path))
        assert code == 2, said
        assert words in said, said


def revoked_response(authority: Authority, files: Files) -> Path:
    return authority.ocsp(files, status=OCSPCertStatus.REVOKED)


@pytest.mark.parametrize("mode", ["direct", "methods"])
def test_revoked_clients(world: World, authority: Authority, shop: Files, tmp_path: Path, mode: str) -> None:
    """Lists of two CAs; a reload brings a newer list."""
    second = Authority(tmp_path, "second CA")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca.read_bytes() + second.ca.read_bytes())
    alice, bob, carol = (
        authority.issue(subject="alice"),
        authority.issue(subject="bob"),
        second.issue(subject="carol"),
    )
    crls = [str(authority.crl(bob, name="first.crl")), str(second.crl(name="second.crl"))]
    client = {"mode": "require", "ca": str(both), "crl": crls}
    port = {
        "name": "web",
        "listen": loopback("https"),
        "tls": {"certificates": [shop.snippet()], "client": client},
    }
    node = world.dmz({"external": [port]}, start=False)
    node.env = environment({"BROKER_TLS": mode})
    node.start()

    def taken(files: Files) -> bool:
        ask = f"GET / HTTP/1.1\r\nHost: {NAME}\r\nConnection: close\r\n\r\n".encode()
        done = s_client(node, "-cert", str(files.cert), "-key", str(files.key), "-ign_eof", data=ask)
        assert ("HTTP/1.1" in done.stdout) != ("alert certificate revoked" in done.stderr), done.stderr
        return "HTTP/1.1" in done.stdout

    assert [taken(alice), taken(bob), taken(carol)] == [True, False, True]
    node.process.wait_for_line(r"TLS with 127.0.0.1 failed: the certificate has been revoked \(bob\)")

    def stays(files: Files) -> RawClient:
        context = ssl.create_default_context(cafile=str(authority.ca))
        context.load_cert_chain(files.cert, files.key)
        client = RawClient(node.external, NAME, tls=context)
        assert client.request().status == 404
        return client

    with stays(alice) as revoked, stays(carol) as good:
        authority.crl(bob, alice, name="first.crl")
        assert node.admin_post("/reload").status == 200
        with pytest.raises((OSError, Closed)):
            revoked.request()
        assert good.request().status == 404
    assert [taken(alice), taken(bob), taken(carol)] == [False, False, True]


def test_a_ca_without_a_list_and_a_list_that_is_out_of_date(
    world: World, authority: Authority, shop: Files, tmp_path: Path
) -> None:
    """Nobody is let in by chance."""
    second = Authority(tmp_path, "second CA")
    both = tmp_path / "both.pem"
    both.write_bytes(authority.ca.read_bytes() + second.ca.read_bytes())
    client = {"mode": "require", "ca": str(both), "crl": str(authority.crl(hours=-1))}
    node = node_with(world, shop.snippet(), client=client)
    assert "makes every certificate of its CA invalid" in node.process.output
    for files, words in (
        (authority.issue(subject="alice"), r"the revocation list of its CA is out of date \(alice\)"),
        (second.issue(subject="bob"), r"there is no revocation list of the CA of the certificate \(bob\)"),
    ):
        s_client(node, "-cert", str(files.cert), "-key", str(files.key), data=b"x")
        node.process.wait_for_line(words)


# --- agents ------------------------------------------------------------------------


def registration(world: World, files: Files, **tls: object) -> DmzNode:
    listen = {"name": "green", "listen": loopback("https", "localhost")}
    return world.dmz({"registration": [{**listen, "tls": {"certificates": [files.snippet()], **tls}}]})


def agent_of(world: World, dmz: DmzNode, **tls: object) -> Agent:
    url = dmz.registration_url()
    extra = {"connect": [{"url": url, "tls": tls, "tunnels": 1}]}
    agent = world.agent(url, [everything(world.origin(f"o{len(world.origins)}"))], extra=extra, start=False)
    agent.start(ready=False)
    return agent


def refusal(agent: Agent) -> str:
    return agent.process.wait_for_line(r"no tunnel to .*")[0]


def test_agents_that_are_refused(world: World, authority: Authority, tmp_path: Path) -> None:
    """Each with its reason, in both logs."""
    strangers = Authority(tmp_path, "strangers")
    gone, late = authority.issue(subject="gone"), authority.issue(subject="late", days=-1)
    crl = str(authority.crl(gone))
    for files, here, there in (
        (gone, "the certificate has been revoked (gone)", "says that our certificate has been revoked"),
        (
            strangers.issue(subject="who"),
            "no known CA signed it (who)",
            "does not know the CA of our certificate",
        ),
        (None, "the other side showed no certificate", "wants a certificate, and none is configured"),
    ):
        dmz = registration(
            world,
            authority.issue("localhost", days=90),
            client={"mode": "require", "ca": str(authority.ca), "crl": [crl]},
        )
        own = {"cert": str(files.cert), "key": str(files.key)} if files else {}
        agent = agent_of(world, dmz, ca=str(authority.ca), **own)
        assert there in refusal(agent)
        assert here in dmz.process.wait_for_line(r"registration port green: TLS with .* failed: .*")[0]
        assert not dmz.status()["tunnels"]
    # An agent does not start to dial with a certificate that has expired: it says so.
    dmz = registration(world, authority.issue("localhost", days=90))
    agent = agent_of(world, dmz, ca=str(authority.ca), cert=str(late.cert), key=str(late.key))
    agent.process.wait_for_line(r"the certificate .* has expired on")


def test_nodes_that_agents_refuse(world: World, authority: Authority, tmp_path: Path) -> None:
    revoked = authority.issue("localhost", days=90)
    crl = str(authority.crl(revoked))
    dmz = registration(world, revoked)
    agent = agent_of(world, dmz, ca=str(authority.ca), crl=crl)
    assert "TLS failed: the certificate has been revoked (localhost)" in refusal(agent)
    dmz.process.wait_for_line("failed: the other side says that our certificate has been revoked")
    strangers = Authority(tmp_path, "strangers")
    stranger = agent_of(world, dmz, ca=str(strangers.ca))
    assert "the certificate is not trusted: no known CA signed it (localhost)" in refusal(stranger)
    dmz.process.wait_for_line("failed: the other side does not know the CA of our certificate")
    good = agent_of(world, dmz, ca=str(authority.ca), crl=str(authority.crl()))
    good.wait_ready()


# --- plain ports -------------------------------------------------------------------


def test_tls_on_plain_ports_is_closed_cleanly(world: World) -> None:
    """An end, no reset, and nothing that a TLS client could not understand."""
    node = world.dmz()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(506)
    for address in (node.external, node.registration_at()):
        for piece in (hello, hello[:1], hello * 3):
            with socket.create_connection(address, timeout=20) as sock:
                sock.sendall(piece)
                assert sock.recv(4096) == b""
        done = subprocess.run(
            ["openssl", "s_client", "-connect", "{}:{}".format(*address)],
            input=b"",
            capture_output=True,
            check=False,
            timeout=30,
        )
        assert done.returncode == 1
        assert b"unexpected eof" in done.stderr, done.stderr
    assert node.status()["external"][0]["failures"]["bad-request"] == 4
    assert node.fetch("/").status in (404, 503)
