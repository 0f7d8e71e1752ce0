"""Lines of the access log: numbers, escaped text, and what they tell of a request's head. See lines.pxd."""

from libc.string cimport memchr, memset

from _fastpath.grammar cimport same_name

cdef const char* HEX = b"0123456789abcdef"
cdef const char* PAIRS = (
    b"00010203040506070809101112131415161718192021222324"
    b"25262728293031323334353637383940414243444546474849"
    b"50515253545556575859606162636465666768697071727374"
    b"75767778798081828384858687888990919293949596979899"
)


cdef unsigned char* put_number(unsigned char* at, uint64_t value) noexcept nogil:
    cdef unsigned char digits[20]
    cdef int i = 20
    cdef uint64_t rest
    while value >= 100:
        rest = value // 100
        i -= 2
        memcpy(digits + i, PAIRS + 2 * (value - rest * 100), 2)
        value = rest
    if value >= 10:
        memcpy(digits + i - 2, PAIRS + 2 * value, 2)
        i -= 2
    else:
        i -= 1
        digits[i] = <unsigned char>(48 + value)
    memcpy(at, digits + i, 20 - i)
    return at + (20 - i)


cdef unsigned char* put_digits(unsigned char* at, uint64_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width - 1, -1, -1):
        at[i] = <unsigned char>(48 + value % 10)
        value //= 10
    return at + width


# Whether a byte of `low` or `high` is a control character, a quote, a backslash or not ASCII.
cdef extern from *:
    """
    #include <stdint.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    static inline int broker_special(uint64_t low, uint64_t high) {
        __m128i v = _mm_set_epi64x((long long)high, (long long)low);
        /* signed: 0x20 to 0x7f are greater than 0x1f, what is not ASCII is negative */
        __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                                   _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x5c)),
                                                _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f))));
        return _mm_movemask_epi8(_mm_andnot_si128(bad, _mm_cmpgt_epi8(v, _mm_set1_epi8(0x1f)))) != 0xffff;
    }
    #else
    /* May say so of a byte above a true one, which only costs a closer look. */
    static inline int broker_special(uint64_t low, uint64_t high) {
        const uint64_t ones = UINT64_C(0x0101010101010101);
        uint64_t words[2] = {low, high}, found = 0;
        for (int i = 0; i < 2; i++) {
            uint64_t w = words[i], quote = w ^ ones * 0x22, slash = w ^ ones * 0x5c, del = w ^ ones * 0x7f;
            found |= w | ((w - ones * 0x20) & ~w) | ((quote - ones) & ~quote) | ((slash - ones) & ~slash)
                     | ((del - ones) & ~del);
        }
        return (found & ones << 7) != 0;
    }
    #endif
    """
    bint is_special "broker_special" (uint64_t low, uint64_t high) noexcept nogil


# What can't stand as it is becomes six bytes: a log can't be forged, and can't steer a terminal.
cdef unsigned char* escape(unsigned char* at, const unsigned char* data, uint32_t size) noexcept nogil:
    cdef uint32_t i
    cdef unsigned char byte
    for i in range(size):
        byte = data[i]
        if byte >= 0x20 and byte < 0x7f and byte != c'"' and byte != c"\\":
            at[0] = byte
            at += 1
        else:
            memcpy(at, b"\\u00", 4)
            at[4] = HEX[byte >> 4]
            at[5] = HEX[byte & 15]
            at += 6
    return at


# Copies a text whose bytes all stand as they are; False where one does not, and then nothing is sure of [at, at + size).
# The last piece is read and written from its end: some of it may be there already.
cdef inline bint copy_plain(unsigned char* at, const unsigned char* data, uint32_t size) noexcept nogil:
    cdef uint64_t low, high
    cdef uint32_t first, last
    cdef uint32_t i = 0
    if size >= 16:
        while True:
            memcpy(&low, data + i, 8)
            memcpy(&high, data + i + 8, 8)
            if is_special(low, high):
                return False
            memcpy(at + i, &low, 8)
            memcpy(at + i + 8, &high, 8)
            if i == size - 16:
                return True
            i = i + 16 if i + 16 < size - 16 else size - 16
    if size >= 8:
        memcpy(&low, data, 8)
        memcpy(&high, data + size - 8, 8)
        if is_special(low, high):
            return False
        memcpy(at, &low, 8)
        memcpy(at + size - 8, &high, 8)
        return True
    if size >= 4:
        memcpy(&first, data, 4)
        memcpy(&last, data + size - 4, 4)
        low = first | <uint64_t>last << 32
        if is_special(low, low):
            return False
        memcpy(at, &first, 4)
        memcpy(at + size - 4, &last, 4)
        return True
    return False


