# What is known of an exchange when it has ended, and where that goes: the access log, and a ring of the last failures.
#
# A Record borrows all it refers to, for the call. An Outlet owns the buffer that lines are formatted into, and hands it over
# whole, as Lines, when it is full or when it is asked to. So many of them
# may be out at a time; a record that finds no room then is dropped and counted: a log never stops traffic. The Journal has two
# of them: the access log, and what becomes spans of those exchanges that are traced.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.lines cimport Text
from _fastpath.spool cimport Home, Spool
from _fastpath.trace cimport Trace, Tracing

cdef extern from *:
    """
    #define NEVER UINT64_MAX
    """
    const uint64_t NEVER

cdef enum:
    KEPT_FAILURES = 100
    BLOCK_SIZE = 262144           # of lines that are handed over together: larger ones are fewer wake-ups of who writes them
    MAX_LINE = 40960              # of one record: texts are shortened to stay below
    MAX_TEXT = 2048               # bytes of a target

cdef enum LogFormat:
    LOG_OFF = 0
    LOG_JSON = 1
    LOG_COMBINED = 2

cdef struct Record:
    Text port
    Text address                  # of the client
    Text user                     # who the client has proven to be; 0: nobody
    Text head                     # canonical request head; 0: none was accepted
    Text request_id
    Text service
    Text tunnel                   # USER/AGENT/NUMBER, in an agent URL NUMBER
    Text reason                   # of a failure, in the words of the hop that noticed
    uint64_t ended_us             # monotonic
    Trace trace
    uint16_t status               # 0: cut
    uint16_t failure              # Code or 0
    uint8_t delivery
    uint8_t tries
    uint64_t bytes_in, bytes_out
    # Since the request's first byte, or NEVER: its head was whole; it was joined; the response's head came; the end.
    uint64_t routed_us, joined_us, replied_us, total_us

cdef inline uint64_t since(uint64_t begun_us, uint64_t moment_us) noexcept nogil:
    return moment_us - begun_us if moment_us else NEVER

cdef inline Text text_of(bytes value) noexcept:
    cdef Text text
    text.data = <const unsigned char*><char*>value if value is not None else NULL
    text.size = <uint32_t>len(value) if value is not None else 0
    return text

cdef struct Failure:              # a copy, with its texts shortened
    int64_t wall_us
    uint64_t total_us
    uint16_t status, failure
    uint8_t delivery, tries
    uint16_t sizes[10]
    unsigned char texts[1280]


cdef class Outlet(Home):
    cdef uint64_t records, dropped
    cdef uint8_t format
    cdef bint queries             # targets are written with their query
    cdef object sink              # a Spool, or (Lines) -> None
    cdef Spool spool              # the sink, where it is one
    cdef unsigned char* block
    cdef size_t used
    cdef uint32_t lines           # in the block
    cdef int64_t second           # that `stamp` is of
    cdef char stamp[32]
    cdef uint8_t stamp_size

    cdef void open(self, uint8_t format, object sink, bint queries) except *
    cdef unsigned char* room(self) noexcept       # for one more record; NULL: it is dropped
    cdef void hand_over(self) except *
    cdef void reap(self) noexcept                 # of what is written: the memory
    cdef void flush(self) except *
    cdef void set_stamp(self, int64_t wall_us) noexcept
    cdef Text shown(self, Text target) noexcept


cdef class Journal:
    cdef Outlet log, spans
    cdef Tracing tracing
    cdef uint32_t budget          # of traced exchanges until the next flush
    cdef int64_t offset_us        # wall clock minus monotonic
    cdef tuple codes              # contract code by Code, ASCII bytes
    cdef Text reason              # of what is ended by the call that goes on
    cdef Failure* failures        # a ring
    cdef uint64_t failed

    cdef void because(self, const unsigned char* reason, size_t size) noexcept
    cdef void add(self, Record* record) noexcept
    cdef void keep_failure(self, const Record* record) noexcept
    cdef bint put(self, Outlet outlet, const Record* record) noexcept     # False: there is no room
    cdef void add_span(self, const Record* record) noexcept
    cdef unsigned char* put_json(self, Outlet outlet, unsigned char* at, const Record* record, int64_t wall_us) noexcept
    cdef unsigned char* put_combined(self, Outlet outlet, unsigned char* at, const Record* record) noexcept
