# A delegated service: the tunnels of the agents that announce it, and the choice among them.
#
# Holds strong references to its tunnels; whoever adds one removes it when it has closed.

from libc.stdint cimport uint32_t
from _fastpath.exchange cimport Egress
from _fastpath.reactor cimport PyObject, Reactor
from _fastpath.stream cimport Stream
from _fastpath.tunnel cimport Tunnel

cdef enum:
    MAX_TUNNELS = 65536           # of one service


cdef class Group(Egress):
    cdef Reactor reactor
    cdef PyObject** tunnels
    cdef uint32_t count, capacity
    cdef uint32_t turn            # where the search begins: equal loads take turns

    cdef Tunnel choose(self, bint* full)
    cdef bint is_greedy(self, Tunnel tunnel) noexcept
