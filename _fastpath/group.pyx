"""Delegated services: the least loaded tunnel takes the next stream. See group.pxd."""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free, realloc

from cpython.ref cimport Py_DECREF, Py_INCREF

cimport cython
from _fastpath.end cimport CODE_OVERLOADED, End
from _fastpath.exchange cimport JOIN_WAIT, JOINED, tally_counters
from _fastpath.guard cimport quota_full
from _fastpath.http1 cimport Head
from _fastpath.pipe cimport Pipe, link_pipes
from _fastpath.socket cimport uncork
from _fastpath.stream cimport SessionOwner
from _fastpath.sweep cimport end_leading_to

cdef enum:
    SCAN_ALL = 8                  # above so many tunnels a few are sampled instead
    RESERVE = 8                   # one stream in so many is for services that do not have their share yet


cdef int add_member(Members* members, Tunnel tunnel) except -1:
    cdef uint32_t capacity
    cdef PyObject** memory
    cdef uint32_t i
    for i in range(members.count):
        if members.tunnels[i] == <PyObject*>tunnel:
            return 0
    if members.count == MAX_TUNNELS:
        raise OverflowError(f"a service has at most {MAX_TUNNELS} tunnels")
    if members.count == members.capacity:
        capacity = members.capacity * 2 if members.capacity else 4
        memory = <PyObject**>realloc(members.tunnels, capacity * sizeof(PyObject*))
        if memory == NULL:
            raise MemoryError
        members.tunnels = memory
        members.capacity = capacity
    Py_INCREF(tunnel)
    members.tunnels[members.count] = <PyObject*>tunnel
    members.count += 1
    tunnel.groups += 1
    return 0


cdef bint remove_member(Members* members, Tunnel tunnel) noexcept:
    cdef uint32_t i
    for i in range(members.count):
        if members.tunnels[i] == <PyObject*>tunnel:
            members.count -= 1
            members.tunnels[i] = members.tunnels[members.count]
            tunnel.groups -= 1
            Py_DECREF(tunnel)
            return True
    return False


cdef void clear_members(Members* members) noexcept:
    cdef uint32_t i
    for i in range(members.count):
        Py_DECREF(<object>members.tunnels[i])
    free(members.tunnels)


cdef bint came_over_relay(Stream stream) noexcept:
    cdef SessionOwner owner = stream.session.owner
    return isinstance(owner, Tunnel) and (<Tunnel>owner).relay


@cython.final
cdef class Group(Egress):
    """A service that agents announce: any number of tunnels, of one or many agents.

    `on_doubt(relay)` is called from the loop when another worker has refused an exchange because its agents have gone:
    the relay was removed, and is to be added again if they are back.
    """

    def __init__(self, Reactor reactor not None, str name, on_doubt=None):
        super().__init__(name)
        self.name_bytes = name.encode()
        self.reactor = reactor
        self.on_doubt = on_doubt

    def __dealloc__(self):
        clear_members(&self.direct)
        clear_members(&self.relays)

    def add(self, Tunnel tunnel not None) -> None:
        """Let `tunnel` serve this, and send what waits. Adding it twice changes nothing but that."""
        add_member(&self.relays if tunnel.relay else &self.direct, tunnel)
        self.wake_waiting()

    def remove(self, Tunnel tunnel not None) -> None:
        """Let `tunnel` serve this no more; its running streams go on."""
        remove_member(&self.relays if tunnel.relay else &self.direct, tunnel)

    def cut(self, Tunnel tunnel not None, uint16_t code, str reason) -> None:
        """End the streams of this service that run in `tunnel`: their clients get the answer of `code`."""
        cdef bytes text = reason.encode()[:256]
        tunnel.session.now_us = self.reactor.now_us
        end_leading_to(tunnel.session, self, code, text)
        uncork()

    def counters(self) -> dict[str, object]:
        """Return counts of exchanges, tunnels and requests that wait for one."""
        counts = tally_counters(&self.tally)
        counts.update(tunnels=self.direct.count, waiting=self.waiting)
        del counts["active"], counts["statuses"], counts["bytes_in"], counts["bytes_out"]
        return counts

    cdef int join(self, End ingress, const Head* head) noexcept:
        cdef bint full = False
        cdef Tunnel tunnel = self.choose(&self.direct, &full)
        cdef bint relayed = isinstance(ingress, Stream) and came_over_relay(<Stream>ingress)
        if tunnel is None and self.relays.count and not relayed:
            tunnel = self.choose(&self.relays, &full)
        if tunnel is None:
            return CODE_OVERLOADED if full else JOIN_WAIT
        tunnel.session.now_us = self.reactor.now_us
        tunnel.session.egress = self
        if not (self.join_streams(tunnel, ingress) if isinstance(ingress, Stream) else self.join_end(tunnel, ingress)):
            return CODE_OVERLOADED
        if not relayed:           # else the worker that it came from has counted it
            self.tally.exchanges += 1
            self.relayed += tunnel.relay
        return JOINED

    cdef void doubt(self, object relay) noexcept:
        if remove_member(&self.relays, <Tunnel>relay) and self.on_doubt is not None:
            try:
                self.reactor.loop.call_soon(self.on_doubt, relay)
            except RuntimeError:  # the loop is closed
                pass

    cdef bint join_end(self, Tunnel tunnel, End ingress) noexcept:
        return tunnel.session.open(ingress) is not None

    cdef bint join_streams(self, Tunnel tunnel, End ingress) noexcept:
        cdef Pipe near = Pipe.__new__(Pipe)
        cdef Pipe far = Pipe.__new__(Pipe)
        link_pipes(near, far)
        if tunnel.session.open(far) is None:
            return False
        near.peer = ingress
        ingress.peer = near
        return True

    cdef Tunnel choose(self, Members* members, bint* full):
        # Least active streams; among more than SCAN_ALL tunnels, the better of a sample.
        cdef Tunnel tunnel
        cdef PyObject* best = NULL
        cdef uint32_t least = 0xffffffff
        cdef uint32_t steps = members.count
        cdef uint32_t index = members.turn
        cdef uint32_t seen = 0
        members.turn += 1
        while seen < steps:
            if index >= members.count:
                index = index % members.count
            tunnel = <Tunnel>members.tunnels[index]
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
        if tunnel.relay or tunnel.groups < 2 or tunnel.session.locals.active < limit - limit // RESERVE:
            return False
        return <uint64_t>self.in_flight * tunnel.groups >= limit * self.direct.count
