"""W3C Trace Context in heads: what is passed on as it came, what is written anew, what is sampled."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath.trace import EGRESS, trace

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
GOOD = f"00-{TRACE}-{PARENT}-01"
START, END = b"GET / HTTP/1.1\r\nHost: a\r\n", b"X-Request-Id: 1\r\n\r\n"
WRITTEN = re.compile(
    rb"^traceparent: 00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])\r$", re.MULTILINE | re.IGNORECASE
)


def head(*lines: str) -> bytes:
    return START + "".join(f"{line}\r\n" for line in lines).encode("latin-1") + END


def written(data: bytes) -> tuple[str, int, str]:
    """The one traceparent: trace, span, flags."""
    (found,) = WRITTEN.findall(data)
    return found[0].decode(), int(found[1], 16), found[2].decode()


def test_a_sampled_one_gets_this_nodes_span() -> None:
    data = head(f"traceparent: {GOOD}", "tracestate: a=1,b=2", "tracestate: c=3")
    out, span, parent, _ = trace(data)
    assert parent == int(PARENT, 16)
    assert span
    assert written(out) == (TRACE, span ^ EGRESS, "01")
    assert len(out) == len(data)
    assert out.replace(f"{span ^ EGRESS:016x}".encode(), PARENT.encode()) == data, "all else is as it was"


@pytest.mark.parametrize("begin", [False, True])
def test_an_unsampled_one_passes_as_it_is(begin: bool) -> None:
    data = head(f"TraceParent:{GOOD[:-1]}0", "tracestate: a=1")
    assert trace(data, begin=begin) == (data, 0, 0, 0)


def test_none_is_begun_where_that_is_not_wanted() -> None:
    data = head()
    assert trace(data) == (data, 0, 0, 0)
    out, span, parent, _ = trace(data, begin=True)
    assert parent == 0
    assert written(out)[1:] == (span ^ EGRESS, "01")
    assert out.startswith(data[:-2]), "the field comes last"
    assert out.endswith(b"\r\n\r\n")
    out, span, parent, _ = trace(data, begin=True, ratio=0.0)
    assert (span, parent, written(out)[2]) == (0, 0, "00")


INVALID = {
    "short": GOOD[:-1],
    "long": GOOD + "0",
    "more, in version 00": GOOD + "-00",
    "upper case": GOOD.upper(),
    "version ff": "ff" + GOOD[2:],
    "no trace": f"00-{'0' * 32}-{PARENT}-01",
    "no parent": f"00-{TRACE}-{'0' * 16}-01",
    "no number": f"00-{TRACE[:-1]}g-{PARENT}-01",
    "no number in the parent": f"00-{TRACE}-{PARENT[:-1]} -01",
    "flags": f"00-{TRACE}-{PARENT}-0x",
    "no dashes": GOOD.replace("-", "_"),
    "a later version, with no dash": "01" + GOOD[2:] + "x",
    "empty": "",
    "two in one": f"{GOOD}, {GOOD}",
}


@pytest.mark.parametrize("value", INVALID.values(), ids=INVALID)
def test_an_invalid_one_is_none(value: str) -> None:
    """W3C Trace Context 3.2: the trace is begun anew, and its state is void."""
    data = head(f"traceparent: {value}", "tracestate: a=1", "Tracestate: b=2")
    assert trace(data) == (data, 0, 0, 0), "who does not begin traces does not touch them"
    out, span, parent, _ = trace(data, begin=True)
    assert parent == 0
    fresh = written(out)
    assert fresh[0] != TRACE
    assert fresh[1:] == (span ^ EGRESS, "01")
    assert b"tracestate" not in out.lower()


def test_two_are_none() -> None:
    data = head(f"traceparent: {GOOD}", f"traceparent: {GOOD}")
    out, span, parent, _ = trace(data, begin=True)
    assert parent == 0
    assert written(out)[1] == span ^ EGRESS


@pytest.mark.parametrize("more", ["", "-anything", "-00-00"])
def test_a_later_version_is_read_as_far_as_it_is_known(more: str) -> None:
    out, span, parent, _ = trace(head(f"traceparent: cc{GOOD[2:]}{more}", "tracestate: a=1"))
    assert parent == int(PARENT, 16)
    assert written(out) == (TRACE, span ^ EGRESS, "01")
    assert b"tracestate: a=1\r\n" in out


@pytest.mark.parametrize(
    "lines", [[], ["traceparent: nonsense", "tracestate: a=1"], [f"traceparent: cc{GOOD[2:]}-x"]]
)
def test_a_mark_points_to_the_same_byte(lines: list[str]) -> None:
    data = head(*lines)
    place = data.index(b"X-Request-Id: 1") + 14
    out, _, _, moved = trace(data, begin=True, mark=place)
    assert out[moved : moved + 1] == b"1"
    assert trace(data, begin=True, mark=4)[3] == 4


def test_a_share_is_sampled() -> None:
    sampled = sum(trace(head(), begin=True, ratio=0.25)[1] != 0 for _ in range(4000))
    assert 800 < sampled < 1200


def test_ids_differ() -> None:
    spans = {trace(head(), begin=True)[1] for _ in range(1000)}
    assert len(spans) == 1000


@given(
    st.lists(
        st.sampled_from(
            [f"traceparent: {GOOD}", "traceparent:", "Tracestate: a", "t: x", "traceparents: x", "x: y"]
        )
    ),
    st.booleans(),
)
def test_whatever_stands_there(lines: list[str], begin: bool) -> None:
    """A head stays a head; other fields stay, in their order."""
    random.shuffle(lines)
    data = head(*lines)
    out, span, _, _ = trace(data, begin=begin)
    others = [
        line for line in data.split(b"\r\n") if not line.lower().startswith((b"traceparent:", b"tracestate:"))
    ]
    kept = [
        line for line in out.split(b"\r\n") if not line.lower().startswith((b"traceparent:", b"tracestate:"))
    ]
    assert kept == others
    if span:
        assert written(out)[1] == span ^ EGRESS
