"""The chunked transfer coding, strict.

What two parsers could read in two ways is refused: a size is 1 to 16 hexadecimal digits (of at most
2^63-1) and nothing else, no whitespace, no chunk extensions, and every line ends with CR LF. Tiny chunks cost
time only: a decoder keeps no bytes but the trailers.

Trailers cross, canonical. RFC 9110 6.5.1 forbids some in a trailer section: what frames or routes the
message, says who asks, or changes how it is read. They are dropped, as the RFC lets a recipient do: a recipient that
merges trailers into the head must not find them. A malformed trailer line is refused.
"""

cimport cython
from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memmove, memset, strlen

from _fastpath.grammar cimport CLASS_HEX, as_cgi, byte_class, field_lookup, same_name, skip_token, skip_value
from _fastpath.http1 cimport FIELD_OTHER, FIELD_TRACEPARENT, FIELD_X_REQUEST_ID

cdef enum:
    MAX_SIZE_DIGITS = 16

cdef enum:
    STATE_SIZE = 0                # in the digits of a chunk's size
    STATE_SIZE_LF = 1
    STATE_DATA = 2
    STATE_DATA_CR = 3
    STATE_DATA_LF = 4
    STATE_TRAILER = 5             # in the trailer section
    STATE_DONE = 6
    STATE_ERROR = 7

# Names that may not stand in a trailer section, beside those that field_lookup knows, Content-*, If-* and Proxy-*.
cdef const char** FORBIDDEN = [
    b"accept-ranges", b"age", b"cache-control", b"cookie", b"cookie2", b"expires", b"location", b"max-forwards",
    b"pragma", b"range", b"retry-after", b"set-cookie2", b"vary", b"warning",
    b"www-authenticate", NULL,
]


cdef int fail(ChunkedDecoder* decoder, const char* reason) noexcept nogil:
    decoder.state = STATE_ERROR
    decoder.reason = reason
    return CHUNKED_ERROR


cdef int chunked_next(ChunkedDecoder* decoder, const unsigned char* data, size_t size,
                      size_t* used, const unsigned char** body, size_t* body_size) noexcept nogil:
    cdef const unsigned char* p = data
    cdef const unsigned char* end = data + size
    cdef int event = CHUNKED_MORE
    while p < end and event == CHUNKED_MORE and decoder.state < STATE_TRAILER:
        if decoder.state == STATE_DATA:
            body[0] = p
            body_size[0] = end - p if <uint64_t>(end - p) < decoder.left else <size_t>decoder.left
            p += body_size[0]
            decoder.left -= body_size[0]
            if decoder.left == 0:
                decoder.state = STATE_DATA_CR
            event = CHUNKED_DATA
        elif decoder.state == STATE_SIZE:
            event = read_size(decoder, &p, end)
        elif decoder.state == STATE_SIZE_LF:
            if p[0] != b"\n":
                event = fail(decoder, b"there is a bare CR in a chunk's size line")
            else:
                p += 1
                decoder.state = STATE_DATA if decoder.left else STATE_TRAILER
                decoder.line_size = 0
        elif decoder.state == STATE_DATA_CR:
            if p[0] != b"\r":
                event = fail(decoder, b"a chunk is not followed by CR LF")
            else:
                p += 1
                decoder.state = STATE_DATA_LF
        else:
            if p[0] != b"\n":
                event = fail(decoder, b"a chunk is not followed by CR LF")
            else:
                p += 1
                decoder.state = STATE_SIZE
    if event == CHUNKED_MORE and decoder.state >= STATE_TRAILER:
        event = read_trailers(decoder, &p, end)
    used[0] = p - data
    return event


cdef int read_size(ChunkedDecoder* decoder, const unsigned char** at, const unsigned char* end) noexcept nogil:
    cdef const unsigned char* p = at[0]
    cdef unsigned char c
    while p < end and byte_class[p[0]] & CLASS_HEX:
        if decoder.line_size == MAX_SIZE_DIGITS:
            return fail(decoder, b"a chunk's size has too many digits")
        c = p[0]
        decoder.left = decoder.left << 4 | (c - 48 if c <= b"9" else (c | 32) - 87)
        decoder.line_size += 1
        p += 1
    at[0] = p
    if p == end:
        return CHUNKED_MORE
    if p[0] == b"\r" and decoder.line_size > 0:
        if decoder.left > <uint64_t>INT64_MAX:
            return fail(decoder, b"a chunk is too large")
        at[0] = p + 1
        decoder.state = STATE_SIZE_LF
        return CHUNKED_MORE
    if p[0] == b";":
        return fail(decoder, b"there is a chunk extension")
    return fail(decoder, b"a chunk's size is malformed")


