"""Access-log records as JSON lines, formatted in compiled code, collected by Python. See record.pxd."""

from libc.stdlib cimport free, malloc
from libc.string cimport memchr, memcpy, strlen

cimport cython
from _fastpath.net cimport CLOCK_REALTIME, clock_gettime, timespec
from _fastpath.exchange cimport Egress

cdef enum:
    MAX_LINE = 16384              # of one record; a longer target is shortened
    MAX_TEXT = 2048

cdef const char* HEX = b"0123456789abcdef"
cdef const char* DELIVERY[3]
DELIVERY[0] = b"never-sent"
DELIVERY[1] = b"maybe-sent"
DELIVERY[2] = b"sent"


@cython.final
cdef class AccessLog:
    """Collects one JSON line per exchange. `codes` are the contract's failure codes by number.

    `capacity` (bytes) bounds what waits to be drained; records beyond it are dropped and counted.
    """

    def __cinit__(self, codes: tuple[bytes, ...], size_t capacity=1 << 20):
        if capacity < MAX_LINE:
            raise ValueError(f"capacity must be at least {MAX_LINE}")
        self.buffer = <unsigned char*>malloc(capacity)
        if self.buffer == NULL:
            raise MemoryError
        self.capacity = capacity
        self.codes = tuple(bytes(code) for code in codes)

    def __dealloc__(self):
        free(self.buffer)

    def drain(self) -> bytes:
        """Return the lines collected since the last call."""
        lines = self.buffer[:self.used]
        self.used = 0
        return lines

    cdef void add(self, const Record* record) noexcept:
        cdef timespec now
        cdef const unsigned char* space
        cdef const unsigned char* head = record.head
        cdef size_t left
        cdef Egress service
        if self.capacity - self.used < MAX_LINE:
            self.dropped += 1
            return
        clock_gettime(CLOCK_REALTIME, &now)
        self.put(b'{"time":')
        self.put_number(<uint64_t>now.tv_sec)
        self.put(b".")
        self.put_fraction(<uint64_t>now.tv_nsec // 1000)
        self.put(b',"port":"')
        self.put_text(<const unsigned char*>record.port, strlen(record.port))
        self.put(b'","client":"')
        self.put_text(<const unsigned char*>record.address, record.address_size)
        if head != NULL:
            space = <const unsigned char*>memchr(head, c" ", record.head_size)
            if space != NULL:
                self.put(b'","method":"')
                self.put_text(head, space - head)
                left = record.head_size - (space + 1 - head)
                head = space + 1
                space = <const unsigned char*>memchr(head, c" ", left)
                if space != NULL:
                    self.put(b'","target":"')
                    self.put_text(head, space - head)
        if record.user_size:
            self.put(b'","user":"')
            self.put_text(record.user, record.user_size)
        if record.request_id_size:
            self.put(b'","request_id":"')
            self.put_text(record.request_id, record.request_id_size)
        if record.service != NULL and <object>record.service is not None:
            service = <Egress>record.service
            self.put(b'","service":"')
            self.put_text(<const unsigned char*><char*>service.name_bytes, len(service.name_bytes))
        self.put(b'","status":')
        self.put_number(record.status)
        if record.failure and record.failure < len(self.codes):
            self.put(b',"error":"')
            self.put(<bytes>self.codes[record.failure])
            self.put(b'"')
        self.put(b',"delivery":"')
        self.put(DELIVERY[record.delivery if record.delivery < 3 else 1])
        self.put(b'","tries":')
        self.put_number(record.tries)
        self.put(b',"bytes_in":')
        self.put_number(record.bytes_in)
        self.put(b',"bytes_out":')
        self.put_number(record.bytes_out)
        self.put(b',"wait_us":')
        self.put_number(0 if record.joined_us == NEVER else record.joined_us)
        self.put(b',"first_byte_us":')
        self.put_number(0 if record.replied_us == NEVER else record.replied_us)
        self.put(b',"total_us":')
        self.put_number(record.total_us)
        self.put(b"}\n")
        self.records += 1

    cdef void put(self, const char* text) noexcept:
        cdef size_t size = strlen(text)
        memcpy(self.buffer + self.used, text, size)
        self.used += size

    cdef void put_number(self, uint64_t value) noexcept:
        cdef unsigned char digits[20]
        cdef int i = 20
        while True:
            i -= 1
            digits[i] = <unsigned char>(48 + value % 10)
            value //= 10
            if value == 0:
                break
        memcpy(self.buffer + self.used, digits + i, 20 - i)
        self.used += 20 - i

    cdef void put_fraction(self, uint64_t micros) noexcept:
        cdef int i
        for i in range(5, -1, -1):
            self.buffer[self.used + i] = <unsigned char>(48 + micros % 10)
            micros //= 10
        self.used += 6

    cdef void put_text(self, const unsigned char* text, size_t size) noexcept:
        # Control characters, quotes and bytes that are not ASCII are escaped: a log can't be forged or
        # steer a terminal. Each becomes at most six bytes.
        cdef size_t i
        cdef unsigned char byte
        cdef unsigned char* out = self.buffer + self.used
        if size > MAX_TEXT:
            size = MAX_TEXT
        for i in range(size):
            byte = text[i]
            if byte >= 0x20 and byte < 0x7f and byte != c'"' and byte != c"\\":
                out[0] = byte
                out += 1
            else:
                memcpy(out, b"\\u00", 4)
                out[4] = HEX[byte >> 4]
                out[5] = HEX[byte & 15]
                out += 6
        self.used = out - self.buffer
