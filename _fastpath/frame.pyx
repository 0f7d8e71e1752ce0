"""Frame headers: writing, reading and checking. See frame.pxd and docs/protocol.md."""

from _fastpath.end cimport CODE_PROTOCOL
from _fastpath.wire cimport get_u32, put_u32


cdef void frame_write(unsigned char* out, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream) noexcept nogil:
    put_u32(out, length)
    out[4] = type
    out[5] = flags
    out[6] = 0
    out[7] = 0
    put_u32(out + 8, stream)


cdef void frame_read(const unsigned char* data, FrameHeader* header) noexcept nogil:
    header.length = get_u32(data)
    header.type = data[4]
    header.flags = data[5]
    header.stream = get_u32(data + 8)


cdef inline bint names_stream(uint32_t stream) noexcept nogil:
    return (stream & 0xffff) < MAX_SLOTS and (stream >> 16) & MAX_GENERATION != 0


cdef inline const char* length_error(const FrameHeader* header) noexcept nogil:
    # Likely types first. All comparisons are unsigned: no length is added to anything before it was found small.
    cdef uint32_t length = header.length
    if header.type == FRAME_DATA:
        if length > MAX_DATA:
            return b"DATA frame is too long"
        if length == 0 and not header.flags & FLAG_END:
            return b"DATA frame carries neither bytes nor an end"
    elif header.type == FRAME_OPEN:
        if length < OPEN_PREFIX or length > MAX_HEAD_FRAME:
            return b"OPEN frame has an impossible length"
    elif header.type == FRAME_REPLY:
        if length < REPLY_PREFIX or length > MAX_HEAD_FRAME:
            return b"REPLY frame has an impossible length"
    elif header.type == FRAME_WINDOW:
        if length != 4:
            return b"WINDOW frame is not 4 bytes long"
    elif header.type == FRAME_RESET:
        if length < 4 or length > 4 + MAX_REASON:
            return b"RESET frame has an impossible length"
    elif header.type == FRAME_TRAILERS:
        if length > MAX_TRAILER_FRAME:
            return b"TRAILERS frame is too long"
    elif header.type == FRAME_PING:
        if length != 8:
            return b"PING frame is not 8 bytes long"
    elif header.type == FRAME_GOAWAY:
        if length < 4 or length > 4 + MAX_REASON:
            return b"GOAWAY frame has an impossible length"
    elif header.type == FRAME_CONTROL:
        if length == 0 or length > MAX_CONTROL:
            return b"CONTROL frame has an impossible length"
    else:
        return b"frame of an unknown type"
    return NULL


cdef int frame_check(const FrameHeader* header, const char** reason) noexcept nogil:
    cdef const char* error = length_error(header)
    if error == NULL:
        if header.type >= FRAME_PING:
            if header.stream != 0:
                error = b"frame of the tunnel names a stream"
        elif not names_stream(header.stream):
            error = b"frame of a stream does not name one"
    reason[0] = error
    return CODE_PROTOCOL if error != NULL else 0


def encode_header(length: int, type: int, flags: int, stream: int) -> bytes:
    """Return the header of a frame, for tests and tools."""
    cdef unsigned char[FRAME_HEADER] out
    frame_write(out, length, type, flags, stream)
    return out[:FRAME_HEADER]


def decode_header(bytes data not None) -> tuple[int, int, int, int]:
    """Return (length, type, flags, stream) of a frame's header, for tests and tools."""
    cdef FrameHeader header
    if len(data) != FRAME_HEADER:
        raise ValueError("a frame header is 12 bytes long")
    frame_read(<const unsigned char*><char*>data, &header)
    return header.length, header.type, header.flags, header.stream


def check_header(bytes data not None) -> str | None:
    """Return what is wrong with a frame's header, or None."""
    cdef FrameHeader header
    cdef const char* reason = NULL
    if len(data) != FRAME_HEADER:
        raise ValueError("a frame header is 12 bytes long")
    frame_read(<const unsigned char*><char*>data, &header)
    if frame_check(&header, &reason) == 0:
        return None
    return reason.decode()


def bench_headers(bytes data not None, uint64_t rounds) -> int:
    """Read, check and write the headers in `data` again and again: what the codec costs without Python.

    Returns how many headers were accepted.
    """
    cdef const unsigned char* raw = data
    cdef unsigned char[FRAME_HEADER] out
    cdef const char* reason = NULL
    cdef FrameHeader header
    cdef uint64_t accepted = 0
    cdef size_t at
    if len(data) % FRAME_HEADER:
        raise ValueError("only whole headers")
    for _ in range(rounds):
        for at in range(0, <size_t>len(data), FRAME_HEADER):
            frame_read(raw + at, &header)
            if frame_check(&header, &reason) == 0:
                accepted += 1
            frame_write(out, header.length, header.type, header.flags, header.stream)
    return accepted
