"""Counts and durations of exchanges, by port and service. See meter.pxd."""

from libc.stdint cimport uint8_t

cimport cython
from _fastpath.record cimport NEVER, Journal

# Seconds would be 0.0001 to 300: from a cached answer on this host to a long poll.
METER_BOUNDS_US = (
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000, 300_000_000,
)
METER_HOPS = ("client", "wait", "upstream", "response", "total")
NO_SERVICE = "(none)"
OTHER_SERVICES = "(other)"

# Statuses that are registered (RFC 9110 15, and IANA's list); others are counted by class.
REGISTERED = (
    *(101, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308),
    *range(400, 419), *(421, 422, 423, 424, 425, 426, 428, 429, 431, 451),
    *(500, 501, 502, 503, 504, 505, 506, 507, 508, 511),
)
cdef list slot_names = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"]

cdef uint64_t bounds[BOUNDS + 1]
cdef uint8_t status_slots[600]
cdef uint32_t books = 0


cdef int prepare() except -1:
    cdef int i
    for i in range(BOUNDS):
        bounds[i] = METER_BOUNDS_US[i]
    bounds[BOUNDS] = <uint64_t>-1
    for i in range(600):
        status_slots[i] = <uint8_t>(i // 100)
    for status in REGISTERED:
        status_slots[<int>status] = <uint8_t>len(slot_names)
        slot_names.append(str(status))
    if len(slot_names) > STATUS_SLOTS or len(METER_BOUNDS_US) != BOUNDS or len(METER_HOPS) != HOPS:
        raise ImportError("the tables of meter.pyx do not fit meter.pxd")
    return 0


prepare()


cdef inline void observe(Histogram* histogram, uint64_t micros) noexcept nogil:
    cdef int i = 0
    while micros > bounds[i]:     # the last bound is larger than everything
        i += 1
    histogram.counts[i] += 1
    histogram.sum_us += micros


cdef dict histogram_counters(const Histogram* histogram):
    cdef int i
    return {"buckets": [histogram.counts[i] for i in range(BOUNDS + 1)], "sum_s": histogram.sum_us / 1e6}


@cython.final
cdef class Meter:
    """What was counted of one service at one port. Only Meters makes them."""

    cdef void count(self, const Record* record) noexcept:
        # At the end of an exchange. The hops that it got to are those whose moments are known.
        cdef uint64_t after = record.routed_us
        self.bytes_in += record.bytes_in
        self.bytes_out += record.bytes_out
        if record.tries > 1:
            self.retries += record.tries - 1
        self.statuses[status_slots[record.status if record.status < 600 else 0]] += 1
        if record.failure and record.failure < CODE_COUNT:
            self.failures[record.failure][record.delivery if record.delivery < DELIVERY_FACTS else 1] += 1
        observe(&self.hops[<int>HOP_TOTAL], record.total_us)
        if after == NEVER:
            return
        observe(&self.hops[<int>HOP_CLIENT], after)
        if record.joined_us == NEVER:
            return
        observe(&self.hops[<int>HOP_WAIT], record.joined_us - after)
        if record.replied_us == NEVER:
            return
        observe(&self.hops[<int>HOP_UPSTREAM], record.replied_us - record.joined_us)
        observe(&self.hops[<int>HOP_RESPONSE], record.total_us - record.replied_us)

    def counters(self) -> dict[str, object]:
        """Return what was counted: statuses and failures by name of status and number of code, and histograms by hop.

        `failures` are three counts each: never sent, maybe sent, sent. Buckets are not cumulative.
        """
        cdef int i, j
        return {
            "service": self.service, "bytes_in": self.bytes_in, "bytes_out": self.bytes_out, "retries": self.retries,
            "statuses": {slot_names[i]: self.statuses[i] for i in range(<int>len(slot_names)) if self.statuses[i]},
            "failures": {
                i: [self.failures[i][j] for j in range(<int>DELIVERY_FACTS)] for i in range(<int>CODE_COUNT)
                if self.failures[i][0] or self.failures[i][1] or self.failures[i][2]
            },
            "durations": {METER_HOPS[i]: histogram_counters(&self.hops[i]) for i in range(<int>HOPS)},
        }


@cython.final
cdef class Meters:
    """The Meter of each service that exchanges of one port led to; they are also recorded in `journal`.

    `port` is a name for people.
    """

    def __cinit__(self, str port not None, Journal journal=None):
        global books
        books += 1
        self.number = books
        self.port = port
        self.port_bytes = port.encode()
        self.journal = Journal() if journal is None else journal
        self.by_service = {}
        self.nowhere = self.make(NO_SERVICE)
        self.others = self.make(OTHER_SERVICES)

    def make(self, str service) -> Meter:
        meter = Meter.__new__(Meter)
        (<Meter>meter).book = self.number
        (<Meter>meter).service = service
        return meter

    def of(self, str service not None) -> Meter:
        """Return the Meter of a service; beyond MAX_METERS all share one."""
        return self.find(service)

    cdef Meter find(self, str service):
        found = self.by_service.get(service)
        if found is None:
            if len(self.by_service) >= MAX_METERS:
                return self.others
            found = self.by_service[service] = self.make(service)
        return <Meter>found

    def counters(self) -> list[dict[str, object]]:
        """Return what was counted, of every service that had an exchange."""
        found = [meter.counters() for meter in (self.nowhere, *self.by_service.values(), self.others)]
        return [{"port": self.port, **each} for each in found if each["statuses"]]
