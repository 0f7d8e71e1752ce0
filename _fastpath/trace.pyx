"""W3C Trace Context: what a request's traceparent says, and what goes on of it. See trace.pxd.

A traceparent is 00-TRACE-PARENT-FLAGS, 32, 16 and 2 hexadecimal digits. One that is malformed, all zeros, of version ff, or that
stands twice is as good as none; a tracestate beside it is then void. A later version is read as far as it is known, and written as 00.
Without sampling, or where no trace is begun, fields go on byte for byte.
"""

from libc.string cimport memchr, memcpy, memset
from posix.strings cimport strncasecmp

from _fastpath.ids cimport ID_SIZE, make_id

cdef enum:
    VALUE_SIZE = 55
    PARENT_AT = 36                # of the parent's id in a value
    FLAGS_AT = 53
    SAMPLED = 1

EGRESS = EGRESS_SPAN

cdef const char* HEX = b"0123456789abcdef"

cdef struct Line:
    uint32_t start, stop          # of the whole line
    uint32_t value, size


# The value of one digit, or -1. Upper case is not allowed.
cdef inline int digit_of(unsigned char byte) noexcept nogil:
    if b"0" <= byte <= b"9":
        return byte - c"0"
    if b"a" <= byte <= b"f":
        return byte - c"a" + 10
    return -1


# False where one is no digit.
cdef bint read_hex(const unsigned char* text, int digits, uint64_t* out) noexcept nogil:
    cdef int i, digit
    out[0] = 0
    for i in range(digits):
        digit = digit_of(text[i])
        if digit < 0:
            return False
        out[0] = out[0] << 4 | <uint64_t>digit
    return True


cdef bint is_valid(const unsigned char* value, uint32_t size, uint64_t* parent, uint64_t* flags) noexcept nogil:
    cdef uint64_t version, high, low
    if size < VALUE_SIZE or value[2] != c"-" or value[35] != c"-" or value[52] != c"-":
        return False
    if not read_hex(value, 2, &version) or version == 0xff:
        return False
    if size > VALUE_SIZE and (version == 0 or value[VALUE_SIZE] != c"-"):
        return False
    if not (read_hex(value + 3, 16, &high) and read_hex(value + 19, 16, &low) and high | low):
        return False
    return read_hex(value + PARENT_AT, 16, parent) and parent[0] != 0 and read_hex(value + FLAGS_AT, 2, flags)


cdef inline bint is_named(const unsigned char* line, size_t size, const char* name, size_t name_size) noexcept nogil:
    return size > name_size and line[name_size] == c":" and strncasecmp(<const char*>line, name, name_size) == 0


cdef inline bint is_trace_field(const unsigned char* line, size_t size) noexcept nogil:
    return line[0] | 0x20 == c"t" and (is_named(line, size, b"traceparent", 11) or is_named(line, size, b"tracestate", 10))


# How many traceparent lines there are; the first one.
cdef int find_parent(const unsigned char* head, size_t size, Line* line) noexcept nogil:
    cdef const unsigned char* at = head
    cdef const unsigned char* end = head + size
    cdef const unsigned char* stop
    cdef int count = 0
    memset(line, 0, sizeof(Line))
    while at < end:
        stop = <const unsigned char*>memchr(at, c"\n", end - at)
        if stop == NULL:
            break
        if at[0] | 0x20 == c"t" and is_named(at, stop - at, b"traceparent", 11):
            count += 1
            if count == 1:
                line.start = <uint32_t>(at - head)
                line.stop = <uint32_t>(stop + 1 - head)
                line.value = line.start + 12
                while line.value < line.stop and head[line.value] == c" ":
                    line.value += 1
                line.size = line.stop - line.value - 2 if line.stop >= line.value + 2 else 0
        at = stop + 1
    return count


cdef uint64_t random_span() noexcept nogil:
    cdef unsigned char digits[ID_SIZE]
    cdef uint64_t span = 0
    while span == 0 or span == EGRESS_SPAN:
        make_id(digits)
        read_hex(digits, 16, &span)
    return span


