"""The rules that a lexed head must keep: its target, Host, framing and Connection. See http1.pyx for the decisions."""

from libc.stdint cimport INT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp

from _fastpath.grammar cimport (
    CLASS_HEX, CLASS_HOST, byte_class, field_lookup, next_token, same_name,
)
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_AUTHORIZATION, FIELD_CONNECTION,
    FIELD_CONTENT_LENGTH, FIELD_EXPECT, FIELD_HOST, FIELD_OTHER, FIELD_PROXY_AUTHORIZATION,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, MAX_HOST, MAX_OPTIONS, METHOD_CONNECT, METHOD_DELETE, METHOD_GET,
    METHOD_HEAD, METHOD_OPTIONS, METHOD_PUT, METHOD_TRACE, SCAN_CODING, Field, Head, Span,
)

cdef enum:
    OPTION_CLOSE = 1
    OPTION_KEEP_ALIVE = 2
    OPTION_UPGRADE = 4

cdef enum:
    IDEMPOTENT_METHODS = (1 << METHOD_GET | 1 << METHOD_HEAD | 1 << METHOD_OPTIONS | 1 << METHOD_TRACE
                          | 1 << METHOD_PUT | 1 << METHOD_DELETE)

# The value of the last field of this kind, which there is.
cdef inline Span value_of(const Scan* scan, const Head* head, uint8_t known) noexcept nogil:
    return head.fields[scan.where[known]].value


# --- targets and hosts -----------------------------------------------------------

# NULL, or why [p, stop) is no host with an optional port. *colon: the port's colon, or stop.
cdef const char* check_authority(const unsigned char* p, const unsigned char* stop,
                                 const unsigned char** colon) noexcept nogil:
    cdef uint32_t port = 0
    cdef int colons = 0
    cdef const unsigned char* start = p
    if p == stop:
        return b"the host is empty"
    if stop - p > MAX_HOST:
        return b"the host is too long"
    if p[0] == b"[":
        p += 1
        while p < stop and (byte_class[p[0]] & CLASS_HEX or p[0] == b":" or p[0] == b"."):
            colons += p[0] == b":"
            p += 1
        if p == stop or p[0] != b"]" or colons < 2 or p - start > 46:
            return b"the host is not an IPv6 address"
        p += 1
    else:
        while p < stop and byte_class[p[0]] & CLASS_HOST:
            p += 1
    colon[0] = p
    if p == stop:
        return NULL
    if p[0] != b":" or p == start:
        return b"there is an illegal character in the host"
    p += 1
    if stop - p < 1 or stop - p > 5:
        return b"the host's port is not a number from 1 to 65535"
    while p < stop and p[0] >= b"0" and p[0] <= b"9":
        port = port * 10 + p[0] - 48
        p += 1
    if p != stop or port == 0 or port > 65535:
        return b"the host's port is not a number from 1 to 65535"
    return NULL


# Target forms (RFC 9112 3.2): sets path, path_and_query, and of an absolute form the host.
cdef int read_target(Scan* scan, Head* head) noexcept nogil:
    cdef const unsigned char* p = scan.data + head.target.start
    cdef const unsigned char* stop = p + head.target.size
    cdef const unsigned char* query
    if head.method_id == METHOD_CONNECT:
        return bad(scan, b"CONNECT is not offered here")
    if p[0] != b"/":
        if head.target.size == 1 and p[0] == b"*" and head.method_id == METHOD_OPTIONS:
            head.path = head.target
            return 1
        return read_absolute(scan, head, p, stop)
    head.path_and_query = head.target
    query = <const unsigned char*>memchr(p, 63, stop - p)
    if query == NULL:
        query = stop
    head.path = span(scan, p, query)
    if memchr(p, 92, query - p) != NULL:
        return bad(scan, b"there is a backslash in the path")
    return 1


