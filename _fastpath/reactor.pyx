"""The reactor: an epoll of its own, timers, and the order of work. See reactor.pxd.

uvloop is the event loop of the process, but where it would sleep, the reactor
sleeps in its place (libuv.pxd): in its own epoll, in which all data sockets
are, and the epoll of uvloop. So data costs one look at what is ready and no
call of Python; a wake-up serves every socket that is ready at once.

In a loop that offers no turn (asyncio's own, or another reactor holds it) it is
the other way round: the loop watches this epoll and calls `run`.
"""

from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memset

cimport cython
from _fastpath cimport net
from _fastpath.net cimport errno

import os

cdef enum:
    MAX_ROUNDS = 16               # batches in one call of run before the loop goes on
    BUSY = 4                      # events in a batch from which it pays to look again at once

TICK_SECONDS = 0.05

cdef AfterCall after_call = NULL
cdef uint64_t turns = 0


cdef void set_after_call(AfterCall hook) noexcept:
    global after_call
    after_call = hook


@cython.no_gc
cdef class Pollable(End):
    """Something with a descriptor and a deadline. Only compiled subclasses are useful."""

    def __cinit__(self):
        self.fd = -1

    cdef void on_ready(self) noexcept:
        pass

    cdef void on_flush(self) noexcept:
        pass

    cdef void on_deadline(self) noexcept:
        pass


cdef inline int push(References* list, Pollable item) noexcept:
    cdef uint32_t capacity
    cdef PyObject** items
    if list.count == list.capacity:
        capacity = list.capacity * 2 if list.capacity else 64
        items = <PyObject**>realloc(list.items, capacity * sizeof(PyObject*))
        if items == NULL:
            return -1
        list.items = items
        list.capacity = capacity
    Py_INCREF(item)
    list.items[list.count] = <PyObject*>item
    list.count += 1
    return 0


cdef void before_sleep(void* reactor) noexcept with gil:
    cdef Reactor self = <Reactor>reactor      # a reference: it may be closed meanwhile
    self.serve()


