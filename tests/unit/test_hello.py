"""The server name in a ClientHello, read from real ones and from everything near them."""

from __future__ import annotations

import ssl
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from _fastpath.hello import read_hello


def client_hello(name: str | None, **versions: ssl.TLSVersion) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname = False
    for key, version in versions.items():
        setattr(context, key, version)
    sent = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


HELLO = client_hello("App.Example.COM")
BODY = HELLO[5:]


def records(message: bytes, size: int) -> bytes:
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + struct.pack(">H", len(part)) + part for part in parts)


def extended(extensions: bytes) -> bytes:
    body = b"\x03\x03" + bytes(32) + b"\x00" + b"\x00\x02\x13\x01" + b"\x01\x00"
    body += struct.pack(">H", len(extensions)) + extensions
    return records(b"\x01" + struct.pack(">I", len(body))[1:] + body, 16384)


def server_name(name: bytes, kind: int = 0) -> bytes:
    entry = bytes([kind]) + struct.pack(">H", len(name)) + name
    names = struct.pack(">H", len(entry)) + entry
    return b"\x00\x00" + struct.pack(">H", len(names)) + names


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_of_a_real_hello(version: ssl.TLSVersion) -> None:
    assert read_hello(client_hello("a.b-c.example", maximum_version=version)) == "a.b-c.example"
    assert read_hello(HELLO) == "app.example.com"


def test_none_is_named() -> None:
    assert read_hello(client_hello(None)) == ""
    assert read_hello(extended(b"")) == ""


def test_every_beginning_wants_more() -> None:
    for size in range(len(HELLO)):
        assert read_hello(HELLO[:size]) is None, size


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 7, 100, 300])
def test_a_message_in_several_records(size: int) -> None:
    spread = records(BODY, size)
    assert read_hello(spread) == "app.example.com"
    assert read_hello(spread[:-1]) is None


def test_what_follows_the_message_is_of_no_concern() -> None:
    assert read_hello(HELLO + b"\x14\x03\x03\x00\x01\x01") == "app.example.com"


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x80\x2e\x01\x03\x01", b"\x15\x03\x01\x00\x02\x02\x28", b"\x16\x02", b"\0"],
)
def test_no_tls(data: bytes) -> None:
    with pytest.raises(ValueError, match="no TLS"):
        read_hello(data)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x00\x00",  # an empty record
        b"\x16\x03\x01\xff\xff" + b"\x01" * 10,  # a record over the limit
        b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",  # a ServerHello
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",  # 16 MiB announced
        b"\x16\x03\x01\x00\x01\x01\x17\x03\x03\x00\x01\x00",  # another kind of record in between
        records(b"\x01\x00\x00\x02\x03\x03", 100),  # a body of two bytes
        extended(server_name(b"a.example") + server_name(b"a.example")),  # twice
        extended(server_name(b"")),
        extended(server_name(b"a" * 254)),
        extended(server_name(b"a..b")),
        extended(server_name(b".a")),
        extended(server_name(b"a.")),
        extended(server_name(b"a/b")),
        extended(server_name(b"*.a")),
        extended(server_name(b"a\0b")),
        extended(server_name("ä.example".encode())),
        extended(server_name(b"a.example", kind=1)),
        extended(b"\x00\x00\x00\x00"),  # an empty extension
        extended(b"\x00\x00\xff\xff"),  # longer than what is there
    ],
)
def test_malformed(data: bytes) -> None:
    with pytest.raises(ValueError, match="malformed"):
        read_hello(data)


def test_a_hello_that_never_ends() -> None:
    crumbs = records(b"\x01\x00\x3f\xff" + bytes(16383), 1)
    assert read_hello(crumbs[:30_000]) is None
    with pytest.raises(ValueError, match="malformed"):
        read_hello(crumbs[:32_768])


@given(st.data())
@settings(max_examples=500, deadline=None)
def test_any_damage_is_an_answer(data: st.DataObject) -> None:
    damaged = bytearray(HELLO)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    del damaged[data.draw(st.integers(0, len(damaged))) :]
    try:
        name = read_hello(damaged)
    except ValueError:
        return
    assert name is None or len(name) <= 253


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes(data: bytes) -> None:
    try:
        read_hello(b"\x16\x03\x01\x01\x80" + data)
    except ValueError:
        return
