"""The server name of a ClientHello (RFC 8446 4.1.2, RFC 6066 3). See hello.pxd."""

from libc.stdint cimport uint32_t
from libc.string cimport memcpy

cdef enum:
    RECORD_HEAD = 5
    RECORD_HANDSHAKE = 22
    MAX_RECORD = 16384            # RFC 8446 5.1
    MESSAGE_HEAD = 4
    CLIENT_HELLO = 1
    MAX_MESSAGE = 16384
    EXTENSION_SERVER_NAME = 0
    NAME_HOST = 0

# One message, put together of its records. In use inside one call only.
cdef unsigned char message[MAX_MESSAGE + MESSAGE_HEAD]


# What is left of a message: every read is checked against it.
cdef struct Span:
    const unsigned char* at
    size_t left


cdef inline bint take(Span* span, size_t size, Span* part) noexcept nogil:
    if size > span.left:
        return False
    part.at = span.at
    part.left = size
    span.at += size
    span.left -= size
    return True


cdef inline bint take_number(Span* span, int bytes, size_t* value) noexcept nogil:
    cdef Span part
    cdef int i
    if not take(span, bytes, &part):
        return False
    value[0] = 0
    for i in range(bytes):
        value[0] = (value[0] << 8) | part.at[i]
    return True


# A vector with a length in front of it.
cdef inline bint take_vector(Span* span, int bytes, Span* part) noexcept nogil:
    cdef size_t size = 0
    return take_number(span, bytes, &size) and take(span, size, part)


cdef int join_records(const unsigned char* data, size_t size, size_t* message_size) noexcept nogil:
    # A message may be spread over records (RFC 8446 5.1). HELLO_NAMED: it is whole.
    cdef size_t used = 0, have = 0, length, need = MESSAGE_HEAD
    while True:
        if have >= need:
            message_size[0] = need
            return HELLO_NAMED
        if used == size:
            return HELLO_MORE if size < MAX_HELLO else HELLO_BAD
        if data[used] != RECORD_HANDSHAKE:
            return HELLO_STRANGE if used == 0 else HELLO_BAD
        if size - used > 1 and data[used + 1] != 3:
            return HELLO_STRANGE if used == 0 else HELLO_BAD
        if size - used < RECORD_HEAD:
            return HELLO_MORE if size < MAX_HELLO else HELLO_BAD
        length = (<size_t>data[used + 3] << 8) | data[used + 4]
        if length == 0 or length > MAX_RECORD:
            return HELLO_BAD
        used += RECORD_HEAD
        if length > size - used:
            length = size - used  # the rest of the record is to come
        if length > sizeof(message) - have:
            return HELLO_BAD
        memcpy(message + have, data + used, length)
        have += length
        used += length
        if have >= 1 and message[0] != CLIENT_HELLO:
            return HELLO_BAD
        if have >= MESSAGE_HEAD:
            need = MESSAGE_HEAD + ((<size_t>message[1] << 16) | (<size_t>message[2] << 8) | message[3])
            if need > sizeof(message):
                return HELLO_BAD


cdef bint copy_name(Span* host, unsigned char* name, size_t* size) noexcept nogil:
    # Letters, digits, "-", "_" and dots between labels (RFC 6066 3: ASCII, without a dot at the end).
    cdef size_t i
    cdef unsigned char c
    cdef unsigned char before = c'.'
    if host.left == 0 or host.left > MAX_NAME:
        return False
    for i in range(host.left):
        c = host.at[i]
        if c'A' <= c <= c'Z':
            c += 32
        if c == c'.':
            if before == c'.':
                return False
        elif not (c'a' <= c <= c'z' or c'0' <= c <= c'9' or c == c'-' or c == c'_'):
            return False
        name[i] = c
        before = c
    size[0] = host.left
    return before != c'.'


cdef int read_server_name(Span* extension, unsigned char* name, size_t* name_size) noexcept nogil:
    cdef Span names, host
    cdef size_t kind = 0
    if not take_vector(extension, 2, &names) or extension.left or names.left == 0:
        return HELLO_BAD
    # One name: other kinds were never defined, and a second host name is forbidden.
    if not take_number(&names, 1, &kind) or kind != NAME_HOST or not take_vector(&names, 2, &host) or names.left:
        return HELLO_BAD
    return HELLO_NAMED if copy_name(&host, name, name_size) else HELLO_BAD


cdef int scan_hello(const unsigned char* data, size_t size, unsigned char* name, size_t* name_size) noexcept nogil:
    cdef Span body, part, extensions, extension
    cdef size_t total = 0, kind = 0
    cdef int result = join_records(data, size, &total)
    cdef bint seen = False
    name_size[0] = 0
    if result != HELLO_NAMED:
        return result
    body.at = message + MESSAGE_HEAD
    body.left = total - MESSAGE_HEAD
    if not (
        take(&body, 34, &part)                # version, random
        and take_vector(&body, 1, &part)      # session
        and take_vector(&body, 2, &part)      # ciphers
        and take_vector(&body, 1, &part)      # compression
    ):
        return HELLO_BAD
    if body.left == 0:
        return HELLO_NAMELESS                 # no extensions at all
    if not take_vector(&body, 2, &extensions) or body.left:
        return HELLO_BAD
    result = HELLO_NAMELESS
    while extensions.left > 0:
        if not take_number(&extensions, 2, &kind) or not take_vector(&extensions, 2, &extension):
            return HELLO_BAD
        if kind != EXTENSION_SERVER_NAME:
            continue
        if seen:
            return HELLO_BAD
        seen = True
        result = read_server_name(&extension, name, name_size)
        if result != HELLO_NAMED:
            return result
    return result


def read_hello(const unsigned char[::1] data) -> str | None:
    """Return the server name that a ClientHello asks for, "" where it asks for none, None where it is not whole yet.

    Raises ValueError for what is no ClientHello, or is malformed.
    """
    cdef unsigned char name[MAX_NAME]
    cdef size_t size = 0
    cdef int result = scan_hello(&data[0] if data.shape[0] else NULL, data.shape[0], name, &size)
    if result == HELLO_MORE:
        return None
    if result < 0:
        raise ValueError("no TLS" if result == HELLO_STRANGE else "a malformed ClientHello")
    return (<bytes>name[:size]).decode("ascii")
