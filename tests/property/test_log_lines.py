"""Texts and numbers of the access log: whatever comes, a line stays one line of JSON in plain ASCII."""

import itertools
import json
import re

from hypothesis import example, given
from hypothesis import strategies as st

from _fastpath.lines import decimal, escaped


def expected(text: bytes) -> bytes:
    return re.sub(rb"[^ !#-\[\]-~]", lambda found: b"\\u00%02x" % found[0][0], text)


def test_every_byte_at_every_place() -> None:
    """Whole words, halves and tails are looked at in different ways."""
    for size, byte in itertools.product(range(1, 50), range(256)):
        for at in range(size):
            text = b"abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMN"[:size]
            text = text[:at] + bytes([byte]) + text[at + 1 :]
            assert escaped(text, size) == expected(text)


@given(st.binary(max_size=200), st.integers(0, 250))
@example(b"", 5)
def test_any_text_is_valid_json_again(text: bytes, most: int) -> None:
    line = escaped(text, most)
    assert line == expected(text[:most])
    assert json.loads(b'"%b"' % line).encode("latin-1") == text[:most]


@given(st.integers(0, 2**64 - 1))
@example(2**64 - 1)
def test_numbers(value: int) -> None:
    assert decimal(value) == b"%d" % value


def test_numbers_of_few_digits() -> None:
    assert [decimal(value) for value in range(2000)] == [b"%d" % value for value in range(2000)]
