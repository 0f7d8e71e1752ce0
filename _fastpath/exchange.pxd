# How an ingress finds its egress, and what both keep count of.
#
#   ingress: Client or TcpEnd (accepted), Stream (opened by the other node)
#   egress:  Upstream or TcpEnd (dialled) from a Service, Stream from a Group
#
# `join` only pairs the two Ends (ingress.peer, egress.peer); the ingress then passes
# the head and the body on with take_head, never more body than peer.room().

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport CODE_COUNT, End
from _fastpath.http1 cimport Head
from _fastpath.meter cimport Meter, Meters
from _fastpath.reactor cimport PyObject
from _fastpath.record cimport Record
from _fastpath.route cimport Target
from _fastpath.socket cimport Socket

# What join returns besides 0 (joined) and a Code > 0.
cdef enum:
    JOINED = 0
    JOIN_WAIT = -1                # known, but nobody is there: may be waited for
    KNOWN_METERS = 4

cdef struct Tally:
    uint64_t exchanges            # begun
    uint64_t bytes_in, bytes_out  # body bytes of requests, of responses
    uint64_t statuses[6]          # responses by status class; [0]: cut before one
    uint64_t failures[CODE_COUNT] # answers that this node made, by code
    uint64_t retries
    uint64_t active


# A client connection that can wait for an agent.
cdef class Ingress(Socket):
    cdef Egress waits_for         # strong while it waits
    cdef PyObject* wait_next      # borrowed: the waiter leaves the list before it goes away
    cdef PyObject* wait_prev
    cdef uint8_t tries            # joins of the current request so far
    cdef Egress counted_at        # in whose `in_flight` the current exchange counts

    cdef void wait_over(self) noexcept        # somebody is there: join again (not from inside this call)
    cdef void stop_waiting(self) noexcept
    # What `egress.join` says, unless there are `limit` exchanges of its service already.
    cdef int join_within(self, Egress egress, const Head* head, uint32_t limit) noexcept
    cdef void count_out(self) noexcept        # the exchange is over
    cdef void proved(self) noexcept           # who it is was asked, and is known now (gate.pxd)


cdef class Egress(Target):
    cdef bytes name_bytes
    cdef Tally tally
    cdef PyObject* wait_head
    cdef PyObject* wait_tail
    cdef readonly uint32_t waiting
    cdef readonly uint32_t in_flight          # exchanges of clients of this node
    cdef PyObject* meters[KNOWN_METERS]       # strong: of the ports that led here last, by the number of their Meters

    # `head`: of the request as scanned (its spans are not used), NULL for tcp.
    cdef int join(self, End ingress, const Head* head) noexcept
    cdef void wait(self, Ingress ingress) noexcept
    cdef void wake_waiting(self) noexcept
    # A relay has refused an exchange: what it leads to has gone there, and the news is under way.
    cdef void doubt(self, object relay) noexcept

# Where requests wait for whose service nobody is known yet, because the node has just started, or its table is being made.
# Closed: it lets nobody wait.
cdef class Lobby(Egress):
    cdef readonly bint closed

# Where exchanges that a port led to `egress` (None: nowhere) are counted. No look-up but for the first of a pair.
cdef Meter meter_of(Meters meters, Egress egress)
# Counts and records an exchange that has ended.
cdef void settle(Meters meters, Egress egress, Record* record) noexcept
# The label of the tunnel that an End is a stream of, or None.
cdef bytes tunnel_label(End end)
cdef dict tally_counters(const Tally* tally)
