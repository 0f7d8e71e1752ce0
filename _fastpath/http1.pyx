"""HTTP/1.x heads: one pass over the bytes, then a judgement of what the fields mean together.

The pass (lexing) goes in byte order and refuses the first byte that can't be
there, so that input which is wrong already is refused without waiting for its
end, and with the same answer whether it came whole or byte by byte. It is
followed, when the head is complete, by the rules on which fields may stand
together (Host, Content-Length, Transfer-Encoding, Connection).

Decisions that the RFCs leave open:

* One empty line before a request is passed over (RFC 9112 2.2), a second one is refused.
* Methods have at most 32 bytes; CONNECT is refused; the asterisk form is for OPTIONS only.
* Targets are visible ASCII without '#'; '\\' is refused in a path (many read it as '/'), and allowed
  in a query, where browsers send it. Percent-encoding and dot segments are neither read nor checked.
* Host: letters, digits, '.', '-', '_', '~', or an IPv6 address in brackets; a port is 1 to 65535. Never
  repeated, never empty, and it names the same authority as an absolute-form target (default ports are equal to none).
* Content-Length: digits only, no leading zero, at most 2^63-1, never repeated, not even with one value.
* Transfer-Encoding: exactly "chunked" in any case, once, in HTTP/1.1, never with Content-Length, with only
  spaces before it and nothing behind it. A list of other codings without fault is SCAN_CODING (501), all else SCAN_BAD.
* Content_Length and Transfer_Encoding in a request are refused: CGI reads them as the real ones.
* A second Authorization or Proxy-Authorization is refused: whose rights would it be?
* Connection makes the fields that it names hop-by-hop, except those that the program acts on, Cookie, Cache-Control
  and Content-*: nobody removes X-Forwarded-For from a request by naming it.
* Trailer is not hop-by-hop, as trailers cross. TE is, also `TE: trailers`: each hop speaks for itself.
* A status line may end after its status, without the space (servers do); 1xx and 204 with a body are refused,
  `Content-Length: 0` with 204 is not; an answer to HEAD and a 304 may have both framing fields' usual values.
"""

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset

from _fastpath.grammar cimport byte_class, field_lookup, lookalike_of, skip_target, skip_token, skip_value
from _fastpath.rules cimport Scan, bad, has, judge_request, judge_response, read_target, span

# *resume: bits 0-19 offset, 20-29 fields so far, 30-31 phase. 0: start from the first byte. In
# PHASE_START the fields' bits say which part of the start line the offset is in.
cdef enum:
    PHASE_START = 0
    PHASE_NAME = 1                # at the start of a line or in a name
    PHASE_VALUE = 2
    PART_TEXT = 1                 # in the target, or in the reason phrase
    PART_VERSION = 2              # at the first byte of a request's version
    OFFSET_BITS = 20
    PHASE_SHIFT = 30

cdef uint64_t HOP_FIELDS = (
    1 << FIELD_CONNECTION | 1 << FIELD_KEEP_ALIVE | 1 << FIELD_PROXY_CONNECTION | 1 << FIELD_TE
    | 1 << FIELD_TRANSFER_ENCODING | 1 << FIELD_UPGRADE | 1 << FIELD_HTTP2_SETTINGS
    | 1 << FIELD_PROXY_AUTHORIZATION | 1 << FIELD_PROXY_AUTHENTICATE
)


cdef inline int more(Scan* scan, uint32_t* resume, uint32_t phase, uint32_t count,
                     const unsigned char* at) noexcept nogil:
    # Canonical heads may be larger than an offset; they come whole, but nothing breaks where they don't.
    if at - scan.data < 1 << OFFSET_BITS:
        resume[0] = phase << PHASE_SHIFT | count << OFFSET_BITS | <uint32_t>(at - scan.data)
    return 0


cdef int bad_byte(Scan* scan, unsigned char byte, const char* otherwise) noexcept nogil:
    if byte == b"\n":
        return bad(scan, b"a line ends with a bare LF")
    if byte == 0:
        return bad(scan, b"there is a NUL byte")
    return bad(scan, otherwise)


# --- lexing: the field lines ---------------------------------------------------

