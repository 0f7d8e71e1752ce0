# The half of a client connection that responses go out by: the sink of the egress. Owns nothing of its own.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.http1 cimport Head
from _fastpath.request cimport RequestReader


cdef class ResponseWriter(RequestReader):
    cdef uint64_t reply_left
    cdef uint64_t reply_seen
    cdef uint64_t replied_us      # the response's head came
    cdef uint16_t status
    cdef uint8_t delivery         # of the current try
    cdef uint8_t reply_framing, reply_begun, reply_done, close_after

    # hooks
    cdef void finish(self) noexcept           # the response is written to its end
    cdef void cut(self) noexcept              # it can't be completed, and must not look complete

    # --- inside only ---
    cdef void begin_reply(self, const unsigned char* data, const Head* head,
                          const unsigned char* body, size_t body_size, uint32_t flags) noexcept
    cdef void send_body(self, const unsigned char* data, size_t size) noexcept
    cdef void end_reply(self) noexcept