cdef int read_absolute(Scan* scan, Head* head, const unsigned char* p, const unsigned char* stop) noexcept nogil:
    cdef const unsigned char* start
    cdef const unsigned char* query
    cdef const unsigned char* colon = NULL
    cdef const char* reason
    if stop - p > 7 and same_name(p, b"http://", 7):
        p += 7
    elif stop - p > 8 and same_name(p, b"https://", 8):
        p += 8
    else:
        return bad(scan, b"the request target is neither a path nor an http or https URI")
    head.absolute_form = True
    start = p
    while p < stop and p[0] != b"/" and p[0] != b"?":
        if p[0] == b"@":
            return bad(scan, b"there is user information in the request target")
        p += 1
    reason = check_authority(start, p, &colon)
    if reason != NULL:
        return bad(scan, reason)
    head.host = span(scan, start, p)
    head.path_and_query = span(scan, p, stop)
    query = <const unsigned char*>memchr(p, 63, stop - p)
    if query == NULL:
        query = stop
    if query == p:
        head.path = span(scan, start - 1, start)        # the second '/' of "://"
    else:
        head.path = span(scan, p, query)
    if memchr(p, 92, query - p) != NULL:
        return bad(scan, b"there is a backslash in the path")
    return 1


cdef bint same_text(const unsigned char* a, const unsigned char* b, size_t size) noexcept nogil:
    cdef size_t at
    cdef unsigned char x, y
    for at in range(size):
        x = a[at] + 32 if a[at] >= b"A" and a[at] <= b"Z" else a[at]
        y = b[at] + 32 if b[at] >= b"A" and b[at] <= b"Z" else b[at]
        if x != y:
            return False
    return True


# The host's bytes without a port that is the scheme's default.
cdef size_t bare_size(const unsigned char* host, const unsigned char* colon, size_t size, bint secure) noexcept nogil:
    cdef size_t bare = colon - host
    if size - bare == 3 and not secure and colon[1] == b"8" and colon[2] == b"0":
        return bare
    if size - bare == 4 and secure and memcmp(colon + 1, b"443", 3) == 0:
        return bare
    return size


cdef int judge_host(Scan* scan, Head* head) noexcept nogil:
    cdef const unsigned char* host
    cdef const unsigned char* colon = NULL
    cdef const unsigned char* other
    cdef const unsigned char* other_colon = NULL
    cdef const char* reason
    cdef Span value
    cdef size_t size
    cdef bint secure
    if not has(scan, FIELD_HOST):
        return bad(scan, b"there is no Host") if head.minor == 1 else 1
    if scan.again >> FIELD_HOST & 1:
        return bad(scan, b"there is more than one Host")
    value = value_of(scan, head, FIELD_HOST)
    host = scan.data + value.start
    reason = check_authority(host, host + value.size, &colon)
    if reason != NULL:
        return bad(scan, reason)
    if not head.absolute_form:
        head.host = value
        return 1
    other = scan.data + head.host.start
    check_authority(other, other + head.host.size, &other_colon)
    secure = scan.data[head.target.start + 4] != b":"
    size = bare_size(host, colon, value.size, secure)
    if size != bare_size(other, other_colon, head.host.size, secure) or not same_text(host, other, size):
        return bad(scan, b"Host and the request target name different hosts")
    return 1


# --- framing -----------------------------------------------------------------------

cdef int read_length(Scan* scan, Head* head) noexcept nogil:
    cdef Span value = value_of(scan, head, FIELD_CONTENT_LENGTH)
    cdef const unsigned char* p = scan.data + value.start
    cdef const unsigned char* stop = p + value.size
    cdef uint64_t length = 0
    if scan.again >> FIELD_CONTENT_LENGTH & 1:
        return bad(scan, b"there is more than one Content-Length")
    if value.size == 0 or (p[0] == b"0" and value.size > 1):
        return bad(scan, b"Content-Length is not a plain number")
    while p < stop:
        if p[0] < b"0" or p[0] > b"9":
            return bad(scan, b"Content-Length is not a plain number")
        if length > (<uint64_t>INT64_MAX - (p[0] - 48)) // 10:
            return bad(scan, b"Content-Length is too large")
        length = length * 10 + (p[0] - 48)
        p += 1
    head.has_content_length = True
    head.content_length = length
    return 1