@cython.final
cdef class Reactor:
    """One per process: readiness of all data sockets, their deadlines, and batches of work.

    `loop` is the running uvloop (any asyncio loop with add_reader works). `close` before the loop is closed.
    """

    def __cinit__(self, loop):
        self.loop = loop
        self.epoll_fd = net.epoll_create1(net.EPOLL_CLOEXEC)
        if self.epoll_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.scratch = <unsigned char*>malloc(SCRATCH_SIZE)
        self.arena = <unsigned char*>malloc(ARENA_SIZE)
        if self.scratch == NULL or self.arena == NULL:
            raise MemoryError
        memset(self.wheel, 0, sizeof(self.wheel))
        self.refresh_clock()
        self.wheel_ms = self.now_ms

    def __dealloc__(self):
        if self.epoll_fd >= 0:
            net.close(self.epoll_fd)
        free(self.scratch)
        free(self.arena)
        free(self.ready.items)
        free(self.dirty.items)
        free(self.graves.items)
        free(self.spare.items)

    def start(self) -> None:
        """Begin to serve readiness and deadlines. Call once, from the loop's thread."""
        cdef Turn turn = Turn(self.loop)
        if turn.begin(before_sleep, <void*>self):
            try:
                self.watch_loop(turn.backend_fd())
            except OSError:
                turn.end()
                raise
            Py_INCREF(self)       # as the loop would, for `run`
            self.turn = turn
        else:
            self.loop.add_reader(self.epoll_fd, self.run)
        self.tick_handle = self.loop.call_later(TICK_SECONDS, self.tick)

    cdef int watch_loop(self, int fd) except -1:
        cdef net.epoll_event event
        event.events = net.EPOLLIN
        event.data.ptr = NULL
        if net.epoll_ctl(self.epoll_fd, net.EPOLL_CTL_ADD, fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))
        return 0

    def close(self) -> None:
        """Stop; sockets that are still registered stay open but are served no more."""
        if self.tick_handle is None:
            return
        self.tick_handle.cancel()
        self.tick_handle = None
        if self.turn is not None:
            self.turn.end()
            self.turn = None
            Py_DECREF(self)
        else:
            self.loop.remove_reader(self.epoll_fd)
        self.bury()

    cdef void serve(self) noexcept:
        # At least one look; then until the loop has something to do. What is ready there wakes like any other event.
        cdef Turn turn = self.turn
        cdef bint looked = False
        cdef int count, timeout
        self.loop_ready = False
        while self.turn is not None:
            timeout = turn.may_sleep_ms()
            if looked and (timeout == 0 or self.loop_ready):
                turn.give_back()
                break
            count = self.wait(0 if self.left_over() else timeout)
            looked = True
            if count or self.left_over():
                self.batch(count)

    cdef int wait(self, int timeout_ms) noexcept:
        # How many events were found; none where a signal came instead, of which the loop learns by itself.
        cdef int count
        if timeout_ms == 0:
            count = net.epoll_wait(self.epoll_fd, self.found, MAX_EVENTS, 0)
        else:
            with nogil:
                count = net.epoll_wait(self.epoll_fd, self.found, MAX_EVENTS, timeout_ms)
            self.wakeups += 1
        return count if count > 0 else 0

    cdef bint left_over(self) noexcept:
        return self.ready.count or self.dirty.count or self.graves.count

    def run(self) -> None:
        """Serve what is ready. Called by the loop, where that watches this epoll."""
        cdef int rounds = 0
        cdef int count
        self.scheduled = False
        self.wakeups += 1
        while True:
            count = self.wait(0)
            self.batch(count)
            rounds += 1
            if rounds == MAX_ROUNDS or (count < BUSY and self.ready.count == 0):
                break
        self.reschedule()

    def tick(self) -> None:
        """Serve deadlines. Called by the loop every TICK_SECONDS."""
        self.tick_handle = self.loop.call_later(TICK_SECONDS, self.tick)
        self.refresh_clock()
        self.running = True
        self.advance_wheel()
        self.running = False
        self.batch(0)
        self.reschedule()

    def reschedule(self) -> None:
        """Ask the loop for another turn where work was left or came from outside a batch."""
        if self.turn is None and not self.scheduled and self.left_over():
            self.scheduled = True
            self.loop.call_soon(self.run)

    def counters(self) -> dict[str, int]:
        """Return what the reactor has done so far."""
        return {
            "wakeups": self.wakeups,
            "batches": self.batches,
            "events": self.events,
            "timers": self.timers,
            "registered": self.registered,
        }

    cdef void refresh_clock(self) noexcept:
        cdef net.timespec spec
        net.clock_gettime(net.CLOCK_MONOTONIC, &spec)
        self.now_us = <uint64_t>spec.tv_sec * 1000000 + <uint64_t>spec.tv_nsec // 1000
        self.now_ms = self.now_us // 1000

    cdef int add(self, Pollable item) noexcept:
        cdef net.epoll_event event
        event.events = net.EPOLLIN | net.EPOLLOUT | net.EPOLLRDHUP | net.EPOLLET
        event.data.ptr = <void*>item
        if net.epoll_ctl(self.epoll_fd, net.EPOLL_CTL_ADD, item.fd, &event) < 0:
            return -1
        Py_INCREF(item)
        self.registered += 1
        return 0

    cdef void remove(self, Pollable item) noexcept:
        if item.fd < 0:
            return
        net.close(item.fd)        # also leaves the epoll set: no other descriptor refers to the socket
        item.fd = -1
        item.readable = item.writable = False
        self.unlink_timer(item)
        item.deadline_ms = 0
        self.registered -= 1
        if push(&self.graves, item) == 0:
            Py_DECREF(item)       # the grave holds it now
        self.wake()

    cdef void wake(self) noexcept:
        # Work that is queued from outside a batch (Python calls): before the loop sleeps it is seen anyhow.
        if self.turn is None and not self.running and not self.scheduled and self.tick_handle is not None:
            self.scheduled = True
            try:
                self.loop.call_soon(self.run)
            except RuntimeError:  # the loop is closed: nothing is served any more
                pass

    cdef void queue_ready(self, Pollable item) noexcept:
        if not item.in_ready and item.fd >= 0 and push(&self.ready, item) == 0:
            item.in_ready = True
            self.wake()

    cdef void mark_dirty(self, Pollable item) noexcept:
        if not item.in_dirty and item.fd >= 0 and push(&self.dirty, item) == 0:
            item.in_dirty = True
            self.wake()

    cdef void batch(self, int count) noexcept:
        cdef int i
        cdef uint32_t mask
        cdef Pollable item
        global turns
        self.running = True
        turns += 1
        self.batches += 1
        self.events += count
        self.refresh_clock()
        for i in range(count):
            if self.found[i].data.ptr == NULL:
                self.loop_ready = True
                continue
            item = <Pollable>self.found[i].data.ptr
            if item.fd < 0:
                continue
            mask = self.found[i].events
            if mask & (net.EPOLLIN | net.EPOLLRDHUP):
                item.readable = item.fresh = True
            if mask & net.EPOLLOUT:
                item.writable = True
            if mask & net.EPOLLRDHUP:
                item.hung_up = True
            if mask & (net.EPOLLHUP | net.EPOLLERR):
                item.broken = item.readable = item.fresh = item.writable = True
            item.on_ready()
            self.called()
        self.drain_ready()
        self.drain_dirty()
        self.bury()
        turns += 1
        self.running = False

    cdef void drain_ready(self) noexcept:
        # One pass: what queues itself again waits for the next batch, so that events get their turn.
        cdef References list = self.ready
        cdef uint32_t i
        cdef Pollable item
        if list.count == 0:
            return
        self.ready = self.spare
        self.ready.count = 0
        for i in range(list.count):
            item = <Pollable>list.items[i]
            item.in_ready = False
            if item.fd >= 0:
                item.on_ready()
                self.called()
            Py_DECREF(item)
        list.count = 0
        self.spare = list

    cdef void drain_dirty(self) noexcept:
        # A flush may make others dirty (a stream that gets room again): until there are none.
        cdef uint32_t i = 0
        cdef Pollable item
        while i < self.dirty.count:
            item = <Pollable>self.dirty.items[i]
            item.in_dirty = False
            if item.fd >= 0:
                item.on_flush()
                self.called()
            Py_DECREF(item)
            i += 1
        self.dirty.count = 0

    cdef void bury(self) noexcept:
        cdef uint32_t i = 0
        while i < self.graves.count:
            Py_DECREF(<object>self.graves.items[i])
            i += 1
        self.graves.count = 0

    cdef void called(self) noexcept:
        if after_call != NULL:
            after_call()
        self.arena_used = 0

    cdef unsigned char* borrow(self, size_t size) noexcept:
        cdef unsigned char* piece
        if size > ARENA_SIZE - self.arena_used:
            return NULL
        piece = self.arena + self.arena_used
        self.arena_used += size
        return piece

    # --- timers: a hashed wheel; a deadline that moves back is only noted, one that moves forward relinks

    cdef void arm(self, Pollable item, uint64_t delay_ms) noexcept:
        cdef uint64_t waits_until
        if delay_ms == 0 or item.fd < 0:
            item.deadline_ms = 0
            return
        item.deadline_ms = self.now_ms + delay_ms
        if item.timer_slot:
            # The slot is visited again within a turn; only an earlier visit needs another slot.
            waits_until = self.wheel_ms + (
                ((item.timer_slot - 1) - (self.wheel_ms >> WHEEL_SHIFT)) % WHEEL_SLOTS << WHEEL_SHIFT
            )
            if item.deadline_ms >= waits_until:
                return
            self.unlink_timer(item)
        self.link_timer(item)

    cdef void link_timer(self, Pollable item) noexcept:
        cdef uint64_t due = item.deadline_ms
        # The slot before the current one is being emptied when this is called from there: stay off it.
        cdef uint64_t last = self.wheel_ms + ((<uint64_t>WHEEL_SLOTS - 2) << WHEEL_SHIFT)
        cdef uint32_t slot
        if due > last:
            due = last
        elif due < self.wheel_ms:
            due = self.wheel_ms
        slot = <uint32_t>((due >> WHEEL_SHIFT) % WHEEL_SLOTS)
        item.timer_slot = <uint16_t>(slot + 1)
        item.timer_prev = NULL
        item.timer_next = self.wheel[slot]
        if item.timer_next != NULL:
            (<Pollable>item.timer_next).timer_prev = <PyObject*>item
        self.wheel[slot] = <PyObject*>item

    cdef void unlink_timer(self, Pollable item) noexcept:
        if item.timer_slot == 0:
            return
        if item.timer_prev != NULL:
            (<Pollable>item.timer_prev).timer_next = item.timer_next
        else:
            self.wheel[item.timer_slot - 1] = item.timer_next
        if item.timer_next != NULL:
            (<Pollable>item.timer_next).timer_prev = item.timer_prev
        item.timer_next = item.timer_prev = NULL
        item.timer_slot = 0

    cdef void advance_wheel(self) noexcept:
        cdef uint64_t target = self.now_ms >> WHEEL_SHIFT
        cdef uint64_t position = self.wheel_ms >> WHEEL_SHIFT
        if target - position > WHEEL_SLOTS:
            position = target - WHEEL_SLOTS
        while position < target:
            self.wheel_ms = (position + 1) << WHEEL_SHIFT
            self.expire_slot(<uint32_t>(position % WHEEL_SLOTS))
            position += 1

    cdef void expire_slot(self, uint32_t slot) noexcept:
        cdef Pollable item
        while self.wheel[slot] != NULL:
            item = <Pollable>self.wheel[slot]
            self.unlink_timer(item)
            if item.deadline_ms == 0:
                continue
            if item.deadline_ms > self.now_ms:
                self.link_timer(item)     # never into this slot again: see link_timer
                continue
            item.deadline_ms = 0
            self.timers += 1
            item.on_deadline()
            self.called()
