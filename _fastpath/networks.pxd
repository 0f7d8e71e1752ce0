# Sets of networks, and who may connect. Immutable snapshots: a reload makes new ones. Sans-IO.
#
# A Networks owns its array of intervals: sorted, disjoint, found by binary search.

from libc.stdint cimport uint32_t
from _fastpath.address cimport ADDRESS_SIZE

cdef struct Interval:
    unsigned char low[ADDRESS_SIZE]
    unsigned char high[ADDRESS_SIZE]      # of the last address in it


cdef class Networks:
    cdef Interval* intervals
    cdef uint32_t count
    cdef readonly tuple texts     # as written, for people

    cdef bint has(self, const unsigned char* raw) noexcept nogil


cdef class Admission:
    cdef readonly Networks allow  # None: everybody
    cdef readonly Networks deny   # None: nobody. Wins

    cdef bint admits(self, const unsigned char* raw) noexcept nogil
