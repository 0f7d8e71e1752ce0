# A client's HTTP/1.1 connection: the ingress of one exchange after another.
#
# Owns: `stash` (bytes read too early: a partial head, a body the egress had no room
# for, pipelined requests) and `held` (the canonical request, as long as it may be sent again or
# logged). Both are malloc'd when needed and freed when empty: an idle client has neither.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.exchange cimport Egress
from _fastpath.http1 cimport ChunkedDecoder, Head
from _fastpath.connection cimport Connection
from _fastpath.record cimport Record

cdef enum ClientState:
    CLIENT_HEAD = 0               # waits for a request, or for the rest of its head
    CLIENT_WAITING = 1            # the request waits for an agent
    CLIENT_JOIN = 2               # to be joined (again) at the top level of a batch
    CLIENT_RUNNING = 3            # joined to an egress
    CLIENT_LINGER = 4             # answered and shut; reads what still comes, then closes

cdef enum:
    HELD_BODY = 16384             # a body up to this size is kept for sending again
    MAX_TRIES = 3


cdef class Client(Connection):
    cdef unsigned char* stash
    cdef uint32_t stash_size, stash_capacity
    cdef uint32_t scan_resume
    cdef unsigned char* held      # head, then body
    cdef uint32_t held_head, held_body
    cdef Egress egress            # of the current request
    cdef ChunkedDecoder* decoder  # while a chunked request body is read
    cdef uint64_t request_left    # of a body with a length
    cdef uint64_t request_seen    # body bytes passed on
    cdef uint64_t reply_left
    cdef uint64_t reply_seen
    cdef uint64_t begun_us        # the request's first byte was seen
    cdef uint64_t sent_us         # joined
    cdef uint64_t replied_us      # the response's head came
    cdef uint64_t total_deadline_ms
    cdef uint32_t lingered        # bytes thrown away
    cdef uint16_t status
    cdef uint16_t failure         # Code of the answer this node made; 0: none
    cdef uint8_t delivery         # of the current try
    cdef uint8_t earlier          # how far the tries before it may have come
    cdef uint8_t state
    # of the request
    cdef uint8_t method_id, minor, framing, idempotent, keep_alive
    cdef uint8_t request_done     # read to its end
    cdef uint8_t need_more        # the stash is a partial head
    cdef uint8_t whole            # `held` has all of it: may be sent again
    # of the response
    cdef uint8_t reply_framing, reply_begun, reply_done, close_after
    cdef uint8_t in_flight        # begin_request was counted, finish was not

    cdef bint serve(self) noexcept
    cdef void watch(self, uint64_t delay_ms) noexcept
    cdef void next_request(self) noexcept
    cdef bint discard(self) noexcept
    cdef bint pump_held(self, size_t room) noexcept
    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept
    cdef bint read_head(self) noexcept
    cdef bint parse(self, const unsigned char* data, size_t size) noexcept
    cdef void begin(self, const unsigned char* data, const Head* head,
                    const unsigned char* body, size_t body_size) noexcept
    cdef Egress route(self, const unsigned char* data, const Head* head, int* ambiguous)
    cdef bint hold(self, const unsigned char* data, const Head* head, size_t body_size) noexcept
    cdef void join(self, const Head* head) noexcept
    cdef void send_request(self) noexcept
    cdef bint pump(self) noexcept
    cdef bint pump_stash(self, size_t room) noexcept
    cdef bint pump_length(self, size_t room) noexcept
    cdef bint pump_chunked(self, size_t room) noexcept
    cdef size_t feed_chunked(self, const unsigned char* data, size_t size) noexcept
    cdef void request_ended(self) noexcept
    cdef bint keep(self, const unsigned char* data, size_t size) noexcept
    cdef void drop_stash(self, size_t used) noexcept
    cdef void release_held(self) noexcept
    cdef void begin_reply(self, const unsigned char* data, const Head* head,
                          const unsigned char* body, size_t body_size, uint32_t flags) noexcept
    cdef void send_body(self, const unsigned char* data, size_t size) noexcept
    cdef void end_reply(self) noexcept
    cdef void finish(self) noexcept
    cdef void answer(self, uint16_t code, uint8_t delivery) noexcept
    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept
    cdef void abandon(self, uint16_t code) noexcept
    cdef void linger(self) noexcept
    cdef void depart(self) noexcept
    cdef void gone(self) noexcept
    cdef void cut(self) noexcept
    cdef void count_finished(self) noexcept
    cdef void fill(self, Record* record) noexcept
