# How many connections each address has, over all workers of a node.
#
# A table in memory that the workers share, or in a process's own: places found by a keyed hash of port and address, each with
# a cell for every worker. A worker writes its own cells only, so that those of one that has died can be cleared; a place
# whose cells are all zero is anybody's. Sans-IO. A Crowd keeps the memory alive; the supervisor owns it.

from libc.stdint cimport int32_t, uint32_t, uint64_t

cdef enum:
    CROWD_NOWHERE = -1            # no place: the table is full around there

cdef class Crowd:
    cdef object memory            # keeps tags and cells alive
    cdef uint64_t* tags           # by place; 0: never taken
    cdef uint32_t* cells          # one row of all places for each worker
    cdef uint32_t* mine           # this worker's row
    cdef uint32_t places          # a power of two
    cdef uint32_t workers
    cdef uint64_t port            # tells addresses at several ports apart
    cdef uint64_t key[2]

    # One more connection; the place to be given back to `leave`, or CROWD_NOWHERE.
    cdef int32_t enter(self, const char* address, size_t size) noexcept
    cdef void leave(self, int32_t place) noexcept
    # Connections that hold this place, in all workers.
    cdef uint32_t count(self, int32_t place) noexcept
    # --- inside only ---
    cdef int32_t find(self, uint64_t tag) noexcept


# That of a process which is the only one. Raises MemoryError.
cdef Crowd own_crowd()
