"""The registration handshake, without sockets: what is understood, and how all else is refused."""

import base64
import json

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath import http1
from broker.config.model import Match
from broker.tunnel.handshake import (
    HEAD_LIMIT,
    Acceptance,
    Refusal,
    Registration,
    acceptance_bytes,
    read_answer,
    read_registration,
    refusal_bytes,
    registration_bytes,
)

REGISTRATION = Registration(
    agent="orders-1",
    instance="0123456789abcdef" * 2,
    index=1,
    window=65536,
    streams=10000,
    services=(Match(host="orders.example.com", path="/"), Match(path="/api"), Match(name="redis")),
    token="secret-token",
)
ACCEPTANCE = Acceptance(node="dmz-1", window=65536, streams=0, silence_ms=5000, retry_ms=250)
PARAMETERS = {
    "name": "a",
    "instance": "0" * 32,
    "index": 0,
    "window": 1,
    "streams": 1,
    "services": [{"match": "a.example/x"}],
}


def head(parameters: object = None, *, drop: str = "", **fields: str) -> bytes:
    packed = msgpack.packb(PARAMETERS if parameters is None else parameters)
    lines = {
        "Host": "dmz",
        "Connection": "Upgrade",
        "Upgrade": "broker-tunnel",
        "Broker-Version": "1",
        "Broker-Parameters": base64.urlsafe_b64encode(packed).rstrip(b"=").decode(),
    }
    lines |= {name.replace("_", "-"): value for name, value in fields.items()}
    lines.pop(drop, None)
    return ("GET /tunnel HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in lines.items()) + "\r\n").encode(
        "latin-1"
    )


def refused(data: bytes) -> Refusal:
    with pytest.raises(Refusal) as caught:
        assert read_registration(data) is not None
    return caught.value


# --- both sides together ------------------------------------------------------------------------


def test_a_registration_survives_the_wire():
    data, complete = registration_bytes(REGISTRATION, "dmz.example:7000")
    assert complete
    assert read_registration(data + b"frames") == (REGISTRATION, len(data))


def test_an_acceptance_survives_the_wire():
    data = acceptance_bytes(ACCEPTANCE)
    assert read_answer(data + b"frames") == (ACCEPTANCE, len(data))


def test_every_prefix_needs_more_bytes():
    data, _ = registration_bytes(REGISTRATION, "dmz")
    assert all(read_registration(data[:size]) is None for size in range(1, len(data)))
    data = acceptance_bytes(ACCEPTANCE)
    assert all(read_answer(data[:size]) is None for size in range(1, len(data)))


def test_the_token_is_not_shown():
    assert "secret-token" not in repr(REGISTRATION)


def test_services_that_do_not_fit_are_announced_later():
    services = tuple(Match(host=f"{'x' * 50}{i}.example.com") for i in range(1500))
    registration = Registration("a", "0" * 32, 0, 1, 1, services)
    data, complete = registration_bytes(registration, "dmz")
    assert not complete
    assert len(data) < HEAD_LIMIT
    read = read_registration(data)
    assert read is not None and read[0].services == ()


@given(
    st.text(st.sampled_from("abcXYZ019"), min_size=1, max_size=64),
    st.integers(0, 1023),
    st.integers(1, 2**31 - 1),
    st.integers(0, 65535),
    st.one_of(st.none(), st.from_regex(r"[A-Za-z0-9._~+/-]{1,200}=*", fullmatch=True)),
)
def test_all_allowed_values_survive(name, index, window, streams, token):
    registration = Registration(name, "a" * 32, index, window, streams, (), token)
    data, _ = registration_bytes(registration, "dmz")
    assert read_registration(data) == (registration, len(data))


def test_a_refusal_reaches_the_agent():
    sent = Refusal(503, "overloaded", "Too many tunnels \u2014 try later.", 7)
    with pytest.raises(Refusal) as caught:
        read_answer(refusal_bytes(sent))
    seen = caught.value
    assert (seen.status, seen.code, seen.sentence, seen.retry_after) == (503, "overloaded", sent.sentence, 7)


# --- what the DMZ node refuses ------------------------------------------------------------------


