# What goes to the peer, in which order. Sans-IO; knows frames, not streams.
#
# Three places: `control` and `messages` (frames that pass data), one Lane for each stream (its frames, in
# order) and `committed` (bytes whose order is fixed, which the kernel gets next). Committed
# bytes stay few (COMMIT_TARGET and one more turn), so that control and small messages wait behind
# little. Every chunk in any of them holds whole frames, but the first committed one may be partly sent.
#
# Lanes take turns (deficit round robin): QUANTUM bytes each. A lane that begins to have frames and starts with
# a small one is `fresh`: it goes before those that have been sending for longer (as in fq_codel), but after
# AHEAD_LIMIT bytes of fresh lanes an old one has its turn, so nobody starves.

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from _fastpath.memory cimport ByteQueue, Chunk

cdef enum:
    COMMIT_TARGET = 65536         # gather commits until this much is committed
    BATCH_TARGET = 262144         # small messages alone may commit this much while the kernel takes everything
    DIRECT_FRAME = 16384          # frames up to this size are written straight into committed memory
    QUANTUM = 32768
    AHEAD_LIMIT = 65536
    COPY_FRAME = 4096             # a queued frame up to this size is copied when it is committed

# A doubly linked ring with a head that is no member. `owner` is borrowed.
cdef struct Link:
    Link* next                    # NULL: in no ring
    Link* prev
    void* owner

cdef struct Lane:
    Link turn
    ByteQueue queue               # one chunk is one frame
    int32_t deficit
    uint8_t ended                 # a frame that ends the direction was committed
    uint64_t first                # position of the first frame in the tunnel's output; NOT_COMMITTED before

cdef struct Output:
    ByteQueue committed
    ByteQueue control             # RESET, GOAWAY: bounded by who queues them (stream.pyx)
    ByteQueue messages            # CONTROL
    Link fresh
    Link turns
    uint64_t position             # bytes committed since the tunnel began
    uint64_t sent                 # bytes that the kernel took
    uint64_t frames               # committed
    uint32_t ahead                # bytes committed of fresh lanes and straight ones since an old lane's turn
    uint8_t blocked               # the kernel did not take all that was offered last
    uint32_t front                # debug build: bytes at the front of `committed` that belong to a frame partly sent

cdef extern from *:
    """
    #define BROKER_NOT_COMMITTED UINT64_MAX
    """
    const uint64_t NOT_COMMITTED "BROKER_NOT_COMMITTED"

cdef void ring_start(Link* ring) noexcept nogil
cdef void ring_append(Link* ring, Link* link) noexcept nogil
cdef void ring_remove(Link* link) noexcept nogil          # harmless where it is in no ring

cdef inline bint ring_empty(const Link* ring) noexcept nogil:
    return ring.next == ring

cdef void output_start(Output* output) noexcept nogil
cdef void output_clear(Output* output) noexcept
cdef void lane_start(Lane* lane, void* owner) noexcept nogil
cdef void lane_clear(Output* output, Lane* lane) noexcept

# Memory for one whole frame of `size` bytes at the end of `queue`, or NULL. The bytes count at once.
cdef unsigned char* queue_frame(ByteQueue* queue, size_t size, size_t capacity) noexcept
# May a frame of this size of a lane without queued frames be written straight into committed memory?
cdef bint output_direct(const Output* output, const Lane* lane, size_t size) noexcept nogil
# Memory for such a frame, or NULL where there is none. Control must have been committed before.
cdef unsigned char* output_frame(Output* output, Lane* lane, size_t size) noexcept
# A lane has frames now, and had none: `size` is that of the first.
cdef void output_activate(Output* output, Lane* lane, size_t size) noexcept nogil
# Moves from `queue` (control or messages) while less than COMMIT_TARGET is committed; is it empty now?
cdef bint output_commit_queue(Output* output, ByteQueue* queue) noexcept
# One lane has its turn: its frames are committed. The lane, or NULL where none has frames.
cdef Lane* output_turn(Output* output) noexcept
cdef void output_sent(Output* output, size_t size) noexcept
cdef void output_invariants(const Output* output) noexcept
