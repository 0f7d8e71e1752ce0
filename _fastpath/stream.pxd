# Streams, and the sending half of a session: what streams are alive and what they have to send.
#
# Ownership: the Sender's slot tables hold one strong reference to each Stream that is alive. A Stream
# refers to its Sender until it is released; `session` is None from then on, and every call is harmless.
# Rings hold borrowed references: release takes the stream out of all of them.
#
# Both classes are outside the cyclic collector: releasing a stream, and `abort`, break the cycles.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport End
from _fastpath.frame cimport MAX_REASON
from _fastpath.liveness cimport Life
from _fastpath.guard cimport Guard, Quota
from _fastpath.memory cimport Chunk
from _fastpath.output cimport Lane, Link, Output
from _fastpath.slots cimport SlotTable
from _fastpath.window cimport Budget, Credit

cdef enum:
    LANE_LIMIT = 262144           # a stream queues at most this many bytes
    LANE_LIMIT_TIGHT = 32768      # when three quarters of limits.memory are used
    USEFUL_ROOM = 16384           # less is offered only where nothing is queued
    POOL_SIZE = 64                # released Stream objects kept for the next streams
    CONTROL_BASE = 65536          # queued control bytes, and what each possible stream adds to that
    CONTROL_PER_STREAM = 16
    CONTROL_TEXT = 32768          # with more queued, RESET goes without its text
    CONTROL_CHUNK = 4096
    MAX_META = 65535              # its size is 16 bits

cdef enum StreamState:
    HEAD_ACCEPTED = 1             # our OPEN, or our final REPLY, is on its way
    HEAD_RECEIVED = 2             # of a local stream: its final REPLY, or the first bytes of a tcp stream
    END_ACCEPTED = 4              # our peer End has passed the end of its message
    END_COMMITTED = 8             # and the frame that says so is in committed output
    END_RECEIVED = 16
    WANTS_ROOM = 32               # room() was 0: on_room is owed
    REPLIED = 64                  # of a local stream: any REPLY, an interim one too


# What receives the streams that the other side opens, and what the session has to say. Subclassed
# above (tunnel.pyx for the real thing, events.pyx for tests).
cdef class SessionOwner:
    cdef bytes label              # of the tunnel, in records of exchanges; or None
    # A stream was opened by the peer. During this call the owner joins an End to it (stream.peer = end,
    # end.peer = stream) and passes head and body on, or resets it: stream.reset(...).
    # meta, head, body are borrowed. flags: HEAD_END, HEAD_TCP.
    cdef void on_open(self, Stream stream, const unsigned char* meta, size_t meta_size,
                      const unsigned char* head, size_t head_size,
                      const unsigned char* body, size_t body_size, uint32_t flags) noexcept
    # A CONTROL frame (msgpack, decoded by Python).
    cdef void on_control(self, const unsigned char* data, size_t size) noexcept
    # The peer sent GOAWAY with code CODE_CANCEL (0): it takes no new streams.
    cdef void on_goaway(self) noexcept
    # There is output now and there was none: write it soon (called once per batch).
    cdef void on_output(self) noexcept
    # The peer has refused a stream of ours that leads to `egress`, and nobody has seen it: the code to be told.
    cdef uint16_t on_refused(self, object egress) noexcept
    # A stream was released: its slot is free again.
    cdef void on_release(self) noexcept
    # Memory that was lent to Ends goes away before receive returns (a frame that came in pieces): what was
    # corked is to be written now.
    cdef void on_lent_over(self) noexcept


# One stream of a tunnel, as one side of an exchange (end.pxd): what its peer End passes to it becomes frames,
# frames that arrive become calls on its peer End.
@cython.final
@cython.no_gc
cdef class Stream(End):
    cdef Sender session           # None once released
    cdef uint32_t id
    cdef bint local               # opened by this side
    cdef uint8_t kind             # KIND_HTTP or KIND_TCP
    cdef uint8_t state            # bits of StreamState
    cdef uint8_t delivery         # of the request, as far as this side knows (only for local streams)
    cdef Credit credit
    cdef Lane lane
    cdef Link grant_link          # in the session's ring of streams that owe a WINDOW frame
    cdef Link wake_link           # in the ring of streams whose peer End is owed on_room
    cdef uint32_t grant           # credit for that WINDOW frame
    cdef Chunk* reserved          # between reserve and commit
    cdef Guard guard              # this side's limits on it
    cdef Quota quota              # what it counts in until it is released, or None
    cdef object egress            # of a local stream: what it leads to
    # For OPEN: what take_meta was told of a local stream; read during take_head only (frame.pxd: meta).
    cdef const unsigned char* meta
    cdef uint16_t meta_size

    # End's operations, and:
    # End the stream early from this side: RESET to the peer, detach silently (the caller is the peer).
    cdef void reset(self, uint16_t code, uint8_t delivery, const char* reason) noexcept
    # End it for a reason that the peer End does not know: it is told, too.
    cdef void fail(self, uint16_t code, const char* reason) noexcept

    # --- inside the session only ---
    cdef void start(self, Sender session, uint32_t id, bint local) noexcept
    cdef size_t space(self) noexcept
    cdef uint8_t known_delivery(self) noexcept
    cdef unsigned char* begin_frame(self, uint8_t type, uint8_t flags, size_t length) noexcept
    cdef bint append(self, const unsigned char* data, size_t size, bint end) noexcept
    cdef void accept_end(self) noexcept
    cdef bint may_pass_body(self, size_t size) noexcept