# --- trailers -----------------------------------------------------------------

# Names are read as CGI does. Longer names than 32 bytes are compared as far as that: prefixes are shorter.
cdef bint forbidden(const unsigned char* line, size_t size) noexcept nogil:
    cdef unsigned char[32] name
    cdef const char** other = FORBIDDEN
    cdef size_t at
    cdef uint8_t known
    if size > 32:
        size = 32
    for at in range(size):
        name[at] = as_cgi(line[at])
    known = field_lookup(name, size)
    if known != FIELD_OTHER:
        return known != FIELD_X_REQUEST_ID and known != FIELD_TRACEPARENT
    if size > 8 and same_name(name, b"content-", 8):
        # Digests of the content are what trailers are for (RFC 9530).
        return not ((size == 14 and same_name(name, b"content-digest", 14))
                    or (size == 11 and same_name(name, b"content-md5", 11)))
    if (size > 3 and same_name(name, b"if-", 3)) or (size > 6 and same_name(name, b"proxy-", 6)):
        return True
    while other[0] != NULL:
        if size == strlen(other[0]) and same_name(name, other[0], size):
            return True
        other += 1
    return False


# Appends what came of the current line, so that it lies in one piece at the end of `trailers`, with one byte free.
cdef int keep(ChunkedDecoder* decoder, const unsigned char* data, uint32_t size) noexcept nogil:
    cdef uint32_t need = decoder.trailers_size + decoder.line_size + size + 1
    cdef uint32_t capacity = decoder.trailers_capacity
    cdef unsigned char* grown
    if need > capacity:
        capacity = 256 if capacity == 0 else capacity
        while capacity < need:
            capacity *= 2
        grown = <unsigned char*>realloc(decoder.trailers, capacity)
        if grown == NULL:
            return fail(decoder, b"there is no memory for trailers")
        decoder.trailers = grown
        decoder.trailers_capacity = capacity
    memcpy(decoder.trailers + decoder.trailers_size + decoder.line_size, data, size)
    decoder.line_size += size
    return CHUNKED_MORE


# The last line in `trailers` is complete, line_size bytes with its CR LF: check it, make it canonical or drop it.
cdef int close_line(ChunkedDecoder* decoder) noexcept nogil:
    cdef unsigned char* line = decoder.trailers + decoder.trailers_size
    cdef unsigned char* stop = line + decoder.line_size - 2
    cdef const unsigned char* p
    cdef const unsigned char* value
    cdef size_t name_size
    cdef int odd = 0
    if decoder.line_size < 2 or stop[0] != b"\r":
        return fail(decoder, b"a trailer line ends with a bare LF")
    p = skip_token(line, stop, &odd)
    name_size = p - line
    if name_size == 0 or p == stop or p[0] != b":":
        return fail(decoder, b"a trailer line is malformed")
    value = p + 1
    if skip_value(value, stop) != stop:
        return fail(decoder, b"there is a control character in a trailer")
    decoder.line_size = 0
    if forbidden(line, name_size):
        return CHUNKED_MORE
    while value < stop and (value[0] == b" " or value[0] == b"\t"):
        value += 1
    while stop > value and (stop[-1] == b" " or stop[-1] == b"\t"):
        stop -= 1
    rewrite_line(decoder, line, name_size, value, stop - value)
    return CHUNKED_MORE


# "name: value" in place: at most one byte longer than what came, and `keep` has left room for it.
cdef void rewrite_line(ChunkedDecoder* decoder, unsigned char* line, size_t name_size,
                       const unsigned char* value, size_t value_size) noexcept nogil:
    memmove(line + name_size + 2, value, value_size)
    line[name_size] = b":"
    line[name_size + 1] = b" "
    line[name_size + 2 + value_size] = b"\r"
    line[name_size + 3 + value_size] = b"\n"
    decoder.trailers_size += <uint32_t>(name_size + 4 + value_size)


