# Readiness, timers and the order of work inside one process, which sleeps in an epoll of this module.
#
# A Pollable is registered once, edge-triggered, for everything; it keeps what it knows in
# `readable` and `writable`. The Reactor holds one strong reference to each registered
# Pollable and drops it after the batch in which `remove` was called, so that an event that
# is still queued for it finds a live object (with fd == -1).
#
# One batch: events, then the ready list (work that went over its budget, or that
# must not run inside somebody else's call), then one flush of every dirty
# Pollable. Sockets are read from the batch's top level only, never from inside
# a call of a peer: the scratch buffer belongs to whoever reads at the moment.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport End
from _fastpath.libuv cimport Turn
from _fastpath.net cimport epoll_event

cdef extern from "Python.h":
    ctypedef struct PyObject

cdef enum:
    MAX_EVENTS = 512              # looked at in one batch
    SCRATCH_SIZE = 262144         # one read of a tunnel; a client or upstream reads up to READ_SIZE at once
    READ_SIZE = 65536
    ARENA_SIZE = 4194304          # rewritten heads of one call; touched only as far as it is used
    WHEEL_SLOTS = 1024
    WHEEL_SHIFT = 6               # 64 ms a slot, 65 s a turn; later deadlines go round again


cdef class Pollable(End):
    cdef Reactor reactor
    cdef int fd                   # -1 once removed
    cdef uint8_t readable         # the kernel may have bytes (or an end) for us
    cdef uint8_t writable
    cdef uint8_t fresh            # EPOLLIN was seen, and whoever needs to know has not cleared it since
    cdef uint8_t hung_up          # EPOLLRDHUP was seen: an end follows the bytes
    cdef uint8_t broken           # EPOLLHUP or EPOLLERR was seen
    cdef uint8_t in_ready
    cdef uint8_t in_dirty
    cdef uint16_t timer_slot      # + 1; 0: not in the wheel
    cdef uint64_t deadline_ms     # 0: none. May be later than the slot it waits in: looked at again then
    cdef PyObject* timer_next
    cdef PyObject* timer_prev

    cdef void on_ready(self) noexcept     # something changed in readable/writable/broken, or queue_ready was called
    cdef void on_flush(self) noexcept     # mark_dirty was called in this batch
    cdef void on_deadline(self) noexcept


# Odd inside a batch, even outside; another one for each.
cdef uint64_t turns

# Called after every call from the top level of a batch (socket.pyx: uncork); the arena is empty again then.
ctypedef void (*AfterCall)() noexcept
cdef void set_after_call(AfterCall hook) noexcept


cdef struct References:           # growable array of strong references
    PyObject** items
    uint32_t count
    uint32_t capacity


cdef class Reactor:
    cdef object loop
    cdef object tick_handle
    cdef Turn turn                # None: not started, or the loop watches epoll_fd
    cdef int epoll_fd
    cdef epoll_event found[MAX_EVENTS]    # by epoll_wait, for the batch
    cdef bint running             # inside a batch
    cdef bint scheduled           # a call of run is queued at the loop
    cdef bint loop_ready          # the loop has something to serve that it has not seen yet
    cdef readonly uint64_t now_us         # monotonic, as of the batch's start
    cdef uint64_t now_ms
    cdef uint64_t wheel_ms        # everything up to here has been looked at
    cdef PyObject* wheel[WHEEL_SLOTS]
    cdef References ready, dirty, graves, spare
    cdef unsigned char* scratch
    cdef unsigned char* arena
    cdef size_t arena_used
    cdef readonly uint64_t wakeups, batches, events, timers
    cdef readonly uint32_t registered

    cdef int add(self, Pollable item) noexcept            # item.fd is open; 0 or -1 (errno)
    cdef void remove(self, Pollable item) noexcept        # closes item.fd
    cdef void queue_ready(self, Pollable item) noexcept
    cdef void mark_dirty(self, Pollable item) noexcept
    cdef void arm(self, Pollable item, uint64_t delay_ms) noexcept       # 0: no deadline
    cdef void refresh_clock(self) noexcept
    # A piece of the arena, valid until the current call from the top level of the batch returns. NULL: none left.
    cdef unsigned char* borrow(self, size_t size) noexcept
    cdef int watch_loop(self, int fd) except -1
    cdef void serve(self) noexcept
    cdef int wait(self, int timeout_ms) noexcept
    cdef bint left_over(self) noexcept
    cdef void batch(self, int count) noexcept
    cdef void drain_ready(self) noexcept
    cdef void drain_dirty(self) noexcept
    cdef void bury(self) noexcept
    cdef void wake(self) noexcept
    cdef void called(self) noexcept
    cdef void advance_wheel(self) noexcept
    cdef void expire_slot(self, uint32_t slot) noexcept
    cdef void link_timer(self, Pollable item) noexcept
    cdef void unlink_timer(self, Pollable item) noexcept