cdef unsigned char* put_span(unsigned char* at, uint64_t span) noexcept nogil:
    cdef int i
    for i in range(16):
        at[i] = HEX[span >> (60 - 4 * i) & 15]
    return at + 16


# The head without its traceparent, and where `restart` says so without its tracestate, but with this one.
cdef size_t put_anew(const unsigned char* head, size_t size, const unsigned char* value, bint restart,
                     unsigned char* out, uint32_t* mark) noexcept nogil:
    cdef const unsigned char* at = head
    cdef const unsigned char* end = head + size - 2       # the empty line
    cdef const unsigned char* stop
    cdef unsigned char* to = out
    cdef uint32_t marked = mark[0]
    cdef bint named
    while at < end:
        stop = <const unsigned char*>memchr(at, c"\n", end - at)
        stop = stop + 1 if stop != NULL else end
        named = is_trace_field(at, stop - at)
        if named and (restart or at[5] | 0x20 == c"p"):
            if marked > <size_t>(at - head):
                mark[0] -= <uint32_t>(stop - at)
        else:
            memcpy(to, at, stop - at)
            to += stop - at
        at = stop
    memcpy(to, b"traceparent: ", 13)
    memcpy(to + 13, value, VALUE_SIZE)
    memcpy(to + 13 + VALUE_SIZE, b"\r\n\r\n", 4)
    return <size_t>(to - out) + 17 + VALUE_SIZE


cdef size_t trace_head(const unsigned char* head, size_t size, const Tracing* rules, Trace* trace,
                       unsigned char* out, uint32_t* mark) noexcept nogil:
    cdef unsigned char value[VALUE_SIZE]
    cdef uint64_t parent = 0, flags = 0, low = 0, span
    cdef Line line
    cdef bint valid
    trace.span = trace.parent = 0
    valid = find_parent(head, size, &line) == 1 and is_valid(head + line.value, line.size, &parent, &flags)
    if not valid and not rules.begin or valid and not flags & SAMPLED:
        return 0
    span = random_span()
    if not valid:
        make_id(value + 3)        # all zeros once in 2 ** 128
        read_hex(value + 19, 16, &low)
        flags = low < rules.threshold
        parent = 0
    else:
        memcpy(value, head + line.value, VALUE_SIZE)
    memcpy(value, b"00-", 3)
    value[35] = value[52] = c"-"
    put_span(value + PARENT_AT, span ^ EGRESS_SPAN)
    value[FLAGS_AT] = c"0"
    value[FLAGS_AT + 1] = HEX[flags & SAMPLED]
    if flags & SAMPLED:
        trace.span = span
        trace.parent = parent
    if valid and line.size == VALUE_SIZE:
        memcpy(out, head, size)
        memcpy(out + line.value, b"00", 2)
        put_span(out + line.value + PARENT_AT, span ^ EGRESS_SPAN)
        return size
    return put_anew(head, size, value, not valid, out, mark)


def trace(bytes head not None, *, bint begin=False, double ratio=1.0, int mark=0) -> tuple[bytes, int, int, int]:
    """What trace_head makes of a head: what goes on, the ingress's span and its parent (0: none), and where `mark` is then."""
    cdef Tracing rules
    cdef Trace found
    cdef uint32_t place = mark
    cdef size_t size
    out = bytearray(len(head) + TRACE_ROOM)
    rules.on = True
    rules.begin = begin
    rules.threshold = threshold_of(ratio)
    size = trace_head(head, len(head), &rules, &found, out, &place)
    return bytes(out[:size]) if size else head, found.span, found.parent, place


cdef uint64_t threshold_of(double ratio) noexcept:
    if ratio >= 1.0:
        return <uint64_t>-1
    return <uint64_t>(ratio * 18446744073709551616.0) if ratio > 0 else 0
