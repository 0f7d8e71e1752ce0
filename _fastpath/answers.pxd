# The answers that a node itself makes, rendered once: a full HTTP/1.1 response for each failure code,
# delivery fact, and whether the connection is closed after it. Owned by this module for the life of the process.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

cdef struct Answer:
    unsigned char* data           # head and body; only its Date ever changes
    uint32_t size
    uint32_t head_size            # what a HEAD request gets
    uint32_t date_at              # where the date is
    int64_t dated                 # the second that it shows
    uint16_t status
    uint8_t close                 # it says "Connection: close": the connection ends after it

# The 401 of one port or service, which says how to prove who one is (RFC 9110 11.6.1). Owns its rendering.
cdef class Challenge:
    cdef Answer answers[2]        # by whether the connection is closed
    cdef list rendered

# The same answer with the date of this moment (RFC 9110 6.6.1).
cdef const Answer* with_date(Answer* answer) noexcept
# With its date. Never NULL: an unknown code is rendered as CODE_INTERNAL.
cdef const Answer* answer_for(uint16_t code, uint8_t delivery, bint close) noexcept