# The byte at `at` ends neither a name with a colon nor the input: the empty line, or an error.
# The head's size, 0 where the empty line is not complete, or negative.
cdef int end_of_fields(Scan* scan, const unsigned char* at, uint32_t* resume) noexcept nogil:
    cdef bint line_start = (at - 1)[0] == b"\n"
    if at[0] == b"\r" and line_start:
        if at + 1 == scan.end:
            return more(scan, resume, PHASE_NAME, scan.count, at)
        if at[1] == b"\n":
            return <int>(at + 2 - scan.data)
        return bad(scan, b"there is a bare CR")
    if at[0] == b":":
        return bad(scan, b"a field has no name")
    if at[0] == b" " or at[0] == b"\t":
        if line_start:
            return bad(scan, b"a field line starts with whitespace (obs-fold)")
        return bad(scan, b"there is whitespace before a field's colon")
    if at[0] == b"\r":
        return bad(scan, b"a field line has no colon")
    return bad_byte(scan, at[0], b"there is an illegal character in a field name")


cdef inline void record(Scan* scan, Field* field, const unsigned char* name, const unsigned char* name_end,
                        bint odd) noexcept nogil:
    cdef uint8_t known = field_lookup(name, name_end - name)
    if odd and known == FIELD_OTHER:
        known = lookalike_of(name, name_end - name)
        if known != FIELD_OTHER and known != FIELD_LOOKALIKE:
            scan.framing_lookalike = True
            known = FIELD_LOOKALIKE
    field.name = span(scan, name, name_end)
    field.known = known
    field.hop = HOP_FIELDS >> known & 1
    if known != FIELD_OTHER:
        scan.again |= scan.seen & <uint64_t>1 << known
        scan.seen |= <uint64_t>1 << known
        scan.where[known] = scan.count


# All field lines from scan.at on, which may be in the middle of one: that one is then lexed, not recorded.
cdef int lex_fields(Scan* scan, Field* fields, uint32_t* resume) noexcept nogil:
    cdef const unsigned char* end = scan.end
    cdef const unsigned char* p = scan.at
    cdef const unsigned char* name = p
    cdef const unsigned char* name_end = p
    cdef const unsigned char* value
    cdef const unsigned char* stop
    cdef bint in_value = scan.phase == PHASE_VALUE
    cdef int odd = 0
    while True:
        if not in_value:
            name = p
            odd = 0
            p = skip_token(p, end, &odd)
            if p == end:
                return more(scan, resume, PHASE_NAME, scan.count, p)
            name_end = p
            if p[0] != b":" or (p - 1)[0] == b"\n":
                return end_of_fields(scan, p, resume)
            if scan.count == scan.max_fields:
                scan.reason = b"there are more header fields than the limit"
                return SCAN_HEAD_TOO_LARGE
            p += 1
        in_value = False
        while p < end and (p[0] == b" " or p[0] == b"\t"):
            p += 1
        value = p
        p = skip_value(p, end)
        if p == end or (p[0] == b"\r" and p + 1 == end):
            return more(scan, resume, PHASE_VALUE, scan.count, p)
        if p[0] != b"\r":
            return bad_byte(scan, p[0], b"there is a control character in a field value")
        if p[1] != b"\n":
            return bad(scan, b"there is a bare CR")
        if name_end != name:
            stop = p
            while stop > value and (stop[-1] == b" " or stop[-1] == b"\t"):
                stop -= 1
            fields[scan.count].value = span(scan, value, stop)
            record(scan, &fields[scan.count], name, name_end, odd)
        scan.count += 1
        p += 2
        name = name_end = p


# --- lexing: the start lines ----------------------------------------------------

# "HTTP/1.0" or "HTTP/1.1" at p. 1 with *minor, 0: more bytes needed, or negative.
cdef int lex_version(Scan* scan, const unsigned char* p, uint8_t* minor) noexcept nogil:
    cdef const char* pattern = b"HTTP/0.0"
    cdef int at
    if scan.end - p >= 8 and memcmp(p, b"HTTP/1.", 7) == 0 and (p[7] == b"1" or p[7] == b"0"):
        minor[0] = p[7] - 48
        return 1
    for at in range(8):
        if p + at == scan.end:
            return 0
        if pattern[at] == b"0":
            if p[at] < b"0" or p[at] > b"9":
                return bad_byte(scan, p[at], b"the HTTP version is malformed")
        elif p[at] != <unsigned char>pattern[at]:
            return bad_byte(scan, p[at], b"the HTTP version is malformed")
    scan.reason = b"this HTTP version is not supported"
    return SCAN_VERSION


