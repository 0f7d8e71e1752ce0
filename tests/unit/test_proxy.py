"""HTTP proxies: which one a URL goes through, and what their answers to CONNECT come to."""

import base64
from pathlib import Path

import pytest

from broker.config.model import Proxy, Secret
from broker.config.proxy import is_direct, parse_proxy, proxy_for, read_credentials
from broker.tunnel.proxy import ProxyRefused, connect_bytes, read_answer

DMZ = "dmz.example.com:7000"
PROXY = Proxy(host="10.0.0.1", port=3128)


@pytest.mark.parametrize(
    ("bypass", "host", "direct"),
    [
        ("", "dmz.example.com", False),
        ("", "localhost", True),
        ("", "127.8.9.1", True),
        ("*", "dmz.example.com", True),
        ("example.com", "dmz.example.com", True),
        (".example.com", "dmz.example.com", True),
        ("*.example.com", "dmz.example.com", True),
        ("EXAMPLE.com", "dmz.example.com", True),
        ("ample.com", "dmz.example.com", False),
        ("other.com, dmz.example.com", "dmz.example.com", True),
        ("other.com dmz.example.com", "dmz.example.com", True),
        ("dmz.example.com:7000", "dmz.example.com", True),
        ("dmz.example.com:7001", "dmz.example.com", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.1.2.3", "10.1.2.3", True),
        ("fd00::/8", "fd00::1", True),
        ("[fd00::1]:7000", "fd00::1", True),
        ("fd00::1", "fd00::1", True),
        (",, ,", "dmz.example.com", False),
    ],
)
def test_no_proxy(bypass: str, host: str, direct: bool) -> None:
    assert is_direct(host, 7000, bypass) == direct


def chosen(scheme: str, **environ: str) -> Proxy | None:
    return proxy_for(scheme, "dmz.example.com", 7000, environ)


def test_the_environment_by_scheme() -> None:
    assert chosen("https") is None
    assert chosen("https", HTTPS_PROXY="http://p:1") == Proxy(host="p", port=1)
    assert chosen("http", HTTPS_PROXY="http://p:1") is None
    assert chosen("http", http_proxy="p:1", HTTP_PROXY="http://q:2") == Proxy(host="p", port=1)
    assert chosen("http", ALL_PROXY="p:1/") == Proxy(host="p", port=1)
    assert chosen("http", HTTP_PROXY="p:1", NO_PROXY="example.com") is None
    assert chosen("http", HTTP_PROXY="") is None
    assert chosen("http", HTTP_PROXY="http://proxy.example.com") == Proxy(host="proxy.example.com", port=80)


def test_credentials_of_the_environment_are_decoded_and_not_shown() -> None:
    found = chosen("https", https_proxy="http://me:s%40crt@with@p:1")
    assert found is not None and found.credentials is not None
    assert found.credentials.reveal() == "me:s@crt@with"
    assert "crt" not in repr(found) and "crt" not in found.name


@pytest.mark.parametrize(
    "value", ["https://p:1", "socks5://p:1", "http://me:secret@p:x", "http://secret@p:1", "http://"]
)
def test_a_wrong_environment_is_refused_without_its_secret(value: str) -> None:
    with pytest.raises(ValueError, match="the environment variable HTTP_PROXY") as caught:
        chosen("http", HTTP_PROXY=value)
    assert "secret" not in str(caught.value)


def test_the_url_of_the_file() -> None:
    assert parse_proxy("http://proxy.example.com:3128") == ("proxy.example.com", 3128)
    for wrong in ("https://p:1", "p:1", "http://me:secret@p:1", "http://p:1/path", 3128):
        with pytest.raises(ValueError, match=r"must|use http") as caught:
            parse_proxy(wrong)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("text", ["me:secret", "me:secret\n", "me:\n", "me:secret:and:more\r\n"])
def test_credentials_files(tmp_path: Path, text: str) -> None:
    file = tmp_path / "credentials"
    file.write_bytes(text.encode())
    assert read_credentials(file).reveal() == text.strip()


@pytest.mark.parametrize(
    "data", [b"", b"secret", b":secret", b"me:secret\nmore", b"me:\xff", b"me:" + b"x" * 5000]
)
def test_wrong_credentials_files(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "credentials"
    file.write_bytes(data)
    with pytest.raises(ValueError, match=str(file)) as caught:
        read_credentials(file)
    assert "secret" not in str(caught.value)


def test_the_request() -> None:
    assert connect_bytes(PROXY, DMZ) == f"CONNECT {DMZ} HTTP/1.1\r\nHost: {DMZ}\r\n\r\n".encode()
    named = Proxy(host="p", port=1, credentials=Secret("me:sécret"))
    assert base64.b64encode("me:sécret".encode()) in connect_bytes(named, DMZ)


def test_answers_in_pieces() -> None:
    whole = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n"
    for size in range(len(whole)):
        assert not read_answer(whole[:size], PROXY, DMZ)
    assert read_answer(whole, PROXY, DMZ)
    assert read_answer(b"HTTP/1.0 200 OK\r\n\r\n", PROXY, DMZ)


@pytest.mark.parametrize(
    ("answer", "words", "refused"),
    [
        (b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", "set proxy.credentials_file", True),
        (
            b"HTTP/1.1 407 X\r\nProxy-Authenticate: NTLM\r\n\r\n",
            "a login by ntlm, but only Basic",
            True,
        ),
        (b"HTTP/1.1 403 Filtered\r\n\r\n", "forbids connections to dmz.example.com:7000", True),
        (b"HTTP/1.1 503 X\r\n\r\n", "can't reach dmz.example.com:7000", False),
        (b"HTTP/1.1 404 X\r\n\r\n", "status 404", True),
        (b"HTTP/1.1 200 OK\r\n\r\nmore", "before the DMZ node was asked", False),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer like an HTTP proxy", False),
        (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 20000, "does not answer like an HTTP proxy", False),
    ],
)
def test_refusals(answer: bytes, words: str, refused: bool) -> None:
    with pytest.raises(ProxyRefused, match=words) as caught:
        read_answer(answer, PROXY, DMZ)
    assert caught.value.refused == refused


def test_an_end_and_a_wrong_password() -> None:
    with pytest.raises(ProxyRefused, match="without an answer"):
        read_answer(b"HTTP/1.1 200", PROXY, DMZ, ended=True)
    named = Proxy(host="p", port=1, credentials=Secret("me:secret"))
    with pytest.raises(ProxyRefused, match="does not accept the user name and password"):
        read_answer(b"HTTP/1.1 407 X\r\nProxy-Authenticate: Basic realm=x\r\n\r\n", named, DMZ)