cdef unsigned char* put_text(unsigned char* at, Text text, uint32_t most) noexcept nogil:
    cdef uint32_t size = text.size if text.size < most else most
    if copy_plain(at, text.data, size):
        return at + size
    return escape(at, text.data, size)


# The value of a field where its line has this name, "name:" in lower case.
cdef inline bint value_of(const unsigned char* line, const unsigned char* stop, const char* name, Text* out) noexcept nogil:
    cdef size_t size = strlen(name)
    if <size_t>(stop - line) < size or line[size - 1] != c":" or not same_name(line, name, size - 1):
        return False
    line += size
    if line < stop and line[0] == c" ":
        line += 1
    if stop > line and stop[-1] == c"\r":
        stop -= 1
    out.data = line
    out.size = <uint32_t>(stop - line)
    return True


# The first of a list.
cdef inline Text first_of(Text text) noexcept nogil:
    cdef const unsigned char* comma = NULL
    if text.size:
        comma = <const unsigned char*>memchr(text.data, c",", text.size)
    if comma != NULL:
        text.size = <uint32_t>(comma - text.data)
    return text


cdef void pick(Text head, Picked* out) noexcept nogil:
    cdef const unsigned char* at = head.data
    cdef const unsigned char* end = at + head.size
    cdef const unsigned char* stop
    cdef const unsigned char* space
    cdef unsigned char first
    memset(out, 0, sizeof(Picked))
    if head.size == 0:
        return
    stop = <const unsigned char*>memchr(at, c"\n", head.size)
    if stop == NULL:
        return
    space = <const unsigned char*>memchr(at, c" ", stop - at)
    if space != NULL:
        out.method.data = at
        out.method.size = <uint32_t>(space - at)
        at = space + 1
        space = <const unsigned char*>memchr(at, c" ", stop - at)
        if space != NULL:
            out.target.data = at
            out.target.size = <uint32_t>(space - at)
            out.version.data = space + 1
            out.version.size = <uint32_t>(stop - space - 2) if stop - space > 2 else 0
    at = stop + 1
    while at < end:
        stop = <const unsigned char*>memchr(at, c"\n", end - at)
        if stop == NULL:
            return
        first = at[0] | 0x20
        if first == c"h":
            value_of(at, stop, b"host:", &out.host)
        elif first == c"u":
            value_of(at, stop, b"user-agent:", &out.agent)
        elif first == c"r":
            value_of(at, stop, b"referer:", &out.referer)
        elif first == c"t":
            value_of(at, stop, b"traceparent:", &out.trace)
        elif first == c"x":
            if out.client.size == 0 and value_of(at, stop, b"x-forwarded-for:", &out.client):
                out.client = first_of(out.client)
            else:
                value_of(at, stop, b"x-request-id:", &out.request_id)
        elif first == c"b":
            value_of(at, stop, b"broker-user:", &out.user)
        at = stop + 1


# --- for tests ---------------------------------------------------------------------------

def escaped(text: bytes, most: int) -> bytes:
    """What put_text makes of a text."""
    cdef Text given
    room = bytearray(6 * len(text) + 8)
    cdef unsigned char* at = room
    given.data = text
    given.size = <uint32_t>len(text)
    return bytes(room[:put_text(at, given, most) - at])


def decimal(value: int) -> bytes:
    """What put_number makes of a number, from 0 to 2**64 - 1."""
    cdef unsigned char[20] room
    return bytes(room[:put_number(room, value) - room])
