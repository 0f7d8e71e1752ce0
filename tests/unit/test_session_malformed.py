"""What the protocol forbids: the session is poisoned, says why, and nothing worse happens."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from _fastpath.events import EventSession
from _fastpath.frame import check_header, decode_header, encode_header
from tests.unit.wiring import (
    ACCEPTOR,
    ACK,
    CONTROL,
    DATA,
    END,
    FLOW_CONTROL,
    GOAWAY,
    INTERIM,
    INTERNAL,
    NEVER_SENT,
    OPEN,
    PING,
    PROTOCOL,
    REPLY,
    RESET,
    TRAILERS,
    WINDOW,
    carry,
    frame,
    frames,
    heard,
    one_session,
    open_frame,
    open_stream,
    reply_frame,
    reset_frame,
    two_sessions,
    window_frame,
)

FIRST = 0x0001_0000  # the first stream that the dialling side opens
LIMITS = {  # type: (least length, greatest length)
    OPEN: (8, 1179648),
    REPLY: (4, 1179648),
    DATA: (1, 65536),
    TRAILERS: (0, 8192),
    WINDOW: (4, 4),
    RESET: (4, 260),
    PING: (8, 8),
    GOAWAY: (4, 260),
    CONTROL: (1, 262144),
}


def assert_poisoned(session: EventSession, code: int, reason: str) -> None:
    assert (session.error, session.why) == (code, reason)
    *_, (kind, flags, stream, payload) = frames(session.gather_all())
    assert (kind, flags, stream) == (GOAWAY, 0, 0)
    assert payload == struct.pack(">HH", code, 0) + reason.encode()
    assert not session.has_output()
    assert session.tick() == -1
    assert heard(session.receive(open_frame(FIRST + 5))) == []
    assert session.open() is None and session.control(b"x") == -1
    assert session.error == code


# --- headers ------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1))
def test_header_is_read_as_written(length: int, kind: int, flags: int, stream: int) -> None:
    assert decode_header(encode_header(length, kind, flags, stream)) == (length, kind, flags, stream)
    assert encode_header(length, kind, flags, stream) == struct.pack(">IBBHI", length, kind, flags, 0, stream)


@pytest.mark.parametrize("kind", LIMITS)
def test_lengths_of_frames(kind: int) -> None:
    least, greatest = LIMITS[kind]
    stream = 0 if kind >= PING else FIRST
    for length in (least, greatest):
        assert check_header(encode_header(length, kind, 0, stream)) is None
    wrong = {greatest + 1, 2**31, 2**32 - 1} | ({least - 1} if least else set())
    for length in wrong:
        assert check_header(encode_header(length, kind, 0, stream)) is not None


def test_empty_data_frame_must_end() -> None:
    assert check_header(encode_header(0, DATA, END, FIRST)) is None
    assert check_header(encode_header(0, DATA, 0, FIRST)) is not None


@pytest.mark.parametrize("kind", [0, 10, 255])
def test_unknown_types(kind: int) -> None:
    assert check_header(encode_header(8, kind, 0, FIRST)) == "frame of an unknown type"


@pytest.mark.parametrize("stream", [0, 1, 0xFFFF, 0xFFFF_FFFF, ACCEPTOR, 0x0001_FFFF, ACCEPTOR | 7])
def test_impossible_stream_ids(stream: int) -> None:
    assert check_header(encode_header(4, WINDOW, 0, stream)) == "frame of a stream does not name one"


@pytest.mark.parametrize("kind", [PING, GOAWAY, CONTROL])
def test_frames_of_the_tunnel_name_no_stream(kind: int) -> None:
    assert check_header(encode_header(8, kind, 0, FIRST)) == "frame of the tunnel names a stream"


@pytest.mark.parametrize("kind", LIMITS)
def test_oversized_length_is_refused_from_the_header_alone(kind: int) -> None:
    with one_session() as session:
        session.receive(encode_header(LIMITS[kind][1] + 1, kind, 0, 0 if kind >= PING else FIRST))
        assert session.error == PROTOCOL
        assert session.partial_memory == 0


def test_memory_follows_what_arrives_not_what_is_announced() -> None:
    with one_session() as session:
        whole = open_frame(FIRST, b"h" * 1_000_000)
        session.receive(whole[:12])
        assert session.partial_memory == 0
        session.receive(whole[12:13])
        assert session.partial_memory <= 1024
        session.receive(whole[13:100_000])
        assert session.partial_memory <= 200_000
        ((name, _, _, head, _, _),) = heard(session.receive(whole[100_000:]))
        assert (name, len(head), session.partial_memory) == ("open", 1_000_000, 0)


def test_reserved_bits_and_unknown_flags_are_ignored() -> None:
    with one_session() as session:
        whole = bytearray(open_frame(FIRST, b"head", flags=0xF0))
        whole[6:8] = b"\xff\xff"
        ((name, _, _, head, _, flags),) = heard(session.receive(bytes(whole)))
        assert (name, head, flags) == ("open", b"head", 0)


# --- ids ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [REPLY, DATA, TRAILERS, WINDOW, RESET])
@pytest.mark.parametrize("stream", [FIRST, FIRST + 1, ACCEPTOR | FIRST])
def test_ids_that_were_never_opened(kind: int, stream: int) -> None:
    with one_session() as session:
        session.receive(frame(kind, 0, stream, bytes(4)))
        assert_poisoned(session, PROTOCOL, "frame of a stream that was never opened")


def test_an_id_that_is_queued_only_was_never_opened_for_the_peer() -> None:
    with one_session(dialled=True) as session:
        near = session.open()
        assert near is not None
        session.receive(reply_frame(near.id))
        assert_poisoned(session, PROTOCOL, "frame of a stream that was never opened")


@pytest.mark.parametrize(
    "late",
    [
        frame(DATA, 0, FIRST, b"late"),
        frame(DATA, END, FIRST),
        frame(TRAILERS, 0, FIRST),
        window_frame(FIRST, 5),
        window_frame(FIRST, 0x7FFF_FFFF),
        reset_frame(FIRST),
    ],
)
def test_frames_of_a_stream_that_is_over_are_ignored(late: bytes) -> None:
    with one_session() as session:
        ((_, far, *_),) = heard(session.receive(open_frame(FIRST)))
        far.reset(INTERNAL)
        assert heard(session.receive(late)) == []
        assert session.error == -1
        assert heard(session.receive(open_frame(0x0002_0000)))[0][0] == "open"
        assert heard(session.receive(late)) == []
        assert session.error == -1


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (FIRST, "OPEN names a slot whose stream is alive"),
        (0x0002_0000, "OPEN names a slot whose stream is alive"),
        (0x0002_0001, "OPEN does not name the next generation of its slot"),
        (0x0001_0064, "OPEN names a slot above the limit of streams"),
        (ACCEPTOR | 0x0001_0001, "OPEN with the initiator bit of the other side"),
    ],
)
def test_ids_that_can_not_be_opened(stream: int, reason: str) -> None:
    with one_session(local_streams=100) as session:
        session.receive(open_frame(FIRST))
        session.receive(open_frame(stream))
        assert_poisoned(session, PROTOCOL, reason)


@pytest.mark.parametrize("generation", [1, 3, 32767])
def test_a_slot_goes_on_with_the_next_generation_only(generation: int) -> None:
    with one_session() as session:
        ((_, far, *_),) = heard(session.receive(open_frame(FIRST)))
        far.reset(INTERNAL)
        session.receive(open_frame(generation << 16))
        assert_poisoned(session, PROTOCOL, "OPEN does not name the next generation of its slot")


def test_frames_of_a_generation_that_is_yet_to_come() -> None:
    with one_session() as session:
        session.receive(open_frame(FIRST))
        session.receive(frame(DATA, 0, 0x0002_0000, b"early"))
        assert_poisoned(session, PROTOCOL, "frame of a stream that was never opened")


# --- states -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (struct.pack(">BBHI", 0, 0, 0, 0), "OPEN of an unknown kind"),
        (struct.pack(">BBHI", 3, 0, 0, 0), "OPEN of an unknown kind"),
        (struct.pack(">BBHI", 1, 0, 1, 0), "OPEN is shorter than its parts"),
        (struct.pack(">BBHI", 1, 0, 0, 1), "OPEN is shorter than its parts"),
        (struct.pack(">BBHI", 1, 0, 2, 0xFFFF_FFFF) + b"ab", "OPEN is shorter than its parts"),
        (struct.pack(">BBHI", 1, 0, 0xFFFF, 0xFFFF_FFFF) + b"ab", "OPEN is shorter than its parts"),
    ],
)
def test_malformed_opens(payload: bytes, reason: str) -> None:
    with one_session() as session:
        session.receive(frame(OPEN, 0, FIRST, payload))
        assert_poisoned(session, PROTOCOL, reason)


REPLIES = {
    "REPLY is shorter than its head": [frame(REPLY, 0, FIRST, struct.pack(">I", 1))],
    "REPLY after the final one": [reply_frame(FIRST), reply_frame(FIRST)],
    "interim REPLY with a body or an end": [reply_frame(FIRST, b"h", b"body", INTERIM)],
    "DATA before the final REPLY": [frame(DATA, 0, FIRST, b"x")],
    "TRAILERS outside of a message": [frame(TRAILERS, 0, FIRST, b"x")],
    "DATA after the end of its direction": [reply_frame(FIRST, flags=END), frame(DATA, END, FIRST)],
    "WINDOW of nothing": [window_frame(FIRST, 0)],
    "RESET with an unknown delivery": [reset_frame(FIRST, delivery=3)],
}


@pytest.mark.parametrize("reason", REPLIES)
def test_answers_out_of_place(reason: str) -> None:
    with one_session(dialled=True) as session:
        near = session.open()
        near.send_head(b"head")
        session.gather_all()
        for part in REPLIES[reason]:
            assert session.error == -1
            session.receive(part)
        assert_poisoned(session, PROTOCOL, reason)


def test_interim_replies_do_not_open_the_body() -> None:
    with one_session(dialled=True) as session:
        session.open().send_head(b"head")
        session.gather_all()
        session.receive(reply_frame(FIRST, flags=INTERIM) + reply_frame(FIRST, flags=INTERIM))
        assert session.error == -1
        session.receive(frame(DATA, 0, FIRST, b"x"))
        assert_poisoned(session, PROTOCOL, "DATA before the final REPLY")


@pytest.mark.parametrize("late", [reply_frame(FIRST), frame(DATA, 0, FIRST, b"x"), frame(TRAILERS, 0, FIRST)])
def test_frames_after_the_end_of_a_request(late: bytes) -> None:
    with one_session() as session:
        session.receive(open_frame(FIRST, flags=END))
        session.receive(late)
        assert session.error == PROTOCOL


def test_the_side_that_opened_sends_no_reply() -> None:
    with one_session() as session:
        session.receive(open_frame(FIRST))
        session.receive(reply_frame(FIRST))
        assert_poisoned(session, PROTOCOL, "REPLY from the side that opened the stream")


def test_codes_of_a_newer_version() -> None:
    with one_session(dialled=True) as session:
        near = session.open()
        near.send_head(b"head")
        session.gather_all()
        assert heard(session.receive(reset_frame(FIRST, 999, NEVER_SENT, b"new"))) == [
            ("reset", near, INTERNAL, NEVER_SENT, b"new")
        ]


# --- credit -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([open_frame(FIRST, b"h", b"x" * 1001)], "OPEN exceeds the stream's window"),
        (
            [open_frame(FIRST, b"h", b"x" * 1000), frame(DATA, 0, FIRST, b"x")],
            "DATA exceeds the stream's window",
        ),
        ([open_frame(FIRST), frame(DATA, 0, FIRST, bytes(1001))], "DATA exceeds the stream's window"),
        ([open_frame(FIRST), encode_header(1001, DATA, 0, FIRST)], "DATA exceeds the stream's window"),
    ],
)
def test_more_bytes_than_credit(parts: list[bytes], reason: str) -> None:
    with one_session(local_window=1000) as session:
        for part in parts:
            session.receive(part)
        assert_poisoned(session, FLOW_CONTROL, reason)


def test_a_reply_over_the_window() -> None:
    with one_session(dialled=True, local_window=1000) as session:
        session.open().send_head(b"head")
        session.gather_all()
        session.receive(reply_frame(FIRST, b"h", bytes(1001)))
        assert_poisoned(session, FLOW_CONTROL, "REPLY exceeds the stream's window")


@pytest.mark.parametrize(
    "sizes", [[0x7FFF_FFFF], [0x7FFF_FFFF - 65536, 1], [0x8000_0000], [0xFFFF_FFFF], [1] * 3 + [2**31 - 1]]
)
def test_credit_overflow(sizes: list[int]) -> None:
    with one_session() as session:
        session.receive(open_frame(FIRST))
        for size in sizes:
            session.receive(window_frame(FIRST, size))
        assert_poisoned(session, FLOW_CONTROL, "WINDOW raises the credit above its maximum")


def test_credit_up_to_the_maximum() -> None:
    with one_session() as session:
        ((_, far, *_),) = heard(session.receive(open_frame(FIRST)))
        session.receive(window_frame(FIRST, 0x7FFF_FFFF - 65536))
        assert far.send_credit == 0x7FFF_FFFF and session.error == -1


# --- the rest of the input ----------------------------------------------------


def test_input_byte_by_byte_is_the_same() -> None:
    data = (
        open_frame(FIRST, b"head", b"body")
        + frame(DATA, 0, FIRST, b"more")
        + frame(PING, 0, 0, b"12345678")
        + frame(TRAILERS, 0, FIRST, b"A: b\r\n")
        + open_frame(FIRST + 1, flags=END)
        + frame(CONTROL, 0, 0, b"\x80")
    )
    with one_session() as session:
        events = [
            event for index in range(len(data)) for event in heard(session.receive(data[index : index + 1]))
        ]
        names = [event[0] for event in events]
        assert names == ["open", "data", "data", "data", "data", "end", "open", "control"]
        assert b"".join(event[2] for event in events if event[0] == "data") == b"more"
        assert frames(session.gather_all()) == [(PING, ACK, 0, b"12345678")]


def test_nothing_after_the_error_is_read() -> None:
    with one_session() as session:
        assert heard(session.receive(frame(0) + open_frame(FIRST))) == []
        assert_poisoned(session, PROTOCOL, "frame of an unknown type")


def test_an_error_ends_the_streams_that_are_alive_with_abort_only() -> None:
    with two_sessions() as (dialler, acceptor):
        near, far = open_stream(dialler, acceptor)
        acceptor.receive(frame(0))
        assert far.alive
        far.send_head(b"head", end=True)
        acceptor.abort(18, b"lost")
        assert heard(acceptor.events()) == [("reset", far, 18, 1, b"lost")]
        assert near.alive


def test_goaway_with_a_code_ends_the_other_side_without_an_answer() -> None:
    with two_sessions() as (dialler, acceptor):
        near, _ = open_stream(dialler, acceptor)
        acceptor.receive(frame(0))
        carry(acceptor, dialler)
        assert (dialler.error, dialler.why, dialler.remote_error) == (
            PROTOCOL,
            "frame of an unknown type",
            True,
        )
        assert dialler.gather_all() == b""
        dialler.abort(18, b"lost")
        assert heard(dialler.events()) == [("reset", near, 18, 1, b"lost")]


def test_text_of_the_peer_is_safe_to_log() -> None:
    with one_session() as session:
        session.receive(frame(GOAWAY, 0, 0, b"\x00\x01\x00\x00a\x1b[31m\r\nb\xff"))
        assert session.why == "a?[31m??b\ufffd"
