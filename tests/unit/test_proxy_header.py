"""PROXY headers and the records that tell of clients: read, written, and everything near them."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath.address import parse_endpoint
from _fastpath.meta import make_meta, understand_meta
from _fastpath.proxy import make_proxy, read_proxy

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = b"\x7f\0\0\x01\x0a\0\0\x02" + struct.pack(">HH", 1000, 80)
SIX = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack(">HH", 1000, 80)


def raw(text: str) -> bytes:
    found = parse_endpoint(text.encode())
    assert found is not None
    return found[0]


def binary(command: int, family: int, block: bytes) -> bytes:
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(block)) + block


GOOD = [
    (b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80\r\n", ("192.0.2.1", 1234, "10.0.0.1", 80)),
    (b"PROXY TCP6 2001:db8::1 ::1 65535 0\r\n", ("2001:db8::1", 65535, "::1", 0)),
    (b"PROXY UNKNOWN\r\n", None),
    (b"PROXY UNKNOWN ffff::1 what ever it says\r\n", None),
    (binary(0x21, 0x11, FOUR), ("127.0.0.1", 1000, "10.0.0.2", 80)),
    (binary(0x21, 0x21, SIX), ("2001:db8::1", 1000, "2001:db8::1", 80)),
    (binary(0x21, 0x11, FOUR + b"\x04\0\x03abc"), ("127.0.0.1", 1000, "10.0.0.2", 80)),
    (binary(0x20, 0x11, FOUR), None),
    (binary(0x20, 0x00, b""), None),
    (binary(0x21, 0x00, b""), None),
    (binary(0x21, 0x31, bytes(216)), None),
    (binary(0x20, 0x11, bytes(4080)), None),
]
BAD = [
    b"GET / HTTP/1.1\r\n",
    b"\x16\x03\x01",
    b"PROXY\r\n",
    b"PROXZ",
    b"proxy TCP4",
    b"PROXY  TCP4\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1234\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80 \r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1234 80 1\r\n",
    b"PROXY TCP4 ::1 ::1 1234 80\r\n",
    b"PROXY TCP6 192.0.2.1 10.0.0.1 1234 80\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 01 80\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 65536 80\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 -1 80\r\n",
    b"PROXY TCP4 192.0.2 10.0.0.1 1 80\r\n",
    b"PROXY UDP4 192.0.2.1 10.0.0.1 1 80\r\n",
    b"PROXY UNKNOWNX\r\n",
    b"PROXY TCP4 192.0.2.1 10.0.0.1 1 80\rX",
    b"PROXY " + b"x" * 101,
    b"PROXY UNKNOWN " + b"x" * 93 + b"\r\n",
    b"\r\n\r\n\0\r\nQUIT\r",
    binary(0x11, 0x11, FOUR),
    binary(0x22, 0x11, FOUR),
    binary(0x21, 0x11, FOUR[:-1]),
    binary(0x21, 0x21, FOUR),
    SIGNATURE + b"\x21\x11\x0f\xf1",
    SIGNATURE + b"\x21\x11\xff\xff",
]


@pytest.mark.parametrize(("header", "meaning"), GOOD)
def test_good_headers(header: bytes, meaning: tuple[str, int, str, int] | None) -> None:
    found = read_proxy(header + b"behind it")
    if meaning is None:
        assert found == (len(header), None, 0, None, 0)
    else:
        source, source_port, target, target_port = meaning
        assert found == (len(header), raw(source), source_port, raw(target), target_port)
    for size in range(len(header)):
        assert read_proxy(header[:size]) is None


@pytest.mark.parametrize("header", BAD)
def test_bad_headers(header: bytes) -> None:
    with pytest.raises(ValueError, match="PROXY"):
        read_proxy(header)


@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]),
)
def test_any_bytes(data: bytes, start: bytes) -> None:
    with contextlib.suppress(ValueError):
        found = read_proxy(start + data)
        assert found is None or 0 < found[0] <= len(start + data)


@given(
    st.sampled_from([1, 2]),
    st.ip_addresses(),
    st.integers(0, 65535),
    st.ip_addresses(),
    st.integers(0, 65535),
)
def test_there_and_back(
    version: int, source: ipaddress.IPv4Address, sport: int, target: ipaddress.IPv4Address, tport: int
) -> None:
    first, second = (raw(f"[{each}]" if each.version == 6 else str(each)) for each in (source, target))
    header = make_proxy(version, first, sport, second, tport)
    found = read_proxy(header)
    four = first[:12] == bytes(10) + b"\xff\xff"
    if four != (second[:12] == bytes(10) + b"\xff\xff"):
        second = raw("0.0.0.0") if four else bytes(16)
    assert found == (len(header), first, sport, second, tport)


def test_nobody_is_told_as_unknown() -> None:
    assert make_proxy(1, None, 0, None, 0) == b"PROXY UNKNOWN\r\n"
    assert make_proxy(2, None, 0, None, 0) == SIGNATURE + b"\x21\0\0\0"


def test_records_there_and_back() -> None:
    assert make_meta(b"192.0.2.1", 1, b"", 0) == b"\x01\x0b192.0.2.1:1"
    for client, target in (("192.0.2.1", "10.0.0.1"), ("2001:db8::1", "::1")):
        made = make_meta(client.encode(), 1234, target.encode(), 80)
        assert understand_meta(made) == (raw(client), 1234, raw(target), 80)
        assert understand_meta(b"\x63\x02zz" + made) == (raw(client), 1234, raw(target), 80)


@pytest.mark.parametrize(
    "meta",
    [
        b"",
        b"\x01",
        b"\x01\x00",
        b"\x01\x05hello",
        b"\x01\x0b192.0.2.1:",
        b"\x02\x091.2.3.4:1",
        b"\x01\x0b192.0.2.1:1\x02\xff",
        b"\x01\x0d192.0.2.1:1\r\n",
    ],
)
def test_records_that_tell_of_nobody(meta: bytes) -> None:
    assert understand_meta(meta) is None


@given(st.binary(max_size=200))
def test_any_records(meta: bytes) -> None:
    understand_meta(meta)
