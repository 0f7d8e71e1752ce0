# The half of a client connection that requests come in by: heads, bodies, and what came too early.
#
# Owns: `stash` (bytes read too early: a partial head, a body the egress had no room
# for, pipelined requests), `held` (the canonical request, as long as it may be sent again or
# logged) and `decoder`. All are malloc'd when needed and freed when empty: an idle client has none.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.connection cimport Connection
from _fastpath.forwarded cimport Claim
from _fastpath.gate cimport Caller, ClientCertificate, Gate
from _fastpath.http1 cimport ChunkedDecoder, Head, Span
from _fastpath.pace cimport Pace
from _fastpath.trace cimport Trace

cdef enum ClientState:
    CLIENT_HEAD = 0               # waits for a request, or for the rest of its head
    CLIENT_WAITING = 1            # the request waits for an agent
    CLIENT_JOIN = 2               # to be joined (again) at the top level of a batch
    CLIENT_RUNNING = 3            # joined to an egress
    CLIENT_PROVING = 5            # its credential is being looked at; the head is in the stash, as it came
    CLIENT_LINGER = 4             # answered and shut; reads what still comes, then closes

cdef enum:
    HELD_BODY = 16384             # a body up to this size is kept for sending again


cdef class RequestReader(Connection):
    cdef unsigned char* stash
    cdef uint32_t stash_size, stash_capacity
    cdef uint32_t scan_resume
    cdef unsigned char* held      # head, then body
    cdef uint32_t held_head, held_body
    cdef Span request_id          # where it stands in `held`
    cdef Trace trace              # of the current request
    cdef uint32_t held_room       # for the rest of a small body that comes behind its head
    cdef Pace pace                # of the request's body, then of the response's
    cdef ChunkedDecoder* decoder  # while a chunked request body is read
    cdef uint64_t request_left    # of a body with a length
    cdef uint64_t request_seen    # body bytes passed on
    cdef uint64_t begun_us        # the request's first byte was seen
    cdef uint32_t lingered        # bytes thrown away
    cdef uint32_t served          # requests so far, the current one included
    cdef uint8_t state
    cdef uint8_t method_id, minor, framing, idempotent, keep_alive
    cdef uint8_t request_done     # read to its end
    cdef uint8_t need_more        # the stash is a partial head
    cdef bytes upgrade            # the protocol that the request asks for and may change to; None: none
    cdef uint8_t upgraded         # it was changed to: bytes of any kind go both ways, until both directions have ended
    cdef Gate gate                # what is asked of the current request; None: nothing
    cdef Caller caller            # who has made it; None: nobody knows
    cdef ClientCertificate certificate    # of the connection; None: it has shown none
    cdef uint8_t spent            # its Authorization was for us
    cdef uint8_t claimed          # the request is another client's: the connection is a trusted proxy's
    cdef unsigned char claimant[16]       # ... that one's address
    cdef uint8_t whole            # `held` has all of it
    cdef uint8_t retained         # `held` has all of it that was read so far: may be sent again

    # hooks
    cdef void begin(self, const unsigned char* data, const Head* head,
                    const unsigned char* body, size_t body_size) noexcept   # a head is whole and accepted
    cdef void request_ended(self) noexcept    # its last byte was read
    cdef void watch(self, uint64_t delay_ms) noexcept
    cdef uint64_t patience(self) noexcept     # milliseconds that may pass between bytes
    cdef void body_moved(self) noexcept       # bytes of it have come
    cdef void answer(self, uint16_t code, uint8_t delivery) noexcept        # this node answers
    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept          # this side ends the exchange
    cdef void depart(self) noexcept           # everything was read: close when everything is written
    cdef void gone(self) noexcept             # the client has left, or is not wanted any more

    # One step of reading; True where another may follow at once.
    cdef bint read_head(self) noexcept
    cdef bint pump(self) noexcept
    cdef bint discard(self) noexcept
    # Whose request it is, where the connection is a trusted proxy's: before hold, which writes it down.
    cdef void identify(self, const unsigned char* data, const Head* head) noexcept
    # What a service is told of who asks, in the arena; NULL where there is no room.
    cdef unsigned char* introduction(self, uint32_t* size) noexcept
    # The canonical request becomes `held`; False where there is no memory.
    cdef bint hold(self, const unsigned char* data, const Head* head, size_t body_size) noexcept
    cdef unsigned char* follow_trace(self, unsigned char* head, Py_ssize_t* size) noexcept
    cdef void release_held(self) noexcept
    cdef void drop_decoder(self) noexcept
    cdef bint keep(self, const unsigned char* data, size_t size) noexcept   # into the stash
    cdef void drop_stash(self, size_t used) noexcept

    # --- inside only ---
    cdef bint parse(self, const unsigned char* data, size_t size) noexcept
    cdef bint pump_held(self, size_t room) noexcept
    cdef void retain(self, const unsigned char* body, size_t size) noexcept     # was read, and passes through
    cdef bint pump_stash(self, size_t room) noexcept
    cdef bint pump_length(self, size_t room) noexcept
    cdef bint pump_chunked(self, size_t room) noexcept
    cdef size_t feed_chunked(self, const unsigned char* data, size_t size) noexcept