@cython.no_gc
cdef class Sender:
    cdef SessionOwner owner
    cdef uint64_t now_us          # set before every call
    cdef readonly bint dialled    # this side dialled: it opens ids without ID_ACCEPTOR
    cdef readonly uint32_t active         # streams alive, both directions of opening
    cdef readonly uint32_t local_limit    # streams that the peer allows us to open
    cdef readonly bint going_away         # either side said GOAWAY: no new local streams
    cdef readonly bint parting            # this side said it: what the peer opened before it knew is still served
    cdef readonly int error               # Code once poisoned, else -1
    cdef readonly bint remote_error       # the peer ended the tunnel by GOAWAY with a code
    cdef char reason[MAX_REASON + 1]      # why; NUL-terminated; text from the peer has no control characters
    cdef Life life

    # counters
    cdef readonly uint64_t frames_in
    cdef readonly uint64_t bytes_in
    cdef readonly uint64_t opened         # by this side
    cdef readonly uint64_t accepted       # opened by the peer
    cdef readonly uint64_t refused        # of those, by this session itself
    cdef readonly uint64_t resets_in
    cdef readonly uint64_t resets_out
    cdef readonly uint64_t stalls         # room() was 0 because the peer gave no credit
    cdef readonly uint64_t pings

    cdef Quota quota              # of the user that the tunnel belongs to, or None
    cdef object egress            # what the next local stream leads to: set before open
    cdef Output output
    cdef Budget budget
    cdef SlotTable locals         # opened by this side
    cdef SlotTable remotes
    cdef uint32_t local_window
    cdef uint32_t peer_window
    cdef Link grants
    cdef Link wakes
    cdef Chunk* spare             # for the next reserve
    cdef bint announced           # on_output was called and the output is not all sent
    cdef bint control_due         # something in the control queue, a grant, a PING or its answer
    cdef bint ping_due
    cdef bint ping_out            # a PING is under way
    cdef bint pong_due            # the last PING of the peer is unanswered
    cdef unsigned char pong[8]
    cdef uint64_t ping_number
    cdef uint64_t ping_us         # when it was committed
    cdef bint quiet               # inside gather: no callbacks
    cdef uint32_t released        # on_release calls that are owed since then
    cdef void* pool[POOL_SIZE]    # strong references
    cdef uint32_t pooled

    cdef bint has_output(self) noexcept
    cdef void announce(self) noexcept
    # Memory for the payload of a frame in the control queue, or NULL where there is none.
    cdef unsigned char* control_frame(self, uint8_t type, uint32_t stream, size_t length) noexcept
    # Memory for the payload of a frame that goes straight behind what is committed, or NULL.
    cdef unsigned char* committed_frame(self, uint8_t type, uint8_t flags, uint32_t stream, size_t length) noexcept
    cdef void commit_ping(self) noexcept
    cdef void commit_grants(self) noexcept
    cdef void commit_control(self) noexcept
    cdef void owe_grant(self, Stream stream, uint32_t size) noexcept
    cdef void after_turn(self, Stream stream) noexcept
    cdef void wake(self) noexcept
    # The connection is not to be trusted any more, or can't go on: GOAWAY is queued, nothing else is done.
    cdef void poison(self, uint16_t code, const char* reason) noexcept
    cdef void set_reason(self, const unsigned char* text, size_t size) noexcept
    cdef void say_goaway(self, uint16_t code, const char* reason) noexcept
    cdef Stream new_stream(self)
    cdef void send_reset(self, uint32_t id, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept
    # RESET to the peer, then release: the peer End is not told.
    cdef void drop(self, Stream stream, uint16_t code, uint8_t delivery,
                   const unsigned char* reason, size_t reason_size) noexcept
    cdef void release(self, Stream stream) noexcept
    cdef bint crowded(self) noexcept
