"""Canonical heads: what crosses a hop, what stays, what a node adds. See forward.pxd.

Whole ranges of lines are copied where nothing has to change; a line is
written anew only to frame the message, to append to a list, or to take away
more whitespace around a value than the one space.

Decisions:

* The version is HTTP/1.1 whatever the sender's was (RFC 9110 2.5). A request in HTTP/1.0 without a Host
  stays HTTP/1.0: there is no host to write. Expect from HTTP/1.0 is not forwarded (RFC 9110 10.1.1).
* Fields that only nodes may set (Broker-*, Client-Cert and kin) never cross from a client, Broker-* never from an
  upstream or a tunnel: to clients only the node that they talk to says it. Neither do their look-alikes with '_'. X-Forwarded-*, X-Real-IP and Forwarded of a client that is not trusted
  are removed. Of a trusted one they stay as far as they are believed (forwarded.pxd); our hop is appended to X-Forwarded-For and
  Forwarded, and X-Forwarded-Proto and -Host are written where they are missing: the first proxy knows best.
* X-Request-Id stays where it is one field of at most 128 letters, digits and -._~:/+=@, whoever sent it; else it is made anew.
* TE stays on its hop. Trailer crosses, except to a client of HTTP/1.0, who gets no trailers.
* A size of 0 in Origin or Reply means that nothing is written of it.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memchr

from _fastpath.address cimport ADDRESS_SIZE, read_address
from _fastpath.forwarded cimport Claim, is_sane_id, is_scheme, read_claim
from _fastpath.ids cimport ID_SIZE
from _fastpath.networks cimport Networks
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_UNTIL_CLOSE, FIELD_AUTHORIZATION, FIELD_BROKER, FIELD_CLIENT_CERT, FIELD_CONTENT_LENGTH, FIELD_EXPECT,
    FIELD_FORWARDED, FIELD_HOST, FIELD_LOOKALIKE, FIELD_TRAILER, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA,
    FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_OTHER, FIELD_X_FORWARDED_PROTO, FIELD_X_REQUEST_ID,
    MAX_CANONICAL_HEAD, MAX_FIELDS, METHOD_CONNECT, METHOD_GET, METHOD_HEAD, METHOD_OPTIONS, Field, Head, ScanLimits, Span,
    scan_request, scan_response,
)
from _fastpath.writer cimport Writer, close_writer, flush, open_writer, part, put, text

cdef uint64_t FORWARDED_FIELDS = (
    1 << FIELD_X_FORWARDED_FOR | 1 << FIELD_X_FORWARDED_PROTO | 1 << FIELD_X_FORWARDED_HOST
    | 1 << FIELD_X_FORWARDED_OTHER | 1 << FIELD_FORWARDED
)
cdef uint64_t NODE_FIELDS = 1 << FIELD_BROKER | 1 << FIELD_CLIENT_CERT | 1 << FIELD_LOOKALIKE


# --- fields --------------------------------------------------------------------

cdef inline uint32_t first_field(const Head* head) noexcept nogil:
    return head.fields[0].name.start if head.field_count else head.size - 2


cdef inline uint32_t line_stop(const Head* head, uint32_t index) noexcept nogil:
    return head.fields[index + 1].name.start if index + 1 < head.field_count else head.size - 2


# "Name:value" or "Name: value", nothing more.
cdef inline bint is_tidy(const unsigned char* data, const Field* field, uint32_t stop) noexcept nogil:
    cdef uint32_t gap = field.value.start - field.name.start - field.name.size - 1
    if field.value.start + field.value.size + 2 != stop:
        return False
    return gap == 0 or (gap == 1 and data[field.value.start - 1] == b" ")


cdef void put_field(Writer* writer, const Field* field) noexcept nogil:
    part(writer, field.name)
    text(writer, b": ")
    part(writer, field.value)
    text(writer, b"\r\n")


cdef bint is_last(const Head* head, uint32_t index) noexcept nogil:
    cdef uint32_t at
    for at in range(index + 1, head.field_count):
        if head.fields[at].known == head.fields[index].known:
            return False
    return True


# "Name: value, " without its end; without the comma where the value is empty.
cdef void begin_list(Writer* writer, const Field* field) noexcept nogil:
    part(writer, field.name)
    text(writer, b": ")
    if field.value.size:
        part(writer, field.value)
        text(writer, b", ")


cdef void put_coding(Writer* writer, const Field* field) noexcept nogil:
    part(writer, field.name)
    text(writer, b": chunked\r\n")


cdef void put_via(Writer* writer, const unsigned char* via, uint32_t size) noexcept nogil:
    text(writer, b"1.1 " if writer.head.minor == 1 else b"1.0 ")
    put(writer, via, size)
    text(writer, b"\r\n")


# --- requests --------------------------------------------------------------------

cdef bint has_field(const Head* head, uint8_t known) noexcept nogil:
    cdef uint32_t at
    for at in range(head.field_count):
        if head.fields[at].known == known:
            return True
    return False


# The request line in origin form, and Host where only the target had it.
cdef void put_request_line(Writer* writer) noexcept nogil:
    cdef const Head* head = writer.head
    cdef Span target = head.path_and_query
    part(writer, head.method)
    text(writer, b" ")
    if not head.absolute_form:
        target = head.target
    elif target.size == 0 and head.method_id == METHOD_OPTIONS:
        text(writer, b"*")
    elif target.size == 0 or writer.data[target.start] != b"/":
        text(writer, b"/")
    part(writer, target)
    text(writer, b" HTTP/1.1\r\n" if head.host.size else b" HTTP/1.0\r\n")
    if head.absolute_form and not has_field(head, FIELD_HOST):
        text(writer, b"Host: ")
        part(writer, head.host)
        text(writer, b"\r\n")


# for=192.0.2.1 or for="[2001:db8::1]"
cdef void put_node(Writer* writer, const void* address, uint32_t size) noexcept nogil:
    cdef bint quoted = size and memchr(address, 58, size) != NULL
    text(writer, b"for=")
    if size == 0:
        text(writer, b"unknown")
        return
    text(writer, b"\"[" if quoted else b"")
    put(writer, address, size)
    text(writer, b"]\"" if quoted else b"")


# for=192.0.2.1;host="a:80";proto=http
cdef void put_forwarded(Writer* writer, const Origin* origin) noexcept nogil:
    cdef Span host = writer.head.host
    cdef bint quoted
    put_node(writer, origin.address, origin.address_size)
    if host.size:
        quoted = memchr(writer.data + host.start, 58, host.size) != NULL
        text(writer, b";host=\"" if quoted else b";host=")
        part(writer, host)
        text(writer, b"\"" if quoted else b"")
    if origin.scheme_size:
        text(writer, b";proto=")
        put(writer, origin.scheme, origin.scheme_size)
    text(writer, b"\r\n")


# Of a field of a trusted proxy, what is believed: all, the rest of the first line that is, or nothing.
cdef bint put_believed(Writer* writer, const Origin* origin, uint32_t index) noexcept nogil:
    cdef const Field* field = &writer.head.fields[index]
    cdef const Claim* claim = origin.claim
    cdef Field rest = field[0]
    if field.known != claim.known or index < claim.field:
        return False
    if index == claim.field:
        rest.value.size -= claim.start - rest.value.start
        rest.value.start = claim.start
    if not is_last(writer.head, index):
        put_field(writer, &rest)
        return True
    begin_list(writer, &rest)
    if field.known == FIELD_FORWARDED:
        put_forwarded(writer, origin)
    else:
        put(writer, origin.address, origin.address_size)
        text(writer, b"\r\n")
    return True


cdef uint64_t keep_id(Writer* writer, const Origin* origin, uint32_t index) noexcept nogil:
    cdef const Field* field = &writer.head.fields[index]
    if origin.new_id != NULL:
        if not is_sane_id(writer.data, writer.head, index):
            return 0
        origin.request_id.start = <uint32_t>(writer.at - writer.out) + field.name.size + 2
        origin.request_id.size = field.value.size
    put_field(writer, field)
    return <uint64_t>1 << FIELD_X_REQUEST_ID


# A field that does not simply cross. Returns its bit where it stays, so that it is not added again.
cdef uint64_t request_field(Writer* writer, const Origin* origin, uint32_t index) noexcept nogil:
    cdef const Field* field = &writer.head.fields[index]
    cdef uint64_t bit = <uint64_t>1 << field.known
    if field.known == FIELD_TRANSFER_ENCODING and writer.head.framing == BODY_CHUNKED:
        put_coding(writer, field)
        return bit
    if field.hop:
        if field.known == FIELD_UPGRADE and origin.upgrade.size:
            part(writer, field.name)
            text(writer, b": ")
            part(writer, origin.upgrade)
            text(writer, b"\r\n")
        return bit
    if bit & NODE_FIELDS or (bit & FORWARDED_FIELDS and not origin.trust_forwarded):
        return 0
    if field.known == FIELD_AUTHORIZATION and origin.drop_authorization:
        return bit
    if field.known == FIELD_X_REQUEST_ID:
        return keep_id(writer, origin, index)
    if origin.claim != NULL:
        if field.known == FIELD_X_FORWARDED_FOR or field.known == FIELD_FORWARDED:
            return bit if put_believed(writer, origin, index) else 0
        if field.known == FIELD_X_FORWARDED_PROTO and not is_scheme(writer.data, writer.head, index):
            return 0
    if field.known == FIELD_EXPECT and writer.head.minor == 0:
        return bit
    if is_last(writer.head, index):
        if field.known == FIELD_VIA and origin.via_size:
            begin_list(writer, field)
            put_via(writer, origin.via, origin.via_size)
            return bit
        if field.known == FIELD_X_FORWARDED_FOR and origin.address_size:
            begin_list(writer, field)
            put(writer, origin.address, origin.address_size)
            text(writer, b"\r\n")
            return bit
        if field.known == FIELD_FORWARDED and (origin.address_size or origin.scheme_size):
            begin_list(writer, field)
            put_forwarded(writer, origin)
            return bit
    put_field(writer, field)
    return bit


# What the node adds. `have`: fields that stayed.
cdef void put_origin(Writer* writer, const Origin* origin, uint64_t have) noexcept nogil:
    cdef bint known = origin.address_size != 0 or origin.scheme_size != 0
    cdef bint named = origin.claim != NULL and origin.claim.known != 0
    if origin.address_size and not have >> FIELD_X_FORWARDED_FOR & 1:
        text(writer, b"X-Forwarded-For: ")
        if named:
            put(writer, origin.claim.address, origin.claim.address_size)
            text(writer, b", ")
        put(writer, origin.address, origin.address_size)
        text(writer, b"\r\n")
    if origin.scheme_size and not have >> FIELD_X_FORWARDED_PROTO & 1:
        text(writer, b"X-Forwarded-Proto: ")
        put(writer, origin.scheme, origin.scheme_size)
        text(writer, b"\r\n")
    if known and writer.head.host.size and not have >> FIELD_X_FORWARDED_HOST & 1:
        text(writer, b"X-Forwarded-Host: ")
        part(writer, writer.head.host)
        text(writer, b"\r\n")
    if known and not have >> FIELD_FORWARDED & 1:
        text(writer, b"Forwarded: ")
        if named:
            put_node(writer, origin.claim.address, origin.claim.address_size)
            text(writer, b", ")
        put_forwarded(writer, origin)
    if origin.via_size and not have >> FIELD_VIA & 1:
        text(writer, b"Via: ")
        put_via(writer, origin.via, origin.via_size)
    if origin.new_id != NULL and not have >> FIELD_X_REQUEST_ID & 1:
        text(writer, b"X-Request-Id: ")
        origin.request_id.start = <uint32_t>(writer.at - writer.out)
        origin.request_id.size = ID_SIZE
        put(writer, origin.new_id, ID_SIZE)
        text(writer, b"\r\n")
    if origin.extra_size:
        put(writer, origin.extra, origin.extra_size)
    if origin.upgrade.size:
        text(writer, b"Connection: Upgrade\r\n")


cdef Py_ssize_t write_request(const unsigned char* data, const Head* head, const Origin* origin,
                              unsigned char* out, size_t capacity) noexcept nogil:
    cdef Writer writer
    cdef const Field* field
    cdef uint32_t at, stop
    cdef uint64_t have = 0
    cdef uint64_t touched = NODE_FIELDS | FORWARDED_FIELDS | <uint64_t>1 << FIELD_VIA | <uint64_t>1 << FIELD_X_REQUEST_ID
    if origin.drop_authorization:
        touched |= <uint64_t>1 << FIELD_AUTHORIZATION
    open_writer(&writer, data, head, out, capacity)
    if head.minor == 1 and not head.absolute_form:
        writer.run = head.method.start
    else:
        touched |= <uint64_t>1 << FIELD_EXPECT
        put_request_line(&writer)
        writer.run = first_field(head)
    for at in range(head.field_count):
        field = &head.fields[at]
        stop = line_stop(head, at)
        if field.hop or touched >> field.known & 1 or not is_tidy(data, field, stop):
            flush(&writer, field.name.start, stop)
            have |= request_field(&writer, origin, at)
    flush(&writer, head.size - 2, head.size)
    put_origin(&writer, origin, have)
    return close_writer(&writer, out)


cdef Py_ssize_t without_fields(const unsigned char* data, const Head* head, bint upgrade, bint identity,
                               unsigned char* out, size_t capacity) noexcept nogil:
    cdef Writer writer
    cdef const Field* field
    cdef uint32_t at
    open_writer(&writer, data, head, out, capacity)
    for at in range(head.field_count):
        field = &head.fields[at]
        if (upgrade and field.hop and field.known != FIELD_TRANSFER_ENCODING) or (identity and NODE_FIELDS >> field.known & 1):
            flush(&writer, field.name.start, line_stop(head, at))
    flush(&writer, head.size - 2, head.size)
    return close_writer(&writer, out)


# --- responses ---------------------------------------------------------------------

cdef void begin_response(Writer* writer) noexcept nogil:
    cdef const Head* head = writer.head
    # 13: "HTTP/1.1 200 " is there with its last space.
    if head.minor == 1 and head.reason.start == 13:
        return
    text(writer, b"HTTP/1.1 ")
    put(writer, writer.data + 9, 3)
    text(writer, b" ")
    part(writer, head.reason)
    text(writer, b"\r\n")
    writer.run = first_field(head)


cdef void response_field(Writer* writer, const Field* field) noexcept nogil:
    cdef const Head* head = writer.head
    if field.known == FIELD_TRANSFER_ENCODING:
        if head.framing == BODY_CHUNKED:
            put_coding(writer, field)
    elif field.known == FIELD_UPGRADE and head.status == 101:
        put_field(writer, field)
    elif field.hop or field.known == FIELD_BROKER or field.known == FIELD_LOOKALIKE:
        pass
    elif field.known == FIELD_CONTENT_LENGTH and head.status == 204:
        pass
    else:
        put_field(writer, field)


cdef Py_ssize_t write_response(const unsigned char* data, const Head* head,
                               unsigned char* out, size_t capacity) noexcept nogil:
    cdef Writer writer
    cdef const Field* field
    cdef uint32_t at, stop
    cdef uint64_t touched = <uint64_t>1 << FIELD_BROKER | <uint64_t>1 << FIELD_LOOKALIKE
    if head.status == 204:
        touched |= <uint64_t>1 << FIELD_CONTENT_LENGTH
    open_writer(&writer, data, head, out, capacity)
    begin_response(&writer)
    for at in range(head.field_count):
        field = &head.fields[at]
        stop = line_stop(head, at)
        if field.hop or touched >> field.known & 1 or not is_tidy(data, field, stop):
            flush(&writer, field.name.start, stop)
            response_field(&writer, field)
    flush(&writer, head.size - 2, head.size)
    if head.framing == BODY_UNTIL_CLOSE:
        text(&writer, b"Transfer-Encoding: chunked\r\n")
    if head.status == 101:
        text(&writer, b"Connection: Upgrade\r\n")
    return close_writer(&writer, out)


# --- replies -------------------------------------------------------------------------

# Returns whether a Via was written.
cdef bint reply_field(Writer* writer, const Reply* reply, uint32_t index) noexcept nogil:
    cdef const Head* head = writer.head
    cdef const Field* field = &head.fields[index]
    if field.known == FIELD_TRANSFER_ENCODING:
        if head.framing == BODY_CHUNKED and reply.minor == 1:
            put_coding(writer, field)
    elif field.known == FIELD_UPGRADE and reply.upgrade:
        put_field(writer, field)
    elif field.hop or field.known == FIELD_BROKER or field.known == FIELD_LOOKALIKE:
        pass
    elif field.known == FIELD_TRAILER and reply.minor == 0:
        pass
    elif field.known == FIELD_VIA and reply.via_size and is_last(head, index):
        begin_list(writer, field)
        put_via(writer, reply.via, reply.via_size)
        return True
    else:
        put_field(writer, field)
    return False


cdef void put_connection(Writer* writer, const Reply* reply) noexcept nogil:
    cdef const Head* head = writer.head
    if reply.upgrade:
        text(writer, b"Connection: Upgrade\r\n")
    elif head.status < 200:
        pass
    elif (reply.close or head.framing == BODY_UNTIL_CLOSE
            or (reply.minor == 0 and head.framing == BODY_CHUNKED)):
        text(writer, b"Connection: close\r\n")
    elif reply.keep_alive_10:
        text(writer, b"Connection: keep-alive\r\n")


cdef Py_ssize_t write_reply(const unsigned char* data, const Head* head, const Reply* reply,
                            unsigned char* out, size_t capacity) noexcept nogil:
    cdef Writer writer
    cdef const Field* field
    cdef uint32_t at, stop
    cdef bint via_written = False
    cdef uint64_t touched = <uint64_t>1 << FIELD_VIA | <uint64_t>1 << FIELD_BROKER | <uint64_t>1 << FIELD_LOOKALIKE
    if reply.minor == 0:
        touched |= <uint64_t>1 << FIELD_TRAILER
    open_writer(&writer, data, head, out, capacity)
    begin_response(&writer)
    for at in range(head.field_count):
        field = &head.fields[at]
        stop = line_stop(head, at)
        if field.hop or touched >> field.known & 1 or not is_tidy(data, field, stop):
            flush(&writer, field.name.start, stop)
            if reply_field(&writer, reply, at):
                via_written = True
    flush(&writer, head.size - 2, head.size)
    if reply.via_size and not via_written:
        text(&writer, b"Via: ")
        put_via(&writer, reply.via, reply.via_size)
    put_connection(&writer, reply)
    return close_writer(&writer, out)


# --- for tests ---------------------------------------------------------------------------

cdef Field[MAX_FIELDS] field_array


# Scans `data`, which must be a whole head without fault.
cdef int scan_whole(bytes data, bint response, uint8_t method_id, Head* head) except -1:
    cdef ScanLimits limits
    cdef uint32_t resume = 0
    cdef const char* reason = b"more bytes are needed"
    cdef int result
    limits.head = MAX_CANONICAL_HEAD
    limits.headers = MAX_FIELDS
    limits.uri = MAX_CANONICAL_HEAD
    head.fields = field_array
    if response:
        result = scan_response(data, len(data), &limits, method_id, &resume, head, &reason)
    else:
        result = scan_request(data, len(data), &limits, &resume, head, &reason)
    if result <= 0:
        raise ValueError(reason.decode())
    return 0


cdef object written(Py_ssize_t size, bytearray out):
    if size < 0:
        return None
    return bytes(out[:size])


def rewrite_request(data: bytes, *, address: bytes = b"", scheme: bytes = b"", via: bytes = b"",
                    extra: bytes = b"", trust: bool = False, upgrade: bool = False, capacity: int | None = None,
                    proxies: Networks | None = None, new_id: bytes = b"") -> bytes | None:
    """What write_request makes of a request's head; None where it does not fit into `capacity`.

    `proxies`: the head came from `address`, which is a trusted proxy. `new_id`: 32 bytes.
    """
    cdef Head head
    cdef Origin origin
    cdef Claim claim
    cdef Span placed
    cdef unsigned char raw[ADDRESS_SIZE]
    cdef Py_ssize_t size
    cdef uint32_t at
    scan_whole(data, False, 0, &head)
    origin.address = address
    origin.address_size = len(address)
    origin.scheme = scheme
    origin.scheme_size = len(scheme)
    origin.via = via
    origin.via_size = len(via)
    origin.extra = extra
    origin.extra_size = len(extra)
    origin.upgrade.start = origin.upgrade.size = 0
    for at in range(head.field_count):
        if upgrade and head.upgrade and head.fields[at].known == FIELD_UPGRADE:
            origin.upgrade = head.fields[at].value
    origin.trust_forwarded = trust or proxies is not None
    origin.claim = NULL
    if proxies is not None and read_address(address, len(address), raw):
        read_claim(data, &head, proxies, raw, &claim)
        origin.claim = &claim
    origin.drop_authorization = False
    origin.new_id = NULL
    origin.request_id = &placed
    if len(new_id) == ID_SIZE:
        origin.new_id = new_id
    room = head.size + 1024 + len(address) + len(scheme) + len(via) + len(extra)
    out = bytearray(room if capacity is None else capacity)
    size = write_request(data, &head, &origin, out, len(out))
    return written(size, out)


def rewrite_response(data: bytes, *, method: bytes = b"GET", capacity: int | None = None) -> bytes | None:
    """What write_response makes of the head of a response to `method`."""
    cdef Head head
    scan_whole(data, True, METHOD_HEAD if method == b"HEAD" else METHOD_GET, &head)
    out = bytearray(head.size + 1024 if capacity is None else capacity)
    return written(write_response(data, &head, out, len(out)), out)


def rewrite_reply(data: bytes, *, method: bytes = b"GET", minor: int = 1, close: bool = False,
                  keep_alive_10: bool = False, upgrade: bool = False, via: bytes = b"",
                  capacity: int | None = None) -> bytes | None:
    """What write_reply makes of a canonical head of a response to `method`."""
    cdef Head head
    cdef Reply reply
    scan_whole(data, True, METHOD_HEAD if method == b"HEAD" else METHOD_GET, &head)
    reply.minor = minor
    reply.close = close
    reply.keep_alive_10 = keep_alive_10
    reply.upgrade = upgrade
    reply.via = via
    reply.via_size = len(via)
    out = bytearray(head.size + 1024 + len(via) if capacity is None else capacity)
    return written(write_reply(data, &head, &reply, out, len(out)), out)
