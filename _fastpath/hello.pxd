# The first message of a TLS client (ClientHello), read for the server name that it asks for. Sans-IO.
#
# Owns nothing. The name is written into the caller's memory.

cdef enum Hello:
    HELLO_MORE = 0                # not whole yet
    HELLO_NAMED = 1
    HELLO_NAMELESS = 2            # whole, and names no server
    HELLO_STRANGE = -1            # no TLS: nothing that an alert could tell
    HELLO_BAD = -2                # TLS, and malformed or too large

cdef enum:
    MAX_HELLO = 32768             # bytes that are looked at, headers of records included
    MAX_NAME = 253

# `name` (>= MAX_NAME bytes) gets the server name in lower case.
cdef int scan_hello(const unsigned char* data, size_t size, unsigned char* name, size_t* name_size) noexcept nogil