# Whether nothing but spaces stands between the colon and the value, and nothing behind the value. Parsers that
# look for "chunked" differ in what else they pass over: llhttp does not find it before a tab.
cdef bint is_plain(const Scan* scan, const Field* field) noexcept nogil:
    cdef uint32_t at
    for at in range(field.name.start + field.name.size + 1, field.value.start):
        if scan.data[at] != b" ":
            return False
    return scan.data[field.value.start + field.value.size] == b"\r"


cdef int read_coding(Scan* scan, Head* head) noexcept nogil:
    cdef Span value = value_of(scan, head, FIELD_TRANSFER_ENCODING)
    cdef uint32_t at = value.start
    cdef uint32_t start = 0
    cdef uint32_t stop = 0
    cdef int commas = 0
    cdef int count = 0
    cdef int chunked = 0
    cdef int found
    if scan.again >> FIELD_TRANSFER_ENCODING & 1:
        return bad(scan, b"there is more than one Transfer-Encoding")
    if has(scan, FIELD_CONTENT_LENGTH):
        return bad(scan, b"there are both Transfer-Encoding and Content-Length")
    if head.minor == 0:
        return bad(scan, b"there is a Transfer-Encoding in HTTP/1.0")
    if not is_plain(scan, &head.fields[scan.where[<int>FIELD_TRANSFER_ENCODING]]):
        return bad(scan, b"there is unusual whitespace around a transfer coding")
    if value.size == 7 and same_name(scan.data + value.start, b"chunked", 7):
        return 1
    for start in range(value.start, value.start + value.size):
        commas += scan.data[start] == b","
    while True:
        found = next_token(scan.data, &at, value.start + value.size, &start, &stop)
        if found <= 0:
            break
        if chunked:
            return bad(scan, b"chunked is not the last transfer coding")
        count += 1
        chunked = stop - start == 7 and same_name(scan.data + start, b"chunked", 7)
    if found < 0 or count != commas + 1:
        return bad(scan, b"Transfer-Encoding is malformed")
    scan.reason = b"this transfer coding is not implemented"
    return SCAN_CODING


cdef int read_framing(Scan* scan, Head* head) noexcept nogil:
    if has(scan, FIELD_TRANSFER_ENCODING):
        head.framing = BODY_CHUNKED
        return read_coding(scan, head)
    if has(scan, FIELD_CONTENT_LENGTH):
        head.framing = BODY_LENGTH
        return read_length(scan, head)
    return 1


# --- Connection ------------------------------------------------------------------------

# Whether a field of this name stays although Connection names it: it is meant for the service, or it frames the
# message, or it says who asks.
cdef bint stays(const unsigned char* name, size_t size) noexcept nogil:
    if field_lookup(name, size) != FIELD_OTHER:
        return True
    if size == 6 and same_name(name, b"cookie", 6):
        return True
    if size == 13 and same_name(name, b"cache-control", 13):
        return True
    return size > 8 and same_name(name, b"content-", 8)


cdef void mark_hop(Scan* scan, Head* head, const unsigned char* name, uint32_t size) noexcept nogil:
    cdef uint32_t at
    cdef Field* field
    for at in range(head.field_count):
        field = &head.fields[at]
        if field.name.size == size and same_text(scan.data + field.name.start, name, size):
            field.hop = True


