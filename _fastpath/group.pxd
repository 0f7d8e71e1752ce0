# A delegated service: the tunnels of the agents that announce it, and the choice among them.
#
# Holds strong references to its tunnels; whoever adds one removes it when it has closed.
#
# Relays lead to other workers of this node that have tunnels of the agents. They are chosen where no tunnel of our own
# serves, and never for a stream that came over a relay itself: a request takes one at most.

from libc.stdint cimport uint32_t, uint64_t
from _fastpath.end cimport End
from _fastpath.exchange cimport Egress
from _fastpath.reactor cimport PyObject, Reactor
from _fastpath.stream cimport Stream
from _fastpath.tunnel cimport Tunnel

cdef enum:
    MAX_TUNNELS = 65536           # of one service


cdef struct Members:              # a growable array of strong references
    PyObject** tunnels
    uint32_t count, capacity
    uint32_t turn                 # where the search begins: equal loads take turns


cdef class Group(Egress):
    cdef Reactor reactor
    cdef Members direct, relays
    cdef object on_doubt          # None, or called from the loop with a relay that is not to be trusted
    cdef uint64_t relayed         # exchanges that were passed to another worker

    cdef bint join_end(self, Tunnel tunnel, End ingress) noexcept
    cdef bint join_streams(self, Tunnel tunnel, End ingress) noexcept
    cdef Tunnel choose(self, Members* members, bint* full)
    cdef bint is_greedy(self, Tunnel tunnel) noexcept
