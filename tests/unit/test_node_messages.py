"""Control messages: what both sides send each other after the handshake."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.model import Match
from broker.tunnel.messages import (
    MAX_CONTROL,
    Announce,
    Refused,
    RefusedService,
    announce_bytes,
    printable,
    read_control,
    refused_bytes,
)


def test_an_announcement_survives_the_wire():
    services = (Match(host="a.example", path="/x"), Match(name="redis"), Match())
    assert read_control(announce_bytes(services)) == Announce(services)


def test_a_refusal_survives_the_wire():
    payload = refused_bytes(
        [(Match(host="a.example"), "forbidden", "no right"), (Match(name="db"), "conflict", "taken")]
    )
    assert read_control(payload) == Refused(
        (RefusedService("a.example/", "forbidden", "no right"), RefusedService("db", "conflict", "taken"))
    )


def test_unknown_types_are_ignored():
    assert read_control(msgpack.packb({"type": "weather", "rain": True})) is None


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": 5},
        {"type": "announce"},
        {"type": "announce", "services": {}},
        {"type": "announce", "services": [{"match": "a b"}]},
        {"type": "refused"},
        {"type": "refused", "services": [5]},
        {"type": "refused", "services": [{"match": "a"}]},
        {"type": "refused", "services": [{"match": "a", "code": "NOT A CODE"}]},
        {"type": "refused", "services": [{"match": "a", "code": "forbidden", "reason": 5}]},
    ],
)
def test_messages_that_make_no_sense(message):
    with pytest.raises(ValueError, match=r"\w"):
        read_control(msgpack.packb(message))


def test_a_message_over_the_limit_is_not_decoded():
    with pytest.raises(ValueError, match="limit"):
        read_control(b"\x81" * (MAX_CONTROL + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data):
    reason = ""
    try:
        read_control(data)
    except ValueError as error:
        reason = str(error)
    assert not reason or reason.isprintable()


@given(st.text(max_size=600), st.integers(1, 300))
def test_a_strangers_text_is_bounded_and_printable(text, limit):
    shown = printable(text, limit)
    assert len(shown) <= limit
    assert shown.isprintable()
