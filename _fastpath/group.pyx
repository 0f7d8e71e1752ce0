"""Delegated services: the least loaded tunnel takes the next stream. See group.pxd."""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free, realloc

from cpython.ref cimport Py_DECREF, Py_INCREF

cimport cython
from _fastpath.end cimport CODE_OVERLOADED, End
from _fastpath.exchange cimport JOIN_WAIT, JOINED, tally_counters
from _fastpath.guard cimport quota_full
from _fastpath.http1 cimport Head
from _fastpath.socket cimport uncork
from _fastpath.sweep cimport end_leading_to

cdef enum:
    SCAN_ALL = 8                  # above so many tunnels a few are sampled instead
    RESERVE = 8                   # one stream in so many is for services that do not have their share yet


@cython.final
cdef class Group(Egress):
    """A service that agents announce: any number of tunnels, of one or many agents."""

    def __init__(self, Reactor reactor not None, str name):
        super().__init__(name)
        self.name_bytes = name.encode()
        self.reactor = reactor

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self.count):
            Py_DECREF(<object>self.tunnels[i])
        free(self.tunnels)

    def add(self, Tunnel tunnel not None) -> None:
        """Let `tunnel` serve this, and send what waits. Adding it twice changes nothing."""
        cdef uint32_t capacity
        cdef PyObject** memory
        cdef uint32_t i
        for i in range(self.count):
            if self.tunnels[i] == <PyObject*>tunnel:
                return
        if self.count == MAX_TUNNELS:
            raise OverflowError(f"a service has at most {MAX_TUNNELS} tunnels")
        if self.count == self.capacity:
            capacity = self.capacity * 2 if self.capacity else 4
            memory = <PyObject**>realloc(self.tunnels, capacity * sizeof(PyObject*))
            if memory == NULL:
                raise MemoryError
            self.tunnels = memory
            self.capacity = capacity
        Py_INCREF(tunnel)
        self.tunnels[self.count] = <PyObject*>tunnel
        self.count += 1
        tunnel.groups += 1
        self.wake_waiting()

    def remove(self, Tunnel tunnel not None) -> None:
        """Let `tunnel` serve this no more; its running streams go on."""
        cdef uint32_t i
        for i in range(self.count):
            if self.tunnels[i] == <PyObject*>tunnel:
                self.count -= 1
                self.tunnels[i] = self.tunnels[self.count]
                tunnel.groups -= 1
                Py_DECREF(tunnel)
                return

    def cut(self, Tunnel tunnel not None, uint16_t code, str reason) -> None:
        """End the streams of this service that run in `tunnel`: their clients get the answer of `code`."""
        cdef bytes text = reason.encode()[:256]
        tunnel.session.now_us = self.reactor.now_us
        end_leading_to(tunnel.session, self, code, text)
        uncork()

    def counters(self) -> dict[str, object]:
        """Return counts of exchanges, tunnels and requests that wait for one."""
        counts = tally_counters(&self.tally)
        counts.update(tunnels=self.count, waiting=self.waiting)
        del counts["active"], counts["statuses"], counts["bytes_in"], counts["bytes_out"]
        return counts

    cdef int join(self, End ingress, const Head* head) noexcept:
        cdef bint full = False
        cdef Tunnel tunnel = self.choose(&full)
        cdef Stream stream
        if tunnel is None:
            return CODE_OVERLOADED if full else JOIN_WAIT
        tunnel.session.now_us = self.reactor.now_us
        tunnel.session.egress = self
        stream = tunnel.session.open(ingress)
        if stream is None:
            return CODE_OVERLOADED
        self.tally.exchanges += 1
        return JOINED

    cdef Tunnel choose(self, bint* full):
        # Least active streams; among more than SCAN_ALL tunnels, the better of a sample.
        cdef Tunnel tunnel
        cdef PyObject* best = NULL
        cdef uint32_t least = 0xffffffff
        cdef uint32_t steps = self.count
        cdef uint32_t index = self.turn
        cdef uint32_t seen = 0
        self.turn += 1
        while seen < steps:
            if index >= self.count:
                index = index % self.count
            tunnel = <Tunnel>self.tunnels[index]
            index += 1
            seen += 1
            if not tunnel.alive or tunnel.session.going_away:
                continue
            if (tunnel.session.locals.active >= tunnel.session.local_limit or quota_full(tunnel.session.quota)
                    or self.is_greedy(tunnel)):
                full[0] = True
                continue
            if tunnel.session.active < least:
                least = tunnel.session.active
                best = <PyObject*>tunnel
                if least == 0:
                    break
            if seen >= SCAN_ALL:
                break             # `turn` moves on: every tunnel gets its share
        return <Tunnel>best if best != NULL else None

    cdef bint is_greedy(self, Tunnel tunnel) noexcept:
        # The last streams of a tunnel that several services share are for those that have less than their part of it: one
        # service whose upstream is slow cannot take them all.
        cdef uint64_t limit = tunnel.session.local_limit
        if tunnel.groups < 2 or tunnel.session.locals.active < limit - limit // RESERVE:
            return False
        return <uint64_t>self.in_flight * tunnel.groups >= limit * self.count