def test_a_browser_gets_a_helpful_426():
    refusal = refused(b"GET / HTTP/1.1\r\nHost: dmz\r\n\r\n")
    answer = http1.parse_response(refusal_bytes(refusal), HEAD_LIMIT, 64)
    assert answer is not None and answer.status == 426
    fields = {name.lower(): value for name, value in answer.headers}
    assert fields[b"upgrade"] == b"broker-tunnel"
    assert fields[b"broker-version"] == b"1"
    assert fields[b"broker-error"] == b"unsupported"
    assert fields[b"content-type"] == b"application/problem+json"
    problem = json.loads(refusal_bytes(refusal)[answer.size :])
    assert problem["status"] == 426
    assert "broker connect" in problem["detail"]


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (head().replace(b"GET", b"POST"), 405, "bad-request"),
        (head().replace(b"/tunnel", b"/other"), 404, "no-service"),
        (head().replace(b"HTTP/1.1", b"HTTP/1.0"), 426, "unsupported"),
        (head(Upgrade="websocket"), 426, "unsupported"),
        (head(Connection="close"), 426, "unsupported"),
        (head(Broker_Version="2"), 426, "unsupported"),
        (head(drop="Broker-Version"), 426, "unsupported"),
        (head(drop="Broker-Parameters"), 400, "bad-request"),
        (head(Broker_Parameters="!"), 400, "bad-request"),
        (head(Broker_Parameters="AAA"), 400, "bad-request"),
        (head(Content_Length="5"), 400, "bad-request"),
        (head(Authorization="Basic Zm9v"), 401, "unauthenticated"),
        (head(Authorization="Bearer two words"), 401, "unauthenticated"),
        (b"\x16\x03\x01 no http\r\n\r\n", 400, "bad-request"),
        (b"GET /tunnel HTTP/1.1\r\nHost: a\r\nX: " + b"x" * HEAD_LIMIT, 431, "head-too-large"),
        (b"GET /tunnel HTTP/2.0\r\nHost: a\r\n\r\n", 505, "unsupported"),
    ],
)
def test_refused_requests(data, status, code):
    refusal = refused(data)
    assert (refusal.status, refusal.code) == (status, code)
    assert refusal.sentence.endswith(".")
    refusal_bytes(refusal)


def test_fields_that_decide_may_not_occur_twice():
    for line in (
        b"Broker-Parameters: AAAA\r\n",
        b"Broker-Version: 1\r\n",
        b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
    ):
        refusal = refused(head()[:-2] + line + b"\r\n")
        assert refusal.status in (400, 426)


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "a\r\nb"},
        {"name": "x" * 65},
        {"name": 5},
        {"instance": "0" * 31},
        {"instance": "g" * 32},
        {"index": -1},
        {"index": 1024},
        {"index": True},
        {"index": "0"},
        {"window": 0},
        {"window": 2**31},
        {"streams": 65536},
        {"streams": None},
        {"services": {}},
        {"services": ["a"]},
        {"services": [{"match": "a", "name": "b"}]},
        {"services": [{"match": 5}]},
        {"services": [{}]},
        {"services": [{"match": "a b/"}]},
        {"services": [{"match": "/a/../b"}]},
        {"services": [{"match": "/a?b"}]},
        {"services": [{"match": "a.example/\u00e9"}]},
        {"services": [{"match": "*"}]},
        {"services": [{"match": "a.*.b"}]},
        {"services": [{"match": "/" + "x" * 2000}]},
        {"services": [{"name": ""}]},
        {"services": [{"name": "a b"}]},
        {"services": [{"match": f"h{i}"} for i in range(2001)]},
    ],
)
def test_refused_parameters(change):
    refusal = refused(head(PARAMETERS | change))
    assert (refusal.status, refusal.code) == (400, "bad-request")
    assert "\n" not in refusal.sentence
    assert len(refusal.sentence) < 400


def test_unknown_keys_are_ignored():
    parameters = PARAMETERS | {"colour": "green", "services": [{"match": "a.example/x", "weight": 3}]}
    read = read_registration(head(parameters))
    assert read is not None and read[0].services == (Match(host="a.example", path="/x"),)


