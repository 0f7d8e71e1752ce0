# A plain TCP connection as one side of an exchange: accepted on a tcp port, or dialled to a tcp upstream.
#
# Owns nothing beyond its Socket but the first message of a TLS client (`hello`, malloc'd), until more was passed. Half-close passes through: an end that is read becomes the peer's end,
# the peer's end becomes SHUT_WR, and the connection goes away when both directions have ended.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.backend cimport Backend
from _fastpath.connection cimport Connection
from _fastpath.exchange cimport Egress
from _fastpath.pool cimport Pool
from _fastpath.record cimport Record

cdef enum TcpState:
    TCP_NEW = 0                   # accepted, to be joined
    TCP_WAITING = 1               # for an agent
    TCP_CONNECTING = 2            # dialled
    TCP_RUNNING = 3
    TCP_HELLO = 4                 # accepted on a tls port: its first message is not whole yet


cdef class TcpEnd(Connection):
    cdef Egress egress            # accepted: where it leads
    cdef Pool service             # dialled: where it belongs
    cdef bytes name               # accepted: the service's, "tls/HOST" on a tls port
    cdef unsigned char* hello     # kept until more has been passed: so it can be sent again
    cdef uint32_t hello_size
    cdef uint8_t state
    cdef uint8_t dialled
    cdef uint8_t introduced       # dialled: the PROXY header was written
    cdef uint8_t read_ended       # our peer was told
    cdef uint8_t write_ended      # by our peer
    cdef Backend backend          # dialled: the address that this is a connection to
    cdef uint64_t tried           # dialled: places of the backends that this exchange was tried at
    cdef uint8_t counted          # dialled: in the numbers of what is under way
    cdef bytes tunnel             # label of the one that it goes through, or None
    cdef uint64_t begun_us, routed_us, joined_us, seen_in, seen_out
    cdef uint64_t moved_ms        # accepted: when bytes moved last, in either direction
    cdef uint64_t total_deadline_ms           # accepted: 0 where there is none
    cdef uint64_t read_mark       # accepted: bytes that the client had acknowledged at the last look
    cdef uint16_t failure
    cdef uint8_t delivery, in_flight

    cdef void begin(self) noexcept
    cdef bint repeats_itself(self) noexcept   # behind a PROXY header: another one
    cdef uint32_t describe(self, unsigned char* meta) noexcept        # accepted: who it is, for take_meta
    cdef bint read_hello(self) noexcept       # one step; True once the name is known
    cdef bint keep_hello(self, const unsigned char* data, size_t size) noexcept
    cdef void drop_hello(self) noexcept
    cdef void refuse_hello(self) noexcept     # tells a TLS client why nobody answers
    cdef bint pump(self) noexcept
    cdef void watch(self) noexcept            # accepted: arms the next deadline of what runs
    cdef void expired(self) noexcept
    cdef void give_up(self, const char* reason) noexcept  # ... with a reason for the access log
    cdef void connected(self) noexcept
    cdef bint next_address(self) noexcept
    cdef void count(self) noexcept
    cdef void uncount(self) noexcept
    cdef void finish_if_over(self) noexcept
    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept
    cdef void abandon(self, uint16_t code, uint8_t delivery) noexcept
    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept
    cdef void leave(self) noexcept
    cdef void leave_service(self, Record* record) noexcept
    cdef void fill(self, Record* record) noexcept
