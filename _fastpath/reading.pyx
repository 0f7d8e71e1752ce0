"""Readings of a path. See reading.pxd.

The flags are the habits of real servers: nginx merges slashes and decodes
before it resolves dots, RFC 3986 resolves without merging, IIS and some
frameworks take a backslash for a slash, servlet containers drop
";parameters" before they resolve, and a second proxy on the way decodes again.
"""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy, memset

cdef enum:
    ESCAPED = 256                 # set in what `decode` returns for a character that was escaped

cdef uint64_t EACH = <uint64_t>0x0101010101010101
cdef uint64_t LOW_BITS = <uint64_t>0x7F7F7F7F7F7F7F7F


# Bit 7 of each byte of `word` that equals the byte that `pattern` repeats.
cdef inline uint64_t equal_bytes(uint64_t word, uint64_t pattern) noexcept nogil:
    word ^= pattern
    return ~(((word & LOW_BITS) + LOW_BITS) | word | LOW_BITS)


# Non-zero where among eight bytes there is a %, \, ; or a slash followed by a slash or dot.
cdef inline uint64_t odd_word(const unsigned char* data) noexcept nogil:
    cdef uint64_t word, after
    memcpy(&word, data, 8)
    memcpy(&after, data + 1, 8)
    # "." | 1 == "/"
    return (equal_bytes(word, EACH * c'%') | equal_bytes(word, EACH * c'\\') | equal_bytes(word, EACH * c';')
            | (equal_bytes(word, EACH * c'/') & equal_bytes(after | EACH, EACH * c'/')))


cdef bint suspicious(const unsigned char* path, size_t size) noexcept nogil:
    cdef unsigned char[9] rest
    cdef size_t position = 0
    if size > 8:
        while position + 8 < size:            # "<": a word looks one byte ahead
            if odd_word(path + position):
                return True
            position += 8
        position = size - 9                   # the last nine bytes, some of them again
        if odd_word(path + position):
            return True
        position += 8
    memset(rest, 0, 9)
    memcpy(rest, path + position, size - position)
    return odd_word(rest) != 0


cdef inline int hex_digit(int c) noexcept nogil:
    if c >= c'0' and c <= c'9':
        return c - c'0'
    c |= 32
    if c >= c'a' and c <= c'f':
        return c - c'a' + 10
    return -1


# The character at *position, which must be inside the path; *position moves behind it.
cdef inline int decode_once(const unsigned char* path, size_t size, size_t* position) noexcept nogil:
    cdef size_t at = position[0]
    cdef int high, low
    if path[at] == c'%' and size - at > 2:
        high = hex_digit(path[at + 1])
        low = hex_digit(path[at + 2])
        if high >= 0 and low >= 0:
            position[0] = at + 3
            return (high << 4) | low | ESCAPED
    position[0] = at + 1
    return path[at]


cdef int decode_twice(const unsigned char* path, size_t size, size_t* position) noexcept nogil:
    cdef int first = decode_once(path, size, position)
    cdef size_t ahead = position[0]
    cdef int high = -1
    cdef int low = -1
    if first & 255 != c'%':
        return first
    if ahead < size:
        high = hex_digit(decode_once(path, size, &ahead) & 255)
    if high >= 0 and ahead < size:
        low = hex_digit(decode_once(path, size, &ahead) & 255)
    if low < 0:
        return first
    position[0] = ahead
    return (high << 4) | low | ESCAPED


cdef inline bint separates(int c, uint32_t reading) noexcept nogil:
    if c & ESCAPED and not reading & READ_SEPARATORS:
        return False
    c &= 255
    return c == c'/' or (c == c'\\' and reading & READ_BACKSLASH != 0)


