# What is counted of exchanges by port and service: statuses, failures, and how long each hop took.
#
# A Meter is plain numbers in C, added to when an exchange ends, read by Python at scrape time. Meters, of one port, owns its
# Meter objects: one per service, a bounded number of them, so that names cannot use up memory; a Meter
# outlives the service's target, whose counts go on when an agent comes back.
#
# Durations fall into fixed buckets: `METER_BOUNDS_US` says where each ends.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport CODE_COUNT
from _fastpath.record cimport Journal, Record

cdef enum:
    BOUNDS = 19
    STATUS_SLOTS = 80             # every registered status, and one for the others of each class
    DELIVERY_FACTS = 3
    MAX_METERS = 200              # services of one port that are counted apart

# The hops of an exchange, one after the other (see METER_HOPS).
cdef enum Hop:
    HOP_CLIENT = 0                # the client sent its request's head
    HOP_WAIT = 1                  # until a tunnel or a connection had taken it
    HOP_UPSTREAM = 2              # until the response's head came
    HOP_RESPONSE = 3              # until its last byte was handed to the client's connection
    HOP_TOTAL = 4
    HOPS = 5

cdef struct Histogram:
    uint64_t counts[BOUNDS + 1]   # the last: beyond every bound
    uint64_t sum_us


cdef class Meter:
    cdef uint32_t book            # number of the Meters it belongs to
    cdef readonly str service
    cdef uint64_t bytes_in, bytes_out, retries
    cdef uint64_t statuses[STATUS_SLOTS]
    cdef uint64_t failures[CODE_COUNT][DELIVERY_FACTS]
    cdef Histogram hops[HOPS]

    cdef void count(self, const Record* record) noexcept


cdef class Meters:
    cdef readonly str port
    cdef uint32_t number          # different for every Meters of the process
    cdef dict by_service
    cdef Meter nowhere            # of what led to no service
    cdef Meter others             # of the services beyond MAX_METERS
    cdef bytes port_bytes
    cdef readonly Journal journal # where its exchanges are recorded

    cdef Meter find(self, str service)
