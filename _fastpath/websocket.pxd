# Where one direction of a WebSocket connection is in its frames (RFC 6455 5.2), so that a Close can be put between two of
# them. Sans-IO: looks at headers only; payloads, extensions and messages are the two ends' own business.
#
# A plain struct: zero it to start, before the first byte behind the 101.

from libc.stdint cimport uint8_t, uint64_t

cdef struct Frames:
    uint64_t left                 # bytes of the current frame's payload, its mask included, that have not come
    unsigned char[10] header      # what has come of a header without its mask
    uint8_t have
    uint8_t closed                # a Close has begun: nothing may follow it

cdef enum:
    GOING_AWAY_SIZE = 4

# A Close with code 1001, as a server sends it.
cdef const unsigned char* GOING_AWAY

# How many of these bytes lie before the next boundary between frames, at least one; then they count as passed.
cdef size_t frames_pass(Frames* frames, const unsigned char* data, size_t size) noexcept nogil
cdef inline bint between_frames(const Frames* frames) noexcept nogil:
    return frames.left == 0 and frames.have == 0
