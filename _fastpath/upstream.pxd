# One connection to an HTTP/1.1 upstream: the egress of one exchange after another.
#
# Kept alive by the reactor, by its peer while joined, and by its Pool while idle. Owns
# `held` (a request that may be sent again), malloc'd when needed.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.http1 cimport Head
from _fastpath.record cimport Record, Text
from _fastpath.reply cimport ReplyReader
from _fastpath.trace cimport Trace

cdef enum UpstreamState:
    UPSTREAM_CONNECTING = 0
    UPSTREAM_RUNNING = 1
    UPSTREAM_IDLE = 2
    UPSTREAM_SHAKING = 3          # TLS: the handshake is not over
    UPSTREAM_CANCELLED = 4        # nobody wants the answer, but the upstream may still work on it


cdef class Upstream(ReplyReader):
    cdef object context           # TLS: of the host that was dialled; else None
    cdef unsigned char* held      # head and body of a request that may be sent again on a new connection
    cdef uint32_t held_head, held_body
    cdef uint64_t request_left, request_seen
    cdef uint64_t tried           # places of the backends that this exchange was tried at
    cdef uint64_t begun_us, joined_us         # the request came; there was a connection for it
    cdef Trace trace              # of the exchange, where it came through a tunnel
    cdef bytes tunnel             # label of the one that the exchange came through, or None
    cdef Text reason              # of its failure; only while it is told
    cdef uint16_t failure         # Code; 0: none
    cdef uint8_t again_safe       # `held` is all of a request that may be sent again
    cdef uint8_t delivery, tries
    # Of the exchange; 0: none. The ingress has a clock of its own, a Client or a stream's guard, which also holds when this End is
    # done and the rest of the response is not taken. This one is to the millisecond, knows how far the request came, and is the only one
    # for an upgrade that nobody answers.
    cdef uint64_t total_deadline_ms
    cdef uint8_t state
    cdef uint8_t reused           # not the connection's first request
    cdef uint8_t idempotent, request_framing, request_done
    cdef uint8_t asks_upgrade     # the request asks for another protocol: its bytes do not end with its head
    cdef uint8_t counted          # in the service's count of what is under way

    cdef void begin(self, const Head* head) noexcept
    cdef void connected(self) noexcept
    cdef void shake(self) noexcept
    cdef bint trusts(self) noexcept
    cdef void handshake_failed(self, str reason) noexcept
    cdef void ready_for_request(self) noexcept
    cdef void await_reply(self) noexcept
    cdef void await_body(self) noexcept
    cdef bint next_address(self) noexcept
    cdef void move_from(self, Upstream other) noexcept
    cdef void request_complete(self) noexcept
    cdef bint is_quiet(self) noexcept         # nothing came behind the response
    cdef bint again(self) noexcept
    cdef void finish_upgraded(self) noexcept
    cdef void count(self) noexcept            # in the service's and the backend's numbers of what is under way
    cdef void uncount(self) noexcept
    cdef void wait_for_cancelled(self) noexcept
    cdef void settle(self, bint whole) noexcept           # the exchange is over; `whole`: with all of its response
    cdef void hold(self, const unsigned char* head, size_t head_size,
                   const unsigned char* body, size_t body_size, bint whole) noexcept
    cdef void fill(self, Record* record) noexcept
    cdef const unsigned char* follow_trace(self, const unsigned char* head, size_t* size) noexcept
    cdef void follow(self, Upstream other) noexcept       # counts on for the exchange of `other`
    cdef void clear(self) noexcept
