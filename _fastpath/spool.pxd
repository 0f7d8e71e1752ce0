# Blocks of lines on their way to a file: put by the thread of the core, written by another one, which holds no
# interpreter's lock meanwhile.
#
# Lines own their memory and give it back when they are gone. A Spool owns its descriptor, and holds a reference to
# each block until the core's thread reaps it after it was written. `first` to `last` is one list: what is written
# and not yet reaped, then, from `next` on, what waits. `mutex` is for the list; what follows it is the writer's.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "Python.h":
    ctypedef struct PyObject

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    ctypedef struct pthread_cond_t:
        pass

cdef class Home:
    cdef uint32_t out             # blocks handed over and not yet given back


cdef class Lines:
    cdef Home home
    cdef unsigned char* data
    cdef size_t size
    cdef readonly uint32_t records


cdef enum Kind:
    KIND_LINES
    KIND_REOPEN                   # go on with another descriptor
    KIND_STOP

cdef struct Item:
    Kind kind
    PyObject* lines
    const unsigned char* data
    size_t size
    int fd
    Item* after


cdef class Spool:
    cdef pthread_mutex_t mutex
    cdef pthread_cond_t more
    cdef Item* first
    cdef Item* next
    cdef Item* last
    cdef int fd
    cdef bint shared              # with other processes: taken in turns, as the kernel doesn't append a block as a whole
    cdef bint torn                # the last line has no end
    cdef readonly uint64_t lost   # lines
    cdef readonly int problem     # errno of the last block, 0: it was written

    cdef int put(self, Kind kind, Lines lines, int fd) except -1
    cdef void reap(self) noexcept
    cdef void use(self, int fd) noexcept nogil
    cdef int work(self) noexcept nogil
    cdef int append(self, const unsigned char* data, size_t size) noexcept nogil
