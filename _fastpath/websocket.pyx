"""WebSocket frames as they pass. See websocket.pxd."""

from libc.stdint cimport uint8_t, uint64_t

cdef enum:
    OPCODE_CLOSE = 8
    MASKED = 128
    MASK_SIZE = 4

cdef const unsigned char* GOING_AWAY = b"\x88\x02\x03\xe9"


cdef inline uint8_t header_size(const Frames* frames) noexcept nogil:
    # Without the mask; as far as is known.
    cdef uint8_t length
    if frames.have < 2:
        return 2
    length = frames.header[1] & 127
    return 4 if length == 126 else 10 if length == 127 else 2


cdef void begin_frame(Frames* frames) noexcept nogil:
    # Its header is complete.
    cdef uint64_t length = frames.header[1] & 127
    cdef uint8_t at
    if length > 125:
        length = 0
        for at in range(2, frames.have):
            length = length << 8 | frames.header[at]
    if frames.header[1] & MASKED:
        length = length + MASK_SIZE if length < <uint64_t>-1 - MASK_SIZE else length
    if frames.header[0] & 15 == OPCODE_CLOSE:
        frames.closed = True
    frames.left = length
    frames.have = 0


cdef size_t frames_pass(Frames* frames, const unsigned char* data, size_t size) noexcept nogil:
    cdef size_t used = 0
    while frames.left == 0 and used < size:
        frames.header[frames.have] = data[used]
        frames.have += 1
        used += 1
        if frames.have < header_size(frames):
            continue
        begin_frame(frames)
        if frames.left == 0:
            return used           # a frame without payload
    if frames.left < size - used:
        used += <size_t>frames.left
        frames.left = 0
    else:
        frames.left -= size - used
        used = size
    return used


# --- for tests ---------------------------------------------------------------------------


def frame_boundaries(pieces: list[bytes]) -> tuple[list[int], bool]:
    """The places in the joined pieces where frames end, and whether a Close was among them."""
    cdef Frames frames
    cdef const unsigned char* data
    cdef size_t size, used
    cdef size_t position = 0
    frames.left = 0
    frames.have = frames.closed = 0
    found = []
    for piece in pieces:
        data = piece
        size = len(piece)
        while size:
            used = frames_pass(&frames, data, size)
            data += used
            size -= used
            position += used
            if between_frames(&frames):
                found.append(position)
    return found, bool(frames.closed)
