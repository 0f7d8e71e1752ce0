# The chunked transfer coding (RFC 9112 7.1), sans-IO. Strict: see chunked.pyx for what is refused.
#
# A decoder is a plain struct: zero it to start, chunked_clear it at the end.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum ChunkedEvent:
    CHUNKED_MORE = 0              # all input used, the body goes on
    CHUNKED_DATA = 1              # [*body, *body + *body_size) is body
    CHUNKED_END = 2               # the body is complete; trailers, if any, in the decoder
    CHUNKED_ERROR = -1

cdef enum:
    MAX_TRAILERS = 8192           # bytes of the whole trailer section, dropped fields included

cdef struct ChunkedDecoder:
    uint64_t left                 # of the current chunk
    uint32_t line_size            # bytes of the current size line or trailer line so far
    uint8_t state
    const char* reason            # set with CHUNKED_ERROR
    unsigned char* trailers       # malloc'd only when there are some: canonical lines, each with CRLF
    uint32_t trailers_size
    uint32_t trailers_capacity
    uint32_t section_size         # bytes of the trailer section so far

# Decodes from `data`: call until it returns MORE, END or ERROR. *used is how
# many bytes this call consumed; on DATA, *body and *body_size point into data.
# After END nothing more is consumed; after ERROR every call returns ERROR.
cdef int chunked_next(ChunkedDecoder* decoder, const unsigned char* data, size_t size,
                      size_t* used, const unsigned char** body, size_t* body_size) noexcept nogil
cdef void chunked_clear(ChunkedDecoder* decoder) noexcept nogil

# Whether these bytes are trailers as a decoder leaves them: what another node says they are may be any bytes.
cdef bint trailers_canonical(const unsigned char* data, size_t size) noexcept nogil

# "1A2B\r\n" into `out` (at least 18 bytes); returns its length. size > 0.
cdef int chunk_size_line(uint64_t size, unsigned char* out) noexcept nogil
