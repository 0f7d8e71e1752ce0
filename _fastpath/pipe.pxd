# What joins two streams: bytes of one go to the other as far as its credit allows, the rest waits here. Only what the
# other has taken is consumed, so that each sender is held to what the receiver at the far end takes.
#
#   stream ◀─ peer ─▶ Pipe ◀─ other ─▶ Pipe ◀─ peer ─▶ stream
#
# A stream is the strong holder of its Pipe (End.peer); the two Pipes refer to each other without owning. One that
# still has bytes for the other's stream holds itself: its own stream may be over before they have gone.

from libc.stdint cimport uint16_t
from _fastpath.end cimport End
from _fastpath.memory cimport ByteQueue
from _fastpath.reactor cimport PyObject


cdef class Pipe(End):
    cdef PyObject* other          # borrowed; NULL once it has gone
    cdef ByteQueue queue          # body bytes for the other's peer
    cdef bytes trailers           # that end the message behind the queue; None: without any
    cdef bint ended               # the source has ended, what is in the queue is the last
    cdef bint held                # holds itself

    cdef End sink(self)
    cdef void pass_on(self, size_t size) noexcept
    cdef void keep(self, const unsigned char* data, size_t size, bint end) noexcept
    cdef void pump(self) noexcept
    cdef void drop(self) noexcept
    cdef void give_up(self, uint16_t code) noexcept

cdef void link_pipes(Pipe one, Pipe other) noexcept