cdef int read_trailers(ChunkedDecoder* decoder, const unsigned char** at, const unsigned char* end) noexcept nogil:
    cdef const unsigned char* p = at[0]
    cdef const unsigned char* line_feed
    cdef size_t size
    if decoder.state == STATE_ERROR:
        return CHUNKED_ERROR
    while p < end and decoder.state != STATE_DONE:
        line_feed = <const unsigned char*>memchr(p, 10, end - p)
        size = (end if line_feed == NULL else line_feed + 1) - p
        if size > MAX_TRAILERS - decoder.section_size:
            return fail(decoder, b"the trailers are larger than the limit")
        decoder.section_size += <uint32_t>size
        if line_feed != NULL and decoder.line_size + size == 2 and (
                p[0] == b"\r" if size == 2 else decoder.trailers[decoder.trailers_size] == b"\r"):
            decoder.line_size = 0
            decoder.state = STATE_DONE
        elif keep(decoder, p, <uint32_t>size) < 0:
            return CHUNKED_ERROR
        elif line_feed != NULL and close_line(decoder) < 0:
            return CHUNKED_ERROR
        p += size
    at[0] = p
    return CHUNKED_END if decoder.state == STATE_DONE else CHUNKED_MORE


cdef void chunked_clear(ChunkedDecoder* decoder) noexcept nogil:
    free(decoder.trailers)
    decoder.trailers = NULL
    decoder.trailers_size = 0
    decoder.trailers_capacity = 0
    decoder.line_size = 0


cdef bint trailers_canonical(const unsigned char* data, size_t size) noexcept nogil:
    cdef ChunkedDecoder decoder
    cdef const unsigned char* body = NULL
    cdef size_t used = 0, body_size = 0
    cdef bint canonical
    memset(&decoder, 0, sizeof(ChunkedDecoder))
    decoder.state = STATE_TRAILER
    # An empty line would end them (CHUNKED_END); a line that was dropped or rewritten makes a difference.
    canonical = (
        chunked_next(&decoder, data, size, &used, &body, &body_size) == CHUNKED_MORE
        and decoder.line_size == 0 and decoder.trailers_size == size
        and (size == 0 or memcmp(decoder.trailers, data, size) == 0)
    )
    chunked_clear(&decoder)
    return canonical


cdef int chunk_size_line(uint64_t size, unsigned char* out) noexcept nogil:
    cdef const char* digits = b"0123456789ABCDEF"
    cdef int count = 1
    cdef int at
    while count < 16 and size >> (4 * count):
        count += 1
    for at in range(count):
        out[at] = digits[size >> (4 * (count - 1 - at)) & 15]
    out[count] = b"\r"
    out[count + 1] = b"\n"
    return count + 2


# --- for tests ------------------------------------------------------------------

class ChunkedError(Exception):
    """A chunked body was refused."""


@cython.final
cdef class ChunkedReader:
    """A decoder for tests: `feed` returns the body bytes; `done`, `trailers` and `unused` tell how it ended."""

    cdef ChunkedDecoder decoder
    cdef readonly bint done
    cdef readonly bytes unused

    def __cinit__(self):
        self.unused = b""

    def __dealloc__(self):
        chunked_clear(&self.decoder)

    def feed(self, bytes data not None) -> bytes:
        cdef const unsigned char* p = data
        cdef size_t size = len(data)
        cdef const unsigned char* body = NULL
        cdef size_t body_size = 0
        cdef size_t used = 0
        pieces = []
        while True:
            event = chunked_next(&self.decoder, p, size, &used, &body, &body_size)
            if event == CHUNKED_ERROR:
                raise ChunkedError(self.decoder.reason.decode())
            p += used
            size -= used
            if event == CHUNKED_DATA:
                pieces.append(body[:body_size])
                continue
            if event == CHUNKED_END:
                self.done = True
                self.unused += p[:size]
            elif size:
                raise AssertionError("bytes are left although more are needed")
            return b"".join(pieces)

    @property
    def trailers(self) -> bytes:
        return self.decoder.trailers[:self.decoder.trailers_size] if self.decoder.trailers_size else b""

    def bench(self, bytes data not None, int rounds) -> int:
        """Decode one body again and again; returns the body bytes of the last round."""
        cdef const unsigned char* start = data
        cdef size_t size = len(data)
        cdef const unsigned char* body = NULL
        cdef size_t body_size = 0
        cdef size_t used = 0
        cdef size_t at = 0
        cdef size_t total = 0
        cdef int event
        for _ in range(rounds):
            chunked_clear(&self.decoder)
            memset(&self.decoder, 0, sizeof(ChunkedDecoder))
            at = total = 0
            while True:
                event = chunked_next(&self.decoder, start + at, size - at, &used, &body, &body_size)
                at += used
                if event != CHUNKED_DATA:
                    break
                total += body_size
        return total


def are_canonical(trailers: bytes) -> bool:
    """Whether a decoder could have left these trailers."""
    return trailers_canonical(trailers, len(trailers))


def size_line(size: int) -> bytes:
    """The line that starts a chunk of `size` bytes."""
    cdef unsigned char[18] out
    return out[:chunk_size_line(size, out)]
