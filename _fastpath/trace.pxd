# W3C Trace Context in canonical request heads, sans-IO (https://www.w3.org/TR/trace-context/): what comes in is judged, and
# what goes out names this node's own span as the parent. Owns nothing.
#
# A traced exchange has two spans here: the ingress's, and below it the egress's, whose id is the former's with
# EGRESS_SPAN's bits flipped; so one id is kept. The next node's ingress span has the egress's as its parent.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef enum:
    TRACE_ROOM = 72               # what a head may grow by

cdef extern from *:
    """
    #define EGRESS_SPAN 0x9e3779b97f4a7c15ULL
    """
    const uint64_t EGRESS_SPAN

cdef struct Tracing:              # as configured
    bint on
    bint begin                    # a trace is begun where a request has none that is valid
    uint64_t threshold            # begun traces are sampled whose id's last 8 bytes, as a number, are below

cdef struct Trace:                # of one exchange
    uint64_t span                 # of its ingress here; 0: not sampled, or not traced
    uint64_t parent               # of that; 0: the trace begins here

# What goes on of a canonical head. Returns the size of what was written to `out`, which has room for `size` + TRACE_ROOM, or
# 0: the head goes on as it is. `mark`: an offset in the head (0: none) that is to point to the same byte of what was written.
cdef size_t trace_head(const unsigned char* head, size_t size, const Tracing* rules, Trace* trace,
                       unsigned char* out, uint32_t* mark) noexcept nogil
# 16 hexadecimal digits; returns the place behind them.
cdef unsigned char* put_span(unsigned char* at, uint64_t span) noexcept nogil
# A share of all traces, from 0 to 1, as Tracing has it.
cdef uint64_t threshold_of(double ratio) noexcept
