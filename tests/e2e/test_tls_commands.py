"""`broker tls`: init makes what works at once, check finds what is wrong, show and map tell what is there."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.harness.certificates import Authority, Files
from tests.harness.client import connect
from tests.harness.nodes import World, loopback
from tests.harness.ports import free_port
from tests.harness.process import Process, broker, run_broker
from tests.harness.waiting import wait_until


def reachable(port: int) -> bool:
    try:
        connect(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def s_server(files: Files, *options: str) -> Iterator[str]:
    """`openssl s_server`; HOST:PORT."""
    port = free_port()
    arguments = ["-accept", f"127.0.0.1:{port}", "-cert", str(files.cert), "-key", str(files.key), "-www"]
    with Process(["openssl", "s_server", *arguments, *options], forbidden=None) as server:
        wait_until(lambda: reachable(port), "openssl s_server listens")
        yield f"localhost:{port}"
        server.kill()


def check(address: str, *options: str) -> tuple[int, str]:
    code, said, complained = run_broker("tls", "check", address, *options)
    return code, said + complained


def test_what_init_makes_works(world: World, tmp_path: Path) -> None:
    """A DMZ node and an agent that know each other by certificates, and a client."""
    directory = tmp_path / "dev"
    code, _, said = run_broker("tls", "init", str(directory), "--name", "dmz.example.com")
    assert code == 0, said
    for file in directory.iterdir():
        mode = stat.S_IMODE(file.stat().st_mode)
        assert mode == 0o600 if file.suffix == ".key" else not mode & 0o022, file
    origin = world.origin()
    dmz, green = (yaml.safe_load((directory / name).read_text()) for name in ("dmz.yaml", "green.yaml"))
    dmz["external"][0]["listen"] = loopback("https")
    dmz["registration"][0]["listen"] = loopback("https")
    dmz["admin"]["listen"] = loopback()
    green["connect"][0]["url"] = dmz["registration"][0]["listen"].replace("127.0.0.1", "localhost")
    green["services"][0]["upstream"] = origin.url
    (directory / "dmz.yaml").write_text(yaml.safe_dump(dmz))
    (directory / "green.yaml").write_text(yaml.safe_dump(green))
    node = world.process(broker("serve", str(directory / "dmz.yaml")))
    node.wait_for_line("ready")
    agent = world.process(broker("connect", str(directory / "green.yaml")))
    agent.wait_for_line("tunnel 1 to .* is up")
    url = dmz["external"][0]["listen"].replace("127.0.0.1", "localhost")
    done = subprocess.run(
        ["curl", "-sS", "--cacert", str(directory / "ca.crt"), f"{url}/echo"],
        capture_output=True,
        check=False,
        timeout=30,
    )
    assert json.loads(done.stdout)["start"] == "GET /echo HTTP/1.1", done.stderr
    code, said = check(url, "--ca", str(directory / "ca.crt"))
    assert code == 0, said
    assert "nothing is wrong" in said and "client certificate: not asked for" in said
    at = dmz["registration"][0]["listen"].removeprefix("https://")
    code, said = check(at, "--ca", str(directory / "ca.crt"))
    assert code == 1, said
    assert "wrong: a client certificate is required" in said
    own = ["--cert", str(directory / "agent.crt"), "--key", str(directory / "agent.key")]
    assert check(at, "--ca", str(directory / "ca.crt"), *own)[0] == 0


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("mine")
    code, _, said = run_broker("tls", "init", str(tmp_path))
    assert code == 1
    assert "server.key exists already; nothing was written" in said
    assert [file.name for file in tmp_path.iterdir()] == ["server.key"]
    assert (tmp_path / "server.key").read_text() == "mine"


def test_show(world: World, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("a.example", "b.example", days=20)
    tls = {
        "certificates": [{**files.snippet(), "ocsp": str(authority.ocsp(files))}],
        "client": {"mode": "request", "ca": str(authority.ca), "crl": str(authority.crl())},
    }
    node = world.dmz({"external": [{"name": "web", "listen": loopback("https"), "tls": tls}]}, start=False)
    code, said, warned = run_broker("tls", "show", str(node.path))
    assert code == 0, warned
    assert "a.example, b.example" in said and "days left" in said and "client certificates: request" in said
    assert "expires on" in warned
    code, said, _ = run_broker("tls", "show", str(node.path), "--json")
    (port,) = json.loads(said)
    assert (port["kind"], port["name"], port["client"]["mode"]) == ("external", "web", "request")
    assert port["certificates"][0]["names"] == ["a.example", "b.example"]
    assert 19 < port["certificates"][0]["days_left"] <= 20
    printed = subprocess.run(
        ["openssl", "x509", "-in", str(files.cert), "-noout", "-fingerprint", "-sha256"],
        capture_output=True,
        check=True,
        text=True,
    ).stdout
    expected = printed.strip().partition("=")[2].replace(":", "").lower()
    assert port["certificates"][0]["fingerprint"] == f"sha256:{expected}"


def test_check_of_a_good_peer_with_a_staple(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("localhost", days=90)
    staple = ["-status_file", str(authority.ocsp(files))]
    with s_server(files, *staple, "-alpn", "http/1.1", "-cipher", "ECDHE+AESGCM") as address:
        code, said = check(address, "--ca", str(authority.ca), "--json")
    shown = json.loads(said)
    assert code == 0, said
    assert (shown["version"], shown["alpn"], shown["ocsp"]["status"]) == ("TLSv1.3", "http/1.1", "good")
    assert shown["problems"] == []


def test_what_check_finds_wrong(tmp_path: Path) -> None:
    authority, strangers = Authority(tmp_path), Authority(tmp_path, "strangers")
    good = authority.issue("localhost", days=90)
    weak = authority.issue("localhost", days=90, key=rsa.generate_private_key(65537, 1024))
    ca = ["--ca", str(authority.ca)]
    lax = ["-cipher", "ALL:@SECLEVEL=0"]
    for files, server, client, words in (
        (good, [], ["--ca", str(strangers.ca)], "the certificate is not trusted: no known CA signed it"),
        (good, [], [*ca, "--name", "other.example"], "the certificate is not for other.example"),
        (authority.issue("localhost", days=-1), [], ca, "the certificate has expired"),
        (authority.issue("localhost", days=5), [], ca, "the certificate expires in 5 days"),
        (weak, lax, ca, "has a weak key: RSA of 1024 bits"),
        (good, lax, ca, "the weak cipher "),
        (good, ["-Verify", "1"], ca, "a client certificate is required"),
        (good, ["-Verify", "1", "-tls1_2"], ca, "a client certificate is required"),
        (
            good,
            ["-status_file", str(authority.ocsp(good, hours=-1))],
            ca,
            "the stapled OCSP response is out of date",
        ),
    ):
        with s_server(files, *server) as address:
            code, said = check(address, *client)
        assert code == 1, said
        assert f"wrong: {words}" in said or words in said, said


def test_check_of_certificates_that_can_not_be_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for files, words in (
        (authority.strange("v4", version=4), "a certificate can't be read: "),
        (
            authority.strange("odd", names=b"\x30\x03\x82\x01\xff"),
            "the names in the certificate can't be read: ",
        ),
    ):
        with s_server(files) as address:
            code, said = check(address, "--ca", str(authority.ca))
        assert code == 1, said
        assert f"wrong: {words}" in said, said


def test_an_own_certificate_that_can_not_be_read(world: World, tmp_path: Path) -> None:
    tls = {"certificates": [Authority(tmp_path).strange("v4", version=4).snippet()]}
    node = world.dmz({"external": [{"name": "web", "listen": loopback("https"), "tls": tls}]}, start=False)
    code, _, complained = run_broker("check", str(node.path))
    assert code == 2
    assert "holds a certificate that can't be read: 3 is not a valid X509 version" in complained


def test_check_of_what_is_no_tls(world: World) -> None:
    node = world.dmz()
    code, said = check("{}:{}".format(*node.external))
    assert code == 1
    assert "the other side" in said and "TLS" in said, said
    code, said = check(f"127.0.0.1:{free_port()}")
    assert code == 1
    assert "no connection to" in said
    assert check("localhost:no-port")[0] == 2


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        (["--subject"], {"subject": "CN=agent-7"}),
        (["--subject", "CN=agent-*"], {"subject": "CN=agent-*"}),
        (["--san"], {"san": "DNS:seven.agents.example"}),
        (["--san", "*.agents.example"], {"san": "*.agents.example"}),
    ],
)
def test_map_by_name(tmp_path: Path, options: list[str], rule: dict[str, str]) -> None:
    authority = Authority(tmp_path)
    files = authority.issue("seven.agents.example", subject="agent-7")
    code, said, complained = run_broker(
        "tls", "map", str(files.cert), "--user", "team", "--ca", str(authority.ca), *options
    )
    assert code == 0, complained
    assert yaml.safe_load(said.partition("\n")[2]) == {
        "users": [{"name": "team", "certificates": [{"ca": str(authority.ca), **rule}]}]
    }


def test_map_by_fingerprint_and_what_it_refuses(tmp_path: Path) -> None:
    authority, strangers = Authority(tmp_path), Authority(tmp_path, "strangers")
    files = authority.issue(subject="agent-7")
    code, said, _ = run_broker("tls", "map", str(files.cert), "--user", "team")
    line, _, rest = said.partition("\n")
    assert code == 0
    assert yaml.safe_load(rest) == {"users": [{"name": "team", "certificates": [line]}]}
    for options, words in (
        (["--ca", str(strangers.ca), "--subject"], "no CA in"),
        (["--ca", str(authority.ca), "--subject", "CN=other-*"], "don't fit the pattern"),
        (["--ca", str(authority.ca), "--san"], "has no subject alternative name"),
        (["--ca", str(authority.ca)], "--ca needs --subject or --san"),
    ):
        code, _, complained = run_broker("tls", "map", str(files.cert), "--user", "team", *options)
        assert code == 2
        assert words in complained, complained
