# The clocks of a client's exchange: how long either side may be silent or slow, and how long all of it may take.
# Owns nothing. The connection has one deadline in the reactor: the earliest of those that run.

from libc.stdint cimport uint64_t
from _fastpath.response cimport ResponseWriter


cdef class TimedExchange(ResponseWriter):
    cdef uint64_t idle_ms         # when silence ends the exchange; 0: it may last
    cdef uint64_t read_mark       # bytes that the client's host had taken when that was set

    cdef void arm_next(self) noexcept
    # One of the deadlines of a running exchange has passed.
    cdef void expired(self) noexcept
    cdef void judge_pace(self) noexcept
    cdef void judge_silence(self) noexcept
    # Whether there is something to read for the client and its host takes it, however slowly: then it has more time.
    cdef bint still_reads(self) noexcept
    cdef void sent_some(self) noexcept        # part of a response was taken by the kernel, or refused
