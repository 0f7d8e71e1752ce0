# Writing lines of text, and finding the parts of a canonical head that they tell. Sans-IO, borrowed memory only.
#
# Each function returns the place behind what it wrote; room is the caller's affair. Escaped, a byte becomes at most six.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, strlen

cdef struct Text:
    const unsigned char* data
    uint32_t size

cdef inline unsigned char* put(unsigned char* at, const char* text) noexcept nogil:
    cdef size_t size = strlen(text)
    memcpy(at, text, size)
    return at + size

cdef struct Picked:
    Text method, target, version, host, agent, referer, trace
    # What nodes before this one have written: the client's address, who it has proven to be, the request's id.
    Text client, user, request_id

cdef unsigned char* put_number(unsigned char* at, uint64_t value) noexcept nogil
# `width` digits with leading zeros.
cdef unsigned char* put_digits(unsigned char* at, uint64_t value, int width) noexcept nogil
# At most `most` bytes of it, quotes, control characters and bytes that are not ASCII escaped as in JSON.
cdef unsigned char* put_text(unsigned char* at, Text text, uint32_t most) noexcept nogil
cdef void pick(Text head, Picked* out) noexcept nogil
