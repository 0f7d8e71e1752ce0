# Is the peer alive, and how far away is it: the two clocks of a tunnel and its round trips. Sans-IO; no allocation.
#
# Two rules keep a tunnel up that is merely slow. Any byte that arrives is a sign of life. And each side says
# something every quarter of `silence`, whatever it waits for: where the one direction is so full that a PING
# takes long to get through, the other one is empty, and what is said there proves that its sender lives.

from libc.stdint cimport uint8_t, uint64_t

cdef enum LifeDue:
    LIFE_DEAD = 1                 # nothing arrived for all of `silence`
    LIFE_LISTEN = 2               # nothing arrived for a quarter of it: ask
    LIFE_SPEAK = 4                # nothing left for a quarter of it: say something

cdef struct Life:
    uint64_t silence_us
    uint64_t heard_us             # when bytes arrived last; 0: the clock was not seen yet
    uint64_t spoke_us             # when bytes left last
    uint64_t ticked_us            # when life_check looked last
    uint64_t rtt_us               # smoothed; 0 before the first measurement
    uint64_t rtt_min_us           # the least of the last 10 to 20 s: what windows are judged by
    uint64_t low[2]               # least sample of the previous and of the running 10 s
    uint64_t low_us               # when the running ones began

# What is due (bits of LifeDue). To be called every 100 to 1000 ms.
cdef uint8_t life_check(Life* life, uint64_t now_us) noexcept nogil
# A PING was answered after `sample` microseconds.
cdef void life_measured(Life* life, uint64_t sample, uint64_t now_us) noexcept nogil
