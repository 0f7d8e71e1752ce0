"""Joining an ingress to an egress, waiting for one, and counting. See exchange.pxd."""

from cpython.ref cimport Py_INCREF, Py_XDECREF

cimport cython
from _fastpath.record cimport text_of
from _fastpath.stream cimport Stream
from _fastpath.end cimport CODE_NO_SERVICE, CODE_OVERLOADED


@cython.no_gc
cdef class Ingress(Socket):
    """An accepted connection that may wait for an agent. Only compiled subclasses are useful."""

    cdef void wait_over(self) noexcept:
        pass

    cdef void proved(self) noexcept:
        pass

    cdef void stop_waiting(self) noexcept:
        cdef Egress egress = self.waits_for
        if egress is None:
            return
        if self.wait_prev != NULL:
            (<Ingress>self.wait_prev).wait_next = self.wait_next
        else:
            egress.wait_head = self.wait_next
        if self.wait_next != NULL:
            (<Ingress>self.wait_next).wait_prev = self.wait_prev
        else:
            egress.wait_tail = self.wait_prev
        self.wait_next = self.wait_prev = NULL
        self.waits_for = None
        egress.waiting -= 1

    cdef int join_within(self, Egress egress, const Head* head, uint32_t limit) noexcept:
        cdef int result
        if self.counted_at is not egress:
            self.count_out()
            if egress.in_flight >= limit:
                return CODE_OVERLOADED
        result = egress.join(self, head)
        if result == JOINED and self.counted_at is None:
            self.counted_at = egress
            egress.in_flight += 1
        return result

    cdef void count_out(self) noexcept:
        if self.counted_at is not None:
            self.counted_at.in_flight -= 1
            self.counted_at = None


cdef class Egress(Target):
    """What a request can be joined to. Only compiled subclasses are useful."""

    def __dealloc__(self):
        cdef int slot
        for slot in range(KNOWN_METERS):
            Py_XDECREF(self.meters[slot])

    cdef int join(self, End ingress, const Head* head) noexcept:
        return JOIN_WAIT

    cdef void wait(self, Ingress ingress) noexcept:
        ingress.waits_for = self
        ingress.wait_next = NULL
        ingress.wait_prev = self.wait_tail
        if self.wait_tail != NULL:
            (<Ingress>self.wait_tail).wait_next = <PyObject*>ingress
        else:
            self.wait_head = <PyObject*>ingress
        self.wait_tail = <PyObject*>ingress
        self.waiting += 1

    cdef void wake_waiting(self) noexcept:
        cdef Ingress ingress
        while self.wait_head != NULL:
            ingress = <Ingress>self.wait_head
            ingress.stop_waiting()
            ingress.wait_over()

    cdef void doubt(self, object relay) noexcept:
        pass


@cython.final
cdef class Lobby(Egress):
    """Where requests wait whose service nobody has announced yet, as long as that may still come. Open at first."""

    def __init__(self, str name):
        super().__init__(name)
        self.name_bytes = name.encode()

    def wake(self) -> None:
        """Let all who wait look again."""
        self.wake_waiting()

    def open(self) -> None:
        """Let requests wait here from now on, too."""
        self.closed = False

    def close(self) -> None:
        """Nobody waits here any more: what is not known now is not known."""
        self.closed = True
        self.wake_waiting()

    cdef int join(self, End ingress, const Head* head) noexcept:
        return CODE_NO_SERVICE if self.closed else JOIN_WAIT


cdef Meter meter_of(Meters meters, Egress egress):
    cdef int slot = meters.number % KNOWN_METERS
    cdef PyObject* known
    cdef Meter meter
    if egress is None:
        return meters.nowhere
    known = egress.meters[slot]
    if known != NULL and (<Meter>known).book == meters.number:
        return <Meter>known
    meter = meters.find(egress.name)
    Py_INCREF(meter)
    Py_XDECREF(known)
    egress.meters[slot] = <PyObject*>meter
    return meter


cdef void settle(Meters meters, Egress egress, Record* record) noexcept:
    record.port = text_of(meters.port_bytes)
    if egress is not None:
        record.service = text_of(egress.name_bytes)
    meter_of(meters, egress).count(record)
    meters.journal.add(record)


cdef bytes tunnel_label(End end):
    cdef Stream stream
    if not isinstance(end, Stream):
        return None
    stream = <Stream>end
    if stream.session is None or stream.session.owner is None:
        return None
    return stream.session.owner.label


cdef dict tally_counters(const Tally* tally):
    cdef int i
    return {
        "exchanges": tally.exchanges,
        "active": tally.active,
        "bytes_in": tally.bytes_in,
        "bytes_out": tally.bytes_out,
        "retries": tally.retries,
        "statuses": [tally.statuses[i] for i in range(6)],
        "failures": {i: tally.failures[i] for i in range(<int>CODE_COUNT) if tally.failures[i]},
    }