# One Connection field: its options, and the fields it names. OPTION_... or negative.
cdef int read_options(Scan* scan, Head* head, Span value, int* named) noexcept nogil:
    cdef uint32_t at = value.start
    cdef uint32_t start = 0
    cdef uint32_t stop = 0
    cdef const unsigned char* name
    cdef int options = 0
    cdef int found
    while True:
        found = next_token(scan.data, &at, value.start + value.size, &start, &stop)
        if found <= 0:
            break
        name = scan.data + start
        if stop - start == 5 and same_name(name, b"close", 5):
            options |= OPTION_CLOSE
        elif stop - start == 10 and same_name(name, b"keep-alive", 10):
            options |= OPTION_KEEP_ALIVE
        elif stop - start == 7 and same_name(name, b"upgrade", 7):
            options |= OPTION_UPGRADE
        elif not stays(name, stop - start):
            if named[0] == MAX_OPTIONS:
                return bad(scan, b"Connection names too many fields")
            named[0] += 1
            mark_hop(scan, head, name, stop - start)
    return options if found == 0 else bad(scan, b"Connection is not a list of names")


cdef int judge_connection(Scan* scan, Head* head) noexcept nogil:
    cdef uint32_t at
    cdef int named = 0
    cdef int options = 0
    cdef int result
    if not has(scan, FIELD_CONNECTION):
        head.keep_alive = head.minor
        return 1
    for at in range(head.field_count):
        if head.fields[at].known == FIELD_CONNECTION:
            result = read_options(scan, head, head.fields[at].value, &named)
            if result < 0:
                return result
            options |= result
    head.keep_alive = not options & OPTION_CLOSE and (head.minor == 1 or options & OPTION_KEEP_ALIVE != 0)
    head.upgrade = (options & OPTION_UPGRADE != 0 and head.minor == 1 and has(scan, FIELD_UPGRADE)
                    and head.framing == BODY_NONE)
    return 1


# --- whole heads --------------------------------------------------------------------------

cdef int judge_request(Scan* scan, Head* head) noexcept nogil:
    cdef Span value
    cdef int result
    if scan.framing_lookalike:
        return bad(scan, b"there is a field that CGI reads as Content-Length or Transfer-Encoding")
    if scan.again & (<uint64_t>1 << FIELD_AUTHORIZATION | <uint64_t>1 << FIELD_PROXY_AUTHORIZATION):
        return bad(scan, b"there is more than one Authorization")
    result = judge_host(scan, head)
    if result > 0:
        result = read_framing(scan, head)
    if result < 0:
        return result
    if head.framing == BODY_LENGTH and head.content_length == 0:
        head.framing = BODY_NONE
    if has(scan, FIELD_EXPECT) and head.minor == 1:
        value = value_of(scan, head, FIELD_EXPECT)
        head.expect_continue = value.size == 12 and same_text(scan.data + value.start, b"100-continue", 12)
    head.idempotent = IDEMPOTENT_METHODS >> head.method_id & 1
    return judge_connection(scan, head)


cdef int judge_response(Scan* scan, Head* head, uint8_t method_id) noexcept nogil:
    cdef int result = read_framing(scan, head)
    cdef bint coded = has(scan, FIELD_TRANSFER_ENCODING)
    if result < 0:
        return result
    if head.status < 200 and (coded or head.has_content_length):
        return bad(scan, b"a 1xx response has a body")
    if head.status == 204 and (coded or head.content_length != 0):
        return bad(scan, b"a 204 response has a body")
    if (head.status < 200 or head.status == 204 or head.status == 304 or method_id == METHOD_HEAD
            or (method_id == METHOD_CONNECT and head.status < 300)):
        head.framing = BODY_NONE
    elif not coded:
        if not head.has_content_length:
            head.framing = BODY_UNTIL_CLOSE
        elif head.content_length == 0:
            head.framing = BODY_NONE
    result = judge_connection(scan, head)
    if result < 0:
        return result
    if head.framing == BODY_UNTIL_CLOSE:
        head.keep_alive = False
    if head.status == 101 and not head.upgrade:
        return bad(scan, b"a 101 response does not say to what it upgrades")
    return 1
