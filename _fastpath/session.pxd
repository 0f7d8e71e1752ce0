# The multiplexer of one tunnel, sans-IO: bytes in, calls on Ends and bytes out.
# It never sees a socket or a clock: `now_us` (monotonic microseconds) is set by whoever drives it.
#
# Ownership: the Session owns its Streams (its table holds a strong reference
# while the slot is in use) and all queued output. A Stream refers back to its
# Session. Both are outside the cyclic collector: a Stream leaves the table, and
# detaches from its peer, when both directions have ended or it is reset;
# `abort` empties the table and lets go of the owner.
#
# A Stream is an End: what its peer passes to it becomes frames; frames that
# arrive become calls on its peer. Streams and the sending half are in stream.pxd.
#
# Callbacks come from inside receive, sent, tick, goaway, abort and the End operations of a Stream, never from
# inside gather. They may call everything but receive, gather and sent.

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport End
from _fastpath.frame cimport FrameHeader
from _fastpath.memory cimport Chunk, iovec
from _fastpath.slots cimport SlotTable
from _fastpath.stream cimport Sender, SessionOwner, Stream


# Session(owner, *, dialled, local_window, peer_window, local_streams, peer_streams, silence_us, tunnel_memory)
#   local_window, local_streams: what we announced: credit for the peer, streams that it may open;
#   peer_window, peer_streams: what the peer announced. tunnel_memory: what the windows of this tunnel's
#   streams may promise together before they stop growing.
@cython.final
@cython.no_gc
cdef class Session(Sender):
    # The frame that is being received.
    cdef unsigned char header[12]
    cdef uint32_t header_have
    cdef FrameHeader frame
    cdef bint in_frame            # its header is complete and checked
    cdef uint32_t left            # bytes of a DATA payload that have not arrived
    cdef Chunk* partial           # of any other payload: what has arrived
    cdef bint receiving
    cdef uint64_t pinged_at_bytes # bytes_in when the last PING was sent

    # A stream to the peer, joined to `ingress`; None where none may be opened (limit, going away, poisoned,
    # memory). take_head on it sends OPEN.
    cdef Stream open(self, End ingress)
    # Bytes from the peer. 0, or -1: the session is poisoned (error, reason say why; a GOAWAY is
    # queued unless the peer sent one); every further call returns -1.
    cdef int receive(self, const unsigned char* data, size_t size) noexcept
    # Up to `slots` vectors, about `limit` bytes, of what goes to the peer next: the rest of what was
    # gathered before and not sent, then control, then streams in turns. They stay
    # valid until `sent`, which says how many bytes the kernel took (0 is fine). Call again while has_output.
    cdef int gather(self, iovec* vectors, int slots, size_t limit) noexcept
    cdef void sent(self, size_t size) noexcept
    # Liveness and RTT: call every 100 to 1000 ms. Sends PINGs and signs of life. 0, or -1: silent for too long, or poisoned.
    cdef int tick(self) noexcept
    cdef int control(self, const unsigned char* data, size_t size) noexcept   # queue a CONTROL frame; 0 or -1
    cdef void goaway(self, uint16_t code, const char* reason) noexcept
    # The tunnel is gone: every stream's peer gets take_reset(code, its delivery), the table is emptied,
    # unsent output is dropped.
    cdef void abort(self, uint16_t code, const char* reason) noexcept

    # --- inside the session only ---
    cdef size_t receive_header(self, const unsigned char* data, size_t size) noexcept
    cdef size_t receive_data(self, const unsigned char* data, size_t size) noexcept
    cdef size_t receive_whole(self, const unsigned char* data, size_t size) noexcept
    cdef bint begin_data(self) noexcept
    cdef void dispatch(self, const unsigned char* data) noexcept
    cdef Stream find(self, bint* broken)
    cdef void take_open(self, const unsigned char* data) noexcept
    cdef void take_reply(self, const unsigned char* data) noexcept
    cdef void take_trailers(self, const unsigned char* data) noexcept
    cdef void take_window(self, const unsigned char* data) noexcept
    cdef void take_reset(self, const unsigned char* data) noexcept
    cdef void take_ping(self, const unsigned char* data) noexcept
    cdef void take_goaway(self, const unsigned char* data) noexcept
    cdef void direction_ended(self, Stream stream) noexcept
    cdef void end_streams(self, SlotTable* table, uint16_t code, const char* reason) noexcept
