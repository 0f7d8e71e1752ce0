# The half of a client connection that responses go out by: the sink of the egress. Owns `frames`.
#
# After a 101 that was asked for, response and request are the two directions of one connection, opaque to this node; each ends
# for itself, and the exchange with the second.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.http1 cimport Head
from _fastpath.request cimport RequestReader
from _fastpath.websocket cimport Frames

# Whether a WebSocket client has been told that its connection goes away.
cdef enum Parting:
    PARTING_NO = 0
    PARTING_DUE = 1               # as soon as a frame ends
    PARTING_SAID = 2              # nothing of the service follows


cdef class ResponseWriter(RequestReader):
    cdef uint64_t reply_left
    cdef uint64_t reply_seen
    cdef uint64_t replied_us      # the response's head came
    cdef uint64_t total_deadline_ms
    cdef uint32_t interim_size    # bytes of the interim responses so far
    cdef uint16_t status
    cdef uint8_t delivery         # of the current try
    cdef uint8_t reply_framing, reply_begun, reply_done, close_after
    cdef uint8_t parting          # Parting
    cdef Frames* frames           # of a WebSocket connection: where the service's direction is, malloc'd; else NULL

    # hooks
    cdef void finish(self) noexcept           # the response is written to its end
    cdef void cut(self) noexcept              # it can't be completed, and must not look complete

    # --- inside only ---
    cdef void send_interim(self, const unsigned char* data, const Head* head) noexcept
    cdef void begin_reply(self, const unsigned char* data, const Head* head,
                          const unsigned char* body, size_t body_size, uint32_t flags) noexcept
    cdef bint is_last(self) noexcept          # no further request is taken
    cdef void begin_upgrade(self, const unsigned char* data, const Head* head,
                            const unsigned char* body, size_t body_size) noexcept
    cdef bint decline_upgrade(self) noexcept
    cdef void send_frames(self, const unsigned char* data, size_t size) noexcept
    cdef void say_going_away(self) noexcept
    cdef void send_body(self, const unsigned char* data, size_t size) noexcept
    cdef void end_reply(self) noexcept
