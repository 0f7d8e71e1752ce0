# A client's HTTP/1.1 connection: the ingress of one exchange after another.
#
# Owns what its two halves own (request.pxd, response.pxd), and `egress`, a strong reference while a request runs.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.exchange cimport Egress
from _fastpath.http1 cimport Head
from _fastpath.record cimport Record
from _fastpath.deadlines cimport TimedExchange


cdef class Client(TimedExchange):
    cdef Egress egress            # of the current request
    cdef bytes tunnel             # label of the one that it was sent through last, or None
    cdef uint64_t routed_us       # its head was whole
    cdef uint64_t sent_us         # joined
    cdef uint16_t failure         # Code of the answer this node made; 0: none
    cdef uint8_t earlier          # how far the tries before the current one may have come
    cdef uint8_t in_flight        # counted as begun, not yet as finished
    cdef uint8_t rested           # TLS: has given its buffers back since the last request, or will not

    cdef bint serve(self) noexcept
    cdef void look_at_certificate(self) noexcept      # of the connection, once it has shaken hands
    cdef Egress route(self, const unsigned char* data, const Head* head, int* ambiguous)
    # Whether the request may go on: 0, a Code, or GATE_WAIT.
    cdef int judge(self, const unsigned char* data, const Head* head) noexcept
    # Whether what runs is allowed under the port's (or service's) gate as it is now.
    cdef bint may_go_on(self) noexcept
    cdef void await_proof(self, const unsigned char* data, size_t size) noexcept
    cdef void join(self, const Head* head) noexcept
    cdef bint look_again(self, const Head* head) noexcept
    cdef void send_request(self) noexcept
    cdef void next_request(self) noexcept
    cdef void await_request(self) noexcept
    cdef void await_last_request(self) noexcept   # of a port that has stopped
    cdef bint rest(self) noexcept
    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept
    cdef void abandon(self, uint16_t code) noexcept
    cdef void linger(self) noexcept
    cdef void count_finished(self) noexcept
    cdef void fill(self, Record* record) noexcept
