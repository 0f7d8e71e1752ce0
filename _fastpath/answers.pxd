# The answers that a node itself makes, rendered once: a full HTTP/1.1 response for each failure code,
# delivery fact, and whether the connection is closed after it. Owned by this module for the life of the process.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef struct Answer:
    const unsigned char* data     # head and body
    uint32_t size
    uint32_t head_size            # what a HEAD request gets
    uint16_t status
    uint8_t close                 # it says "Connection: close": the connection ends after it

# The 401 of one port or service, which says how to prove who one is (RFC 9110 11.6.1). Owns its rendering.
cdef class Challenge:
    cdef Answer answers[2]        # by whether the connection is closed
    cdef list rendered

# Never NULL: an unknown code is rendered as CODE_INTERNAL.
cdef const Answer* answer_for(uint16_t code, uint8_t delivery, bint close) noexcept
