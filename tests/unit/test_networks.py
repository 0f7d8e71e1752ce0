"""Addresses and sets of networks, against Python's ipaddress."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath.address import format_endpoint, parse_endpoint
from _fastpath.networks import Admission, Networks

ADDRESSES = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6))
# Few different bits, so that networks overlap, touch and contain each other.
CLOSE = st.integers(0, 63).map(lambda n: ipaddress.IPv4Address(0x0A000000 + n))


def packed(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bytes:
    if address.version == 4:
        return bytes(10) + b"\xff\xff" + address.packed
    return address.packed


@given(ADDRESSES, st.integers(0, 65535))
def test_endpoints_there_and_back(address: ipaddress.IPv4Address, port: int) -> None:
    text = format_endpoint(packed(address), port)
    assert parse_endpoint(text.encode()) == (packed(address), port)
    host = text.rpartition(":")[0].strip("[]")
    assert packed(ipaddress.ip_address(host)) == packed(address)
    assert parse_endpoint(host.encode()) == (packed(address), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "1.2.3",
        "1.2.3.4.5",
        "01.2.3.4",
        "1.2.3.256",
        " 1.2.3.4",
        "1.2.3.4 ",
        "1.2.3.4:",
        "1.2.3.4:65536",
        "1.2.3.4:01",
        "1.2.3.4:-1",
        "[1.2.3.4]",
        "[::1",
        "::1]",
        "[::1]1",
        "[::1]:",
        "[::1]:a",
        "::1%lo",
        "[::1%lo]:1",
        "1.2.3.4\0",
        "::ffff:1.2.3.4.5",
        ":",
        "[]",
        "[]:1",
        "unknown",
        "_hidden",
        "1" * 100,
    ],
)
def test_what_is_no_address(text: str) -> None:
    assert parse_endpoint(text.encode()) is None


def test_a_mapped_address_is_an_ipv4_address() -> None:
    assert parse_endpoint(b"[::ffff:192.0.2.1]:80") == parse_endpoint(b"192.0.2.1:80")
    assert "::ffff:10.1.2.3" in Networks(["10.0.0.0/8"])
    assert "10.1.2.3" in Networks(["::ffff:10.0.0.0/104"])
    assert "10.1.2.3" not in Networks(["::/128", "2001:db8::/32"])
    assert "fe80::1%eth0" in Networks(["fe80::/10"])


@given(
    st.lists(st.tuples(CLOSE, st.integers(26, 32)), max_size=8),
    st.lists(CLOSE, min_size=1, max_size=20),
)
def test_members_are_those_of_the_networks(
    parts: list[tuple[ipaddress.IPv4Address, int]], asked: list[ipaddress.IPv4Address]
) -> None:
    networks = [ipaddress.ip_network((address, bits), strict=False) for address, bits in parts]
    compiled = Networks(networks)
    for address in asked:
        assert (str(address) in compiled) == any(address in network for network in networks)


@pytest.mark.parametrize("edge", ["0.0.0.0/0", "::/0", "255.255.255.255/32", "::/128", "ffff::/16"])
def test_edges(edge: str) -> None:
    network = ipaddress.ip_network(edge)
    assert str(network[0]) in Networks([edge])
    assert str(network[-1]) in Networks([edge])


def test_wrong_networks_are_refused() -> None:
    for text in ("10.0.0.1/8", "example.com", ""):
        with pytest.raises(ValueError, match=r"IPv4 or IPv6|host bits"):
            Networks([text])


def test_deny_wins() -> None:
    rules = Admission(Networks(["10.0.0.0/8", "::1"]), Networks(["10.1.0.0/16"]))
    assert "10.2.0.1" in rules
    assert "10.1.0.1" not in rules
    assert "192.0.2.1" not in rules
    assert "::1" in rules
    assert "nonsense" not in rules
    assert "192.0.2.1" in Admission(None, Networks(["10.0.0.0/8"]))
