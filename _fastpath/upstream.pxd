# One connection to an HTTP/1.1 upstream: the egress of one exchange after another.
#
# Kept alive by the reactor, by its peer while joined, and by its Pool while idle. Owns
# `held` (a request that may be sent again), `stash` (response bytes read too early) and `decoder`, each malloc'd when needed.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.http1 cimport ChunkedDecoder, Head
from _fastpath.pool cimport Pool
from _fastpath.socket cimport Socket

cdef enum UpstreamState:
    UPSTREAM_CONNECTING = 0
    UPSTREAM_RUNNING = 1
    UPSTREAM_IDLE = 2


cdef class Upstream(Socket):
    cdef Pool service
    cdef unsigned char* held      # head and body of a request that may be sent again on a new connection
    cdef uint32_t held_head, held_body
    cdef unsigned char* stash     # a partial response head
    cdef uint32_t stash_size, scan_resume
    cdef ChunkedDecoder* decoder
    cdef uint64_t request_left, reply_left
    cdef uint8_t state, address_index, addresses_tried
    cdef uint8_t reused           # not the connection's first request
    cdef uint8_t method_id, idempotent, request_framing, reply_framing
    cdef uint8_t request_done, reply_begun, keep_alive
    cdef uint8_t touched          # bytes of the current response were seen
    cdef uint8_t counted          # in the service's count of what is under way

    cdef void begin(self, const Head* head) noexcept
    cdef void connected(self) noexcept
    cdef bint read_some(self) noexcept
    cdef bint read_head(self) noexcept
    cdef bint parse(self, const unsigned char* data, size_t size) noexcept
    cdef bint begin_reply(self, const unsigned char* data, const Head* head, size_t rest) noexcept
    cdef bint read_length(self, size_t room) noexcept
    cdef bint read_chunked(self, size_t room) noexcept
    cdef bint feed_chunked(self, const unsigned char* data, size_t size) noexcept
    cdef bint read_until_close(self, size_t room) noexcept
    cdef void reply_complete(self, bint clean) noexcept
    cdef void request_complete(self) noexcept
    cdef void lost(self) noexcept
    cdef bint again(self) noexcept
    cdef bint next_address(self) noexcept
    cdef void fail(self, uint16_t code, uint8_t delivery, const char* reason) noexcept
    cdef void drop(self) noexcept
    cdef void uncount(self) noexcept
    cdef void clear(self) noexcept
    cdef bint keep(self, const unsigned char* data, size_t size) noexcept
    cdef void move_from(self, Upstream other) noexcept
    cdef void await_reply(self) noexcept
    cdef bint keep_rest(self, const unsigned char* data, size_t used, size_t size) noexcept
    cdef void interim(self, const unsigned char* data, const Head* head) noexcept
    cdef bint feed_rest(self, const unsigned char* data, size_t size) noexcept
    cdef bint pass_body(self, const unsigned char* data, size_t size, bint more) noexcept
    cdef bint read_last(self, size_t left) noexcept
