# One address of a service: where it is, how it does, and the idle connections to it.
#
# A Backend is kept by its Pool as long as the service has the address, and by the connections that were made to it. It holds
# strong references to its idle connections (last in, first out) in `idle`, malloc'd when needed.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.net cimport sockaddr_storage, socklen_t
from _fastpath.reactor cimport PyObject
from _fastpath.socket cimport Socket

cdef enum:
    MAX_BACKENDS = 64             # of one service: a set of them is the bits of a uint64_t


cdef class Backend:
    cdef sockaddr_storage address
    cdef socklen_t address_size
    cdef readonly str ip          # numeric; "" for a Unix socket
    cdef readonly uint16_t port
    cdef readonly str host        # the path, or the name that the address was resolved from: by it the TLS context is found
    cdef readonly str name        # for people
    cdef readonly uint32_t weight # 1 to 1000: its share of what is under way, beside the others
    cdef uint8_t place            # its bit
    cdef readonly bint gone       # the service has it no more
    cdef readonly bint healthy    # as far as checks say
    cdef readonly bint ejected    # for a while, because of what happened to requests
    cdef int64_t credit           # whose turn it is among equals: smooth weighted round robin
    cdef uint32_t streak          # failures since the last success
    cdef readonly uint32_t active # exchanges, and cancelled ones that it still works on
    cdef readonly uint64_t exchanges, failures, ejections
    cdef PyObject** idle
    cdef readonly uint32_t idle_count
    cdef uint32_t idle_capacity

    cdef bint keep(self, Socket connection) noexcept          # False: no memory
    cdef Socket last_idle(self)                               # the one that was used last, still kept; or None
    cdef void forget(self, Socket connection) noexcept

# Which of `backends` a new exchange goes to: of those that are healthy and not ejected the one with the fewest exchanges for its
# weight, equals in turn by weight; where all of those were tried, one that is ejected; never one that checks say is down.
# `tried`: bits of `place`. None: nobody is left.
cdef Backend choose_backend(tuple backends, uint64_t tried)
