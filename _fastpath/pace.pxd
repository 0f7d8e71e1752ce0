# Whether bytes move as fast as they have to: judged over windows of time, not byte by byte. Sans-IO.
#
# Time in which our own side was the slower one is not held against the other: such a window is passed over.
# A plain struct: zero it to start.

from libc.stdint cimport uint8_t, uint64_t

cdef struct Pace:
    uint64_t due_ms               # the end of the current window; 0: nothing is measured
    uint64_t mark                 # bytes that had moved at its beginning
    uint8_t held_up               # our side was the slower one in it

cdef inline void pace_start(Pace* pace, uint64_t now_ms, uint64_t window_ms, uint64_t moved) noexcept nogil:
    pace.due_ms = now_ms + window_ms
    pace.mark = moved
    pace.held_up = False

cdef inline void pace_stop(Pace* pace) noexcept nogil:
    pace.due_ms = 0

# At the end of a window: whether fewer than `rate` bytes per second have moved in it. The next one begins. `held_up`: our side is
# the slower one at this moment.
cdef inline bint pace_too_slow(Pace* pace, uint64_t now_ms, uint64_t window_ms, uint64_t rate, uint64_t moved,
                               bint held_up) noexcept nogil:
    cdef bint slow = not (pace.held_up or held_up) and (moved - pace.mark) * 1000 < rate * window_ms
    pace_start(pace, now_ms, window_ms, moved)
    pace.held_up = held_up
    return slow
