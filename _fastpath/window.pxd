# All credit arithmetic of a stream, in one place and checked. Sans-IO; no allocation.
#
# Sending: `send` is what the peer still lets us send. It is spent when bytes are accepted for the stream.
#
# Receiving: `window` is what we are willing to have under way or held for the stream:
#
#     receive (granted, not yet arrived) + held (arrived, not yet consumed) + what may be granted
#
# A grant is made when at least half of the window may be granted (of one above BUSY_WINDOW an eighth), so that there
# is one WINDOW frame for many DATA frames. The window grows when the reader consumed a whole one so fast that it, and
# not the sender or the reader, is what limits the stream. What a sender sends and nobody reads never makes it grow.
# - Near (round trips up to NEAR_US) it doubles when it was consumed within two round trips; while the windows of its tunnel are
#   no more than BUSY_WINDOW together, also within BUSY_US: each update wakes the sender, and what is under way then is
#   too little for a small message to wait behind.
# - Far away it grows fourfold up to LEAP_BELOW, as fast as TCP's own window, then to 15/8 of what the path carries in the least
#   round trip: enough to keep it busy, and not so much that a small message finds a queue of a round trip before it.
# It halves under memory pressure and when it is used slowly, never
# below `base`. Credit that was granted can't be taken back: a window that shrank is
# reached by granting less.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    MAX_STREAM_WINDOW = 16777216  # no window grows above this
    BUSY_WINDOW = 1048576
    BUSY_US = 10000
    NEAR_US = 10000
    LEAP_BELOW = 4194304
    SLOW_US = 2000000             # a window that was not half used for this long (or 16 round trips) halves

# What the windows of one tunnel may promise together.
cdef struct Budget:
    uint64_t limit                # windows grow while `promised` stays at or below it
    uint64_t promised             # sum of `promised` of the tunnel's streams
    uint64_t growths
    uint64_t shrinks

cdef struct Credit:
    uint32_t send                 # the peer takes this many bytes more
    uint32_t receive              # the peer may send this many bytes more
    uint32_t held                 # arrived, not consumed
    uint32_t window
    uint32_t base                 # the window that was announced: every stream has it
    uint32_t promised             # what is charged to the budget: max(window, receive + held)
    uint32_t used                 # consumed since `mark_us`
    uint64_t mark_us              # when the current measurement began; 0: with the next byte
    uint64_t grant_us             # the last grant or shrinking

# `local`: what we announced, `peer`: what the peer announced.
cdef void credit_start(Credit* credit, Budget* budget, uint32_t local, uint32_t peer, uint64_t now_us) noexcept nogil
cdef void credit_stop(Credit* credit, Budget* budget) noexcept nogil
# 0, or -1: more than there is; nothing changed then.
cdef int credit_spend(Credit* credit, size_t size) noexcept nogil
# 0, or -1: the sum exceeds MAX_WINDOW (the peer's error).
cdef int credit_add(Credit* credit, uint32_t size) noexcept nogil
# `size` bytes were announced by a frame's header. 0, or -1: more than was granted (the peer's error).
cdef int credit_arrive(Credit* credit, uint32_t size, uint64_t now_us) noexcept nogil
# The reader is done with `size` bytes. Returns what to grant in a WINDOW frame, mostly 0.
cdef uint32_t credit_consume(Credit* credit, Budget* budget, size_t size, uint64_t now_us, uint64_t rtt_us) noexcept
cdef void credit_invariants(const Credit* credit, const Budget* budget) noexcept nogil

# Of all tunnels of this process.
cdef uint64_t promised_bytes() noexcept