def test_spellings_of_one_service_are_one_service():
    parameters = PARAMETERS | {"services": [{"match": "A.Example/x/"}, {"match": "a.example/x"}]}
    read = read_registration(head(parameters))
    assert read is not None and read[0].services == (Match(host="a.example", path="/x"),)


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"\xc1",
        b"\x80\x80",  # two values
        b"\x90",  # no map
        b"\x81\x01\x02",  # a key that is no text
        b"\x81\xc4\x01a\x02",  # a binary key
        b"\xdf\xff\xff\xff\xff",  # a map of 4 billion
        b"\x81\xa1a\xdd\xff\xff\xff\xff",  # an array of 4 billion
        b"\x81\xa1a\xdb\xff\xff\xff\xff",  # a text of 4 GiB
        b"\x81\xa1a\xd6\xff\x00\x00\x00\x00",  # a timestamp
        b"\x81\xa1a\xc7\x00\x05",  # an empty extension
        b"\x81\xa1a\xa2\xff\xfe",  # not UTF-8
        b"\x81\xa1a" + b"\x91" * 30000 + b"\x01",  # nested without end
    ],
)
def test_msgpack_that_is_none(packed):
    value = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
    refusal = refused(head(Broker_Parameters=value))
    assert (refusal.status, refusal.code) == (400, "bad-request")


# --- what the agent refuses ---------------------------------------------------------------------


def answered(data: bytes, *, ended: bool = True) -> Refusal:
    with pytest.raises(Refusal) as caught:
        assert read_answer(data, ended=ended) is not None
    return caught.value


def test_an_acceptance_that_makes_no_sense():
    good = acceptance_bytes(ACCEPTANCE)
    for bad in (
        good.replace(b"broker-tunnel", b"websocket"),
        good.replace(b"Broker-Version: 1", b"Broker-Version: 9"),
        acceptance_bytes(Acceptance("dmz", 0, 0, 5000)),
        acceptance_bytes(Acceptance("dmz", 65536, 70000, 5000)),
        acceptance_bytes(Acceptance("dmz", 65536, 0, 0)),
        acceptance_bytes(Acceptance("dmz", 65536, 0, 5000, -1)),
        acceptance_bytes(Acceptance("d m z", 65536, 0, 5000)),
    ):
        refusal = answered(bad)
        assert (refusal.status, refusal.code) == (0, "bad-answer")


def test_answers_of_others():
    assert answered(b"SSH-2.0-OpenSSH_9.2\r\n").code == "bad-answer"
    assert answered(b"").code == "bad-answer"
    assert answered(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi").code == "bad-answer"
    assert answered(b"HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n").status == 302


def test_the_text_of_a_refusal_is_bounded_and_printable():
    refusal = answered(refusal_bytes(Refusal(403, "forbidden", "\x1b[31m" + "x" * 5000)))
    assert refusal.sentence.isprintable()
    assert len(refusal.sentence) <= 256


@pytest.mark.parametrize("body", [b"", b"[" * 16000, b"[]", b'{"detail": 5}', b"\xff"])
def test_bodies_without_a_detail(body):
    lines = f"HTTP/1.1 403 Forbidden\r\nBroker-Error: forbidden\r\nContent-Length: {len(body)}\r\n\r\n"
    assert answered(lines.encode() + body, ended=False).code == "forbidden"


def test_a_refusal_waits_for_its_body():
    data = refusal_bytes(Refusal(403, "forbidden", "No."))
    assert read_answer(data[:-1]) is None
    assert answered(data[:-1]).code == "forbidden"


# --- hostile input ------------------------------------------------------------------------------


@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data):
    for read in (read_registration, read_answer):
        try:
            read(data)
        except Refusal as refusal:
            refusal_bytes(refusal)


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.recursive(
            st.none() | st.integers(-(2**63), 2**64 - 1) | st.text(max_size=20) | st.binary(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
            ),
            max_leaves=10,
        ),
    )
)
def test_any_parameters_are_read_or_refused(parameters):
    for change in (parameters, PARAMETERS | parameters):
        try:
            read_registration(head(change))
        except Refusal as refusal:
            refusal_bytes(refusal)


@given(
    st.lists(
        st.fixed_dictionaries({}, optional={"match": st.text(max_size=30), "name": st.text(max_size=30)}),
        max_size=5,
    )
)
def test_announced_services_are_canonical_or_refused(services):
    try:
        read = read_registration(head(PARAMETERS | {"services": services}))
    except Refusal:
        return
    assert read is not None
    again, _ = registration_bytes(read[0], "dmz")
    second = read_registration(again)
    assert second is not None and second[0].services == read[0].services