cdef uint8_t method_lookup(const unsigned char* name, size_t size) noexcept nogil:
    if size == 3:
        if memcmp(name, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(name, b"PUT", 3) == 0:
            return METHOD_PUT
    elif size == 4:
        if memcmp(name, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(name, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif size == 5:
        if memcmp(name, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(name, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif size == 6:
        if memcmp(name, b"DELETE", 6) == 0:
            return METHOD_DELETE
    elif size == 7:
        if memcmp(name, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(name, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


# The request line. 1: complete, scan.at is behind it; 0: more bytes needed, or negative. A
# resumed line is lexed from its method again (at most MAX_METHOD bytes), and then from `from_target`.
cdef int lex_request_line(Scan* scan, Head* head, uint32_t* resume, uint32_t part,
                          const unsigned char* resumed) noexcept nogil:
    cdef const unsigned char* p = scan.data
    cdef const unsigned char* end = scan.end
    cdef const unsigned char* start
    cdef int odd = 0
    cdef int result
    if p < end and p[0] == b"\r":
        if p + 1 == end:
            return 0
        if p[1] != b"\n":
            return bad(scan, b"there is a bare CR")
        p += 2
    start = p
    p = skip_token(p, end if end - start <= MAX_METHOD + 1 else start + MAX_METHOD + 1, &odd)
    if p - start > MAX_METHOD:
        return bad(scan, b"the method is too long")
    if p == end:
        return 0
    if p[0] != b" " or p == start:
        return bad_byte(scan, p[0], b"the request does not start with a method and one space")
    head.method = span(scan, start, p)
    head.method_id = method_lookup(start, p - start)
    start = p + 1
    p = skip_target(resumed if part else start, end) if part != PART_VERSION else resumed - 1
    if p - start > scan.max_target:
        scan.reason = b"the request target is longer than the limit"
        return SCAN_URI_TOO_LONG
    if p == end:
        return more(scan, resume, PHASE_START, PART_TEXT, p)
    if p[0] != b" " or p == start:
        return bad_target(scan, p, start)
    head.target = span(scan, start, p)
    p += 1
    result = lex_version(scan, p, &head.minor)
    if result > 0:
        result = lex_line_end(scan, p + 8, b"there is something after the HTTP version")
    if result == 0:
        return more(scan, resume, PHASE_START, PART_VERSION, p)
    return result


cdef int bad_target(Scan* scan, const unsigned char* p, const unsigned char* start) noexcept nogil:
    if p == start and p[0] == b" ":
        return bad(scan, b"there is more than one space after the method")
    if p[0] == b"\r" and p != start:
        return bad(scan, b"there is no HTTP version (HTTP/0.9)")
    if p[0] == b"#":
        return bad(scan, b"there is a fragment in the request target")
    return bad_byte(scan, p[0], b"there is an illegal character in the request target")


# CR LF at p. 1: scan.at is behind them.
cdef int lex_line_end(Scan* scan, const unsigned char* p, const char* otherwise) noexcept nogil:
    if p == scan.end:
        return 0
    if p[0] != b"\r":
        return bad_byte(scan, p[0], otherwise)
    if p + 1 == scan.end:
        return 0
    if p[1] != b"\n":
        return bad(scan, b"there is a bare CR")
    scan.at = p + 2
    return 1


cdef int lex_status_line(Scan* scan, Head* head, uint32_t* resume, const unsigned char* resumed) noexcept nogil:
    cdef const unsigned char* p = scan.data
    cdef const unsigned char* start
    cdef int at
    cdef int result = lex_version(scan, p, &head.minor)
    if result <= 0:
        return result
    for at in range(8, 12):
        if p + at == scan.end:
            return 0
        if (p[at] != b" ") if at == 8 else (p[at] < b"0" or p[at] > b"9"):
            return bad_byte(scan, p[at], b"the status is not one space and three digits")
    head.status = (p[9] - 48) * 100 + (p[10] - 48) * 10 + p[11] - 48
    if head.status < 100 or head.status > 599:
        return bad(scan, b"the status is not in 100 to 599")
    p += 12
    if p == scan.end:
        return 0
    start = p
    if p[0] == b" ":
        start = p + 1
        p = skip_value(start if resumed == scan.data else resumed, scan.end)
    head.reason = span(scan, start, p)
    result = lex_line_end(scan, p, b"there is an illegal character in the status line")
    if result == 0:
        return more(scan, resume, PHASE_START, PART_TEXT, p)
    return result


# --- whole heads -------------------------------------------------------------------

cdef void prepare(Scan* scan, const unsigned char* data, size_t size, const ScanLimits* limits,
                  uint32_t resume, Head* head) noexcept nogil:
    cdef Field* fields = head.fields
    memset(head, 0, sizeof(Head))
    head.fields = fields
    scan.data = data
    scan.end = data + (size if size < limits.head else limits.head)
    scan.at = data + (resume & (1 << OFFSET_BITS) - 1)
    scan.reason = NULL
    scan.phase = resume >> PHASE_SHIFT
    scan.count = 0 if scan.phase == PHASE_START else resume >> OFFSET_BITS & 1023
    scan.max_fields = limits.headers if limits.headers < MAX_FIELDS else MAX_FIELDS
    scan.max_target = limits.uri
    scan.seen = 0
    scan.again = 0
    scan.framing_lookalike = False


# The head from *resume on. As a scan's result; > 0 after a resume in the fields: complete, but not read.
cdef int lex_request(Scan* scan, Head* head, uint32_t* resume) noexcept nogil:
    cdef uint32_t part = resume[0] >> OFFSET_BITS & 3
    cdef int result
    if scan.phase == PHASE_START:
        result = lex_request_line(scan, head, resume, part, scan.at)
        if result > 0:
            result = read_target(scan, head)
        if result <= 0:
            return result
    return lex_fields(scan, head.fields, resume)


cdef int lex_response(Scan* scan, Head* head, uint32_t* resume) noexcept nogil:
    cdef int result
    if scan.phase == PHASE_START:
        result = lex_status_line(scan, head, resume, scan.at)
        if result <= 0:
            return result
    return lex_fields(scan, head.fields, resume)


# A scan's last word: `result` of lexing or judging.
cdef int answer(Scan* scan, int result, size_t size, const ScanLimits* limits, const char** reason) noexcept nogil:
    if result == 0 and size >= limits.head:
        reason[0] = b"the head is larger than the limit"
        return SCAN_HEAD_TOO_LARGE
    if result < 0:
        reason[0] = scan.reason
    return result


cdef int scan_request(const unsigned char* data, size_t size, const ScanLimits* limits,
                      uint32_t* resume, Head* head, const char** reason) noexcept nogil:
    cdef Scan scan
    cdef uint32_t start = resume[0]
    cdef int result, judged
    prepare(&scan, data, size, limits, start, head)
    result = lex_request(&scan, head, resume)
    if result > 0 and start >> PHASE_SHIFT != PHASE_START:
        resume[0] = 0
        prepare(&scan, data, size, limits, 0, head)
        result = lex_request(&scan, head, resume)
    if result <= 0:
        return answer(&scan, result, size, limits, reason)
    head.size = <uint32_t>result
    head.field_count = scan.count
    judged = judge_request(&scan, head)
    return answer(&scan, result if judged > 0 else judged, size, limits, reason)


cdef int scan_response(const unsigned char* data, size_t size, const ScanLimits* limits, uint8_t method_id,
                       uint32_t* resume, Head* head, const char** reason) noexcept nogil:
    cdef Scan scan
    cdef uint32_t start = resume[0]
    cdef int result, judged
    prepare(&scan, data, size, limits, start, head)
    result = lex_response(&scan, head, resume)
    if result > 0 and start >> PHASE_SHIFT != PHASE_START:
        resume[0] = 0
        prepare(&scan, data, size, limits, 0, head)
        result = lex_response(&scan, head, resume)
    if result <= 0:
        return answer(&scan, result, size, limits, reason)
    head.size = <uint32_t>result
    head.field_count = scan.count
    judged = judge_response(&scan, head, method_id)
    return answer(&scan, result if judged > 0 else judged, size, limits, reason)


# --- for tests, and for the registration handshake -----------------------------------

cdef Field[MAX_FIELDS] field_array
_STATUS_OF = {SCAN_BAD: 400, SCAN_HEAD_TOO_LARGE: 431, SCAN_URI_TOO_LONG: 414, SCAN_VERSION: 505, SCAN_CODING: 501}
_FRAMING_NAMES = ("none", "length", "chunked", "close")


class HeadError(Exception):
    """A head was refused: `code` is the scanner's (negative), `status` what a client gets, `reason` why."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.status = _STATUS_OF[code]
        self.reason = reason


class ParsedHead:
    """What both kinds of heads have."""

    method = target = path = path_and_query = host = phrase = b""
    status = 0


cdef object parsed(const unsigned char* data, const Head* head):
    cdef uint32_t at
    result = ParsedHead()
    result.size = head.size
    result.minor = head.minor
    result.headers = []
    result.hop = []
    result.known = []
    for at in range(head.field_count):
        result.headers.append((piece(data, head.fields[at].name), piece(data, head.fields[at].value)))
        result.hop.append(bool(head.fields[at].hop))
        result.known.append(head.fields[at].known)
    result.framing = _FRAMING_NAMES[head.framing]
    result.content_length = head.content_length if head.has_content_length else None
    for name, value in (("keep_alive", head.keep_alive), ("upgrade", head.upgrade),
                        ("expect_continue", head.expect_continue), ("idempotent", head.idempotent),
                        ("absolute_form", head.absolute_form)):
        setattr(result, name, bool(value))
    if head.status:
        result.status = head.status
        result.phrase = piece(data, head.reason)
    else:
        result.method = piece(data, head.method)
        result.target = piece(data, head.target)
        result.path = piece(data, head.path)
        result.path_and_query = piece(data, head.path_and_query)
        result.host = piece(data, head.host)
    return result


cdef bytes piece(const unsigned char* data, Span span):
    return data[span.start:span.start + span.size]


@cython.final
cdef class HeadScanner:
    """Scans growing prefixes of one head, as a connection does."""

    cdef ScanLimits limits
    cdef uint32_t resume
    cdef bint response
    cdef uint8_t method_id

    def __cinit__(self, kind: str = "request", *, head_limit: int = 65536, header_limit: int = 100,
                  uri_limit: int | None = None, method: bytes = b"GET"):
        self.limits.head = min(head_limit, MAX_HEAD)
        self.limits.headers = min(header_limit, MAX_HEADERS)
        self.limits.uri = self.limits.head if uri_limit is None else uri_limit
        self.response = {"request": False, "response": True}[kind]
        self.method_id = method_lookup(method, len(method))

    def scan(self, bytes data not None):
        """Return the parsed head, or None where `data` is only the beginning of one."""
        cdef Head head
        cdef const char* reason = NULL
        cdef const unsigned char* start = data
        cdef int result
        head.fields = field_array
        if self.response:
            result = scan_response(start, len(data), &self.limits, self.method_id, &self.resume, &head, &reason)
        else:
            result = scan_request(start, len(data), &self.limits, &self.resume, &head, &reason)
        if result < 0:
            raise HeadError(result, reason.decode())
        return parsed(start, &head) if result > 0 else None

    def bench(self, bytes data not None, int rounds):
        """Scan one head again and again: what a scan costs without Python."""
        cdef const unsigned char* start = data
        cdef size_t size = len(data)
        cdef Head head
        cdef const char* reason = NULL
        cdef int result = 0
        head.fields = field_array
        for _ in range(rounds):
            self.resume = 0
            if self.response:
                result = scan_response(start, size, &self.limits, self.method_id, &self.resume,
                                       &head, &reason)
            else:
                result = scan_request(start, size, &self.limits, &self.resume, &head, &reason)
        return result


def parse_request(data: bytes, head_limit: int, header_limit: int) -> ParsedHead | None:
    """Parse a request's head; None where more bytes are needed. Raises HeadError."""
    return HeadScanner("request", head_limit=head_limit, header_limit=header_limit).scan(data)


def parse_response(data: bytes, head_limit: int, header_limit: int, method: bytes = b"GET") -> ParsedHead | None:
    """Parse a response's head (to `method`); None where more bytes are needed. Raises HeadError."""
    return HeadScanner("response", head_limit=head_limit, header_limit=header_limit, method=method).scan(data)


def byte_classes() -> list[int]:
    """The table of character classes, for tests."""
    return [byte_class[at] for at in range(256)]


def known_field(name: bytes) -> int:
    """The FieldName of a name, for tests."""
    cdef const unsigned char* start = name
    cdef uint8_t known = field_lookup(start, len(name))
    return known if known != FIELD_OTHER else lookalike_of(start, len(name))
