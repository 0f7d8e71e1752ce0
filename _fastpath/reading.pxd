# The ways in which upstreams may read one path, segment by segment. Sans-IO, borrowed memory only.
#
# What is written plainly has one reading. Escapes, dot segments, doubled
# slashes, backslashes and parameters have several; `readings` lists those that
# the bytes at hand give reason for, and `next_segment` reads a path in one of them.

from libc.stdint cimport uint8_t, uint32_t

# A reading is a set of these. 0 is our own: escapes are decoded once, an
# escaped slash or backslash is text, a dot segment is a segment like others.
cdef enum ReadingFlag:
    READ_RESOLVE = 1              # "." and ".." are dot segments
    READ_ESCAPED_DOTS = 2         # also where a dot is written %2e
    READ_SEPARATORS = 4           # %2f (and with READ_BACKSLASH %5c) separates segments
    READ_TWICE = 8                # what decoding leaves is decoded once more
    READ_BACKSLASH = 16           # "\" separates segments
    READ_MERGE = 32               # empty segments do not count
    READ_PARAMETERS = 64          # ";" and what follows it in a segment does not count

cdef enum:
    MAX_READINGS = 65
    SEGMENT_BUFFER = 256          # longer segments are cut and marked: no route has one

cdef enum SegmentKind:
    SEGMENT_END = 0               # the path is over
    SEGMENT_TEXT = 1
    SEGMENT_UP = 2                # ".."

cdef struct Segments:
    const unsigned char* data     # the path, starting with "/"
    size_t size
    size_t position               # of the next separator
    uint32_t reading
    uint32_t text_size
    uint8_t too_long              # the segment did not fit
    unsigned char[SEGMENT_BUFFER] text

# Whether a path could have more than one reading: one pass, cheap, for every request.
cdef bint suspicious(const unsigned char* path, size_t size) noexcept nogil
# Fills `out` (MAX_READINGS long) and returns how many; out[0] is our own. *climbs: some reading may have a "..".
cdef int readings(const unsigned char* path, size_t size, uint32_t* out, bint* climbs) noexcept nogil
# Set data, size and reading, zero position; then call until SEGMENT_END.
cdef SegmentKind next_segment(Segments* segments) noexcept nogil
