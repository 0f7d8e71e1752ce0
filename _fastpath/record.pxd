# The access log: one JSON line per exchange, formatted when it ends, into memory that Python collects in batches.
#
# The AccessLog owns its two buffers; lines that find no room are dropped and counted: a log never stops traffic.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.reactor cimport PyObject

cdef extern from *:
    """
    #define NEVER UINT64_MAX
    """
    const uint64_t NEVER

cdef struct Record:               # all borrowed for the call
    const char* port
    const char* address
    uint32_t address_size
    const unsigned char* head     # canonical request head; NULL where none was accepted
    uint32_t head_size
    const unsigned char* request_id
    const unsigned char* user
    uint32_t user_size            # 0: nobody knows who it was
    uint32_t request_id_size      # 0: none
    PyObject* service             # Egress or NULL / None
    uint16_t status               # 0: cut
    uint16_t failure              # Code or 0
    uint8_t delivery
    uint8_t tries
    uint64_t bytes_in, bytes_out
    # Since the request's first byte, or NEVER: its head was whole; it was joined; the response's head came; the end.
    uint64_t routed_us, joined_us, replied_us, total_us

cdef inline uint64_t since(uint64_t begun_us, uint64_t moment_us) noexcept nogil:
    return moment_us - begun_us if moment_us else NEVER


cdef class AccessLog:
    cdef unsigned char* buffer
    cdef size_t used, capacity
    cdef readonly uint64_t records, dropped
    cdef tuple codes              # contract code by Code, ASCII bytes

    cdef void add(self, const Record* record) noexcept
    cdef void put(self, const char* text) noexcept
    cdef void put_number(self, uint64_t value) noexcept
    cdef void put_text(self, const unsigned char* text, size_t size) noexcept
    cdef void put_fraction(self, uint64_t micros) noexcept