# One segment, from behind its separator to the next one. *escaped: it was not written plainly.
cdef void read_segment(Segments* segments, bint* escaped) noexcept nogil:
    cdef bint parameters = False
    cdef size_t before
    cdef int c
    escaped[0] = False
    segments.text_size = 0
    segments.too_long = 0
    while segments.position < segments.size:
        before = segments.position
        if segments.reading & READ_TWICE:
            c = decode_twice(segments.data, segments.size, &segments.position)
        else:
            c = decode_once(segments.data, segments.size, &segments.position)
        if separates(c, segments.reading):
            segments.position = before
            break
        if c & 255 == c';' and segments.reading & READ_PARAMETERS:
            parameters = True
        if parameters:
            continue
        if c & ESCAPED:
            escaped[0] = True
        if segments.text_size == SEGMENT_BUFFER:
            segments.too_long = 1
            continue
        segments.text[segments.text_size] = <unsigned char>(c & 255)
        segments.text_size += 1


cdef SegmentKind next_segment(Segments* segments) noexcept nogil:
    cdef uint32_t reading = segments.reading
    cdef bint escaped
    while segments.position < segments.size:
        # Behind the separator, which this reading may write as one byte or as an escape.
        if reading & READ_TWICE:
            decode_twice(segments.data, segments.size, &segments.position)
        else:
            decode_once(segments.data, segments.size, &segments.position)
        read_segment(segments, &escaped)
        if segments.text_size == 0 and reading & READ_MERGE:
            continue
        if reading & READ_RESOLVE and (not escaped or reading & READ_ESCAPED_DOTS):
            if segments.text_size == 1 and segments.text[0] == c'.':
                continue
            if segments.text_size == 2 and segments.text[0] == c'.' and segments.text[1] == c'.':
                return SEGMENT_UP
        return SEGMENT_TEXT
    return SEGMENT_END


cdef struct Features:
    bint escaped_dots
    bint escaped_separators
    bint twice
    bint backslash
    bint parameters
    bint merge
    bint climbs


cdef void look(const unsigned char* path, size_t size, Features* features) noexcept nogil:
    cdef size_t position = 0
    cdef int c
    cdef int last = 0
    while position < size:
        c = decode_once(path, size, &position)
        if c == c'%' or c == (c'%' | ESCAPED):
            features.twice = True             # decoding leaves a "%"
        elif c & 255 == c'\\':
            features.backslash = True
        elif c & 255 == c';':
            features.parameters = True
        if c == (c'.' | ESCAPED):
            features.escaped_dots = True
        elif c == (c'/' | ESCAPED) or c == (c'\\' | ESCAPED):
            features.escaped_separators = True
        elif c == c'/' and last == c'/':
            features.merge = True
        if c & 255 == c'.' and last & 255 == c'.':
            features.climbs = True
        last = c
    if features.twice:                        # anything can come out of the second decoding
        features.climbs = True
        features.backslash = True
        features.parameters = True
        features.escaped_dots = True
        features.escaped_separators = True
    if features.backslash or features.parameters or features.escaped_separators:
        features.merge = True


cdef int readings(const unsigned char* path, size_t size, uint32_t* out, bint* climbs) noexcept nogil:
    cdef Features features = Features(False, False, False, False, False, False, False)
    cdef uint32_t possible = READ_RESOLVE
    cdef uint32_t reading
    cdef int count = 1
    look(path, size, &features)
    climbs[0] = features.climbs
    possible |= READ_ESCAPED_DOTS if features.escaped_dots else 0
    possible |= READ_SEPARATORS if features.escaped_separators else 0
    possible |= READ_TWICE if features.twice else 0
    possible |= READ_BACKSLASH if features.backslash else 0
    possible |= READ_MERGE if features.merge else 0
    possible |= READ_PARAMETERS if features.parameters else 0
    out[0] = 0
    for reading in range(1, 128):
        if reading & ~possible:
            continue
        if reading & READ_ESCAPED_DOTS and not reading & READ_RESOLVE:
            continue
        # Whoever decodes twice keeps nothing escaped.
        if reading & READ_TWICE and not reading & READ_SEPARATORS:
            continue
        if reading & READ_TWICE and reading & READ_RESOLVE and not reading & READ_ESCAPED_DOTS:
            continue
        out[count] = reading
        count += 1
    return count
