"""Lines of the access log: numbers, escaped text, and what they tell of a request's head. See lines.pxd."""

from libc.string cimport memchr, memset
from posix.strings cimport strncasecmp

cdef const char* HEX = b"0123456789abcdef"
cdef uint64_t ONES = 0x0101010101010101
cdef uint64_t HIGH = 0x8080808080808080


cdef unsigned char* put_number(unsigned char* at, uint64_t value) noexcept nogil:
    cdef unsigned char digits[20]
    cdef int i = 20
    while True:
        i -= 1
        digits[i] = <unsigned char>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    memcpy(at, digits + i, 20 - i)
    return at + (20 - i)


cdef unsigned char* put_digits(unsigned char* at, uint64_t value, int width) noexcept nogil:
    cdef int i
    for i in range(width - 1, -1, -1):
        at[i] = <unsigned char>(48 + value % 10)
        value //= 10
    return at + width


# Whether any of eight bytes is a control character, a quote, a backslash or not ASCII. May say so of DEL's neighbours
# above a true one, which only costs a closer look.
cdef inline bint is_special(uint64_t word) noexcept nogil:
    cdef uint64_t quote = word ^ (ONES * 0x22)
    cdef uint64_t slash = word ^ (ONES * 0x5c)
    cdef uint64_t delete = word ^ (ONES * 0x7f)
    return (
        (word | ((word - ONES * 0x20) & ~word) | ((quote - ONES) & ~quote) | ((slash - ONES) & ~slash)
         | ((delete - ONES) & ~delete)) & HIGH
    ) != 0


cdef unsigned char* put_text(unsigned char* at, Text text, uint32_t most) noexcept nogil:
    # A log can't be forged, and can't steer a terminal.
    cdef const unsigned char* data = text.data
    cdef uint32_t left = text.size if text.size < most else most
    cdef uint64_t word
    cdef unsigned char byte
    while left:
        if left >= 8:
            memcpy(&word, data, 8)
            if not is_special(word):
                memcpy(at, data, 8)
                at += 8
                data += 8
                left -= 8
                continue
        byte = data[0]
        if byte >= 0x20 and byte < 0x7f and byte != c'"' and byte != c"\\":
            at[0] = byte
            at += 1
        else:
            memcpy(at, b"\\u00", 4)
            at[4] = HEX[byte >> 4]
            at[5] = HEX[byte & 15]
            at += 6
        data += 1
        left -= 1
    return at


# The value of a field where its line has this name, "name:" in lower case.
cdef inline bint value_of(const unsigned char* line, const unsigned char* stop, const char* name, Text* out) noexcept nogil:
    cdef size_t size = strlen(name)
    if <size_t>(stop - line) < size or line[size - 1] != c":" or strncasecmp(<const char*>line, name, size) != 0:
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
