"""Records of exchanges: lines of the access log, formatted in compiled code, and the last failures. See record.pxd."""

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm

cimport cython
from _fastpath.lines cimport Picked, pick, put, put_digits, put_number, put_text
from _fastpath.net cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef enum:
    MOST_OUT = 16                 # blocks that are being written
    SHORT_TEXT = 256              # bytes of a name, an id, a reason

cdef tuple DELIVERIES = ("never-sent", "maybe-sent", "sent")
# The texts of a Failure, and how many bytes are kept of each.
cdef tuple FAILURE_TEXTS = ("port", "client", "user", "method", "target", "host", "service", "tunnel", "reason", "request_id")
cdef uint32_t[10] KEPT_SIZES = [64, 46, 64, 16, 400, 130, 130, 130, 200, 100]

cdef const char* DELIVERY[3]
DELIVERY[0] = b"never-sent"
DELIVERY[1] = b"maybe-sent"
DELIVERY[2] = b"sent"
cdef const char* MONTHS = b"JanFebMarAprMayJunJulAugSepOctNovDec"


@cython.final
cdef class Lines:
    """A block of whole lines; its memory is that of a buffer object."""

    def __dealloc__(self):
        free(self.data)
        if self.home is not None:
            self.home.out -= 1

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, <Py_ssize_t>self.size, 1, flags)

    def __len__(self):
        return self.size


@cython.final
cdef class Journal:
    """Where the exchanges of a process are recorded. `codes` are the contract's failure codes by number.

    Not thread-safe: its Lines may be let go by any thread that holds the interpreter's lock.
    """

    def __cinit__(self, codes=()):
        self.codes = tuple(bytes(code) for code in codes)
        self.failures = <Failure*>calloc(KEPT_FAILURES, sizeof(Failure))
        if self.failures == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.block)
        free(self.failures)

    def write(self, str format not None, sink, bint queries=True) -> None:
        """From now on format records ("json", "combined" or "off") and pass blocks of lines to `sink`.

        What was formatted before is handed over first. Targets are written with their query where `queries` says so.
        """
        formats = {"off": LOG_OFF, "json": LOG_JSON, "combined": LOG_COMBINED}
        if format not in formats:
            raise ValueError(f"a format is off, json or combined, not {format}")
        self.flush()
        self.sink = sink
        self.format = formats[format] if sink is not None else LOG_OFF
        self.queries = queries
        self.second = -1
        self.stamp_size = 0

    def flush(self) -> None:
        """Hand over what is there, and look at the clock: call it a few times a second."""
        cdef timespec wall, now
        clock_gettime(CLOCK_REALTIME, &wall)
        clock_gettime(CLOCK_MONOTONIC, &now)
        self.offset_us = (
            (<int64_t>wall.tv_sec - <int64_t>now.tv_sec) * 1000000
            + (<int64_t>wall.tv_nsec - <int64_t>now.tv_nsec) // 1000
        )
        if self.used:
            self.hand_over()

    def last_failures(self) -> list[dict[str, object]]:
        """Return the last exchanges that ended early, the latest first: `code` is a number."""
        cdef uint64_t i
        cdef uint64_t count = self.failed if self.failed < KEPT_FAILURES else KEPT_FAILURES
        return [failure_row(&self.failures[(self.failed - 1 - i) % KEPT_FAILURES]) for i in range(count)]

    cdef void because(self, const unsigned char* reason, size_t size) noexcept:
        self.reason.data = reason
        self.reason.size = <uint32_t>(size if size < SHORT_TEXT else SHORT_TEXT)

    cdef void add(self, Record* record) noexcept:
        cdef int64_t wall_us
        cdef unsigned char* at
        cdef unsigned char* begin
        if record.reason.size == 0:
            record.reason = self.reason
        if record.failure:
            self.keep_failure(record)
        if self.format == LOG_OFF:
            return
        self.records += 1
        if BLOCK_SIZE - self.used < MAX_LINE or self.block == NULL:
            if not self.make_room():
                self.dropped += 1
                return
        wall_us = <int64_t>record.ended_us + self.offset_us
        self.set_stamp(wall_us)
        begin = self.block + self.used
        if self.format == LOG_JSON:
            at = self.put_json(begin, record, wall_us)
        else:
            at = self.put_combined(begin, record)
        self.used += at - begin
        self.lines += 1

    cdef bint make_room(self) noexcept:
        if self.used:
            try:
                self.hand_over()
            except Exception:
                return False
        if self.block == NULL:
            if self.out >= MOST_OUT:
                return False
            self.block = <unsigned char*>malloc(BLOCK_SIZE)
        return self.block != NULL

    cdef void hand_over(self) except *:
        cdef Lines lines = Lines.__new__(Lines)
        lines.home = self
        lines.data = self.block
        lines.size = self.used
        lines.records = self.lines
        self.block = NULL
        self.used = self.lines = 0
        self.out += 1
        self.sink(lines)

    cdef void set_stamp(self, int64_t wall_us) noexcept:
        # Second by second, since most lines are of the one that the last was of.
        cdef time_t second = <time_t>(wall_us // 1000000)
        cdef tm parts
        cdef unsigned char* at = <unsigned char*>self.stamp
        if second == self.second:
            return
        self.second = second
        gmtime_r(&second, &parts)
        if self.format == LOG_JSON:
            at = put(put_digits(at, parts.tm_year + 1900, 4), b"-")
            at = put(put_digits(at, parts.tm_mon + 1, 2), b"-")
            at = put(put_digits(at, parts.tm_mday, 2), b"T")
        else:
            at = put(put_digits(at, parts.tm_mday, 2), b"/")
            memcpy(at, MONTHS + 3 * parts.tm_mon, 3)
            at = put(put_digits(put(at + 3, b"/"), parts.tm_year + 1900, 4), b":")
        at = put(put_digits(at, parts.tm_hour, 2), b":")
        at = put(put_digits(at, parts.tm_min, 2), b":")
        at = put_digits(at, parts.tm_sec, 2)
        self.stamp_size = <uint8_t>(at - <unsigned char*>self.stamp)

    cdef unsigned char* put_json(self, unsigned char* at, const Record* record, int64_t wall_us) noexcept:
        cdef Picked picked
        cdef uint64_t after = record.routed_us
        pick(record.head, &picked)
        at = put(at, b'{"time":"')
        memcpy(at, self.stamp, self.stamp_size)
        at = put(put_digits(put(at + self.stamp_size, b"."), <uint64_t>(wall_us % 1000000), 6), b'Z","port":"')
        at = put_text(at, record.port, SHORT_TEXT)
        at = member(at, b'","client":"', record.address, SHORT_TEXT)
        at = member(at, b'","user":"', record.user, SHORT_TEXT)
        at = member(at, b'","method":"', picked.method, SHORT_TEXT)
        at = member(at, b'","target":"', self.shown(picked.target), MAX_TEXT)
        at = member(at, b'","host":"', picked.host, SHORT_TEXT)
        at = member(at, b'","service":"', record.service, SHORT_TEXT)
        at = member(at, b'","tunnel":"', record.tunnel, SHORT_TEXT)
        at = member(at, b'","request_id":"', record.request_id, SHORT_TEXT)
        if picked.trace.size >= 35:
            picked.trace.data += 3
            at = member(at, b'","trace_id":"', picked.trace, 32)
        at = member(at, b'","referer":"', picked.referer, MAX_TEXT // 4)
        at = member(at, b'","user_agent":"', picked.agent, MAX_TEXT // 4)
        if record.failure and record.failure < len(self.codes):
            at = put(put(at, b'","error":"'), <char*><bytes>self.codes[record.failure])
            at = member(at, b'","reason":"', record.reason, SHORT_TEXT)
        at = put(put(at, b'","delivery":"'), DELIVERY[record.delivery if record.delivery < 3 else 1])
        at = put_number(put(at, b'","status":'), record.status)
        at = put_number(put(at, b',"tries":'), record.tries)
        at = put_number(put(at, b',"bytes_in":'), record.bytes_in)
        at = put_number(put(at, b',"bytes_out":'), record.bytes_out)
        if after != NEVER:
            at = put_number(put(at, b',"client_us":'), after)
            if record.joined_us != NEVER:
                at = put_number(put(at, b',"wait_us":'), record.joined_us - after)
                if record.replied_us != NEVER:
                    at = put_number(put(at, b',"upstream_us":'), record.replied_us - record.joined_us)
                    at = put_number(put(at, b',"response_us":'), record.total_us - record.replied_us)
        at = put_number(put(at, b',"total_us":'), record.total_us)
        return put(at, b"}\n")

    cdef unsigned char* put_combined(self, unsigned char* at, const Record* record) noexcept:
        cdef Picked picked
        pick(record.head, &picked)
        at = put(or_dash(at, record.address), b" - ")
        at = put(or_dash(at, record.user), b" [")
        memcpy(at, self.stamp, self.stamp_size)
        at = put(at + self.stamp_size, b' +0000] "')
        if picked.method.size:
            at = put(put_text(at, picked.method, SHORT_TEXT), b" ")
            at = put(put_text(at, self.shown(picked.target), MAX_TEXT), b" ")
            at = put_text(at, picked.version, 16)
        else:
            at = put(at, b"-")
        at = put(put_number(put(at, b'" '), record.status), b" ")
        at = put(put_number(at, record.bytes_out), b' "')
        at = put(or_dash(at, picked.referer), b'" "')
        return put(or_dash(at, picked.agent), b'"\n')

    cdef Text shown(self, Text target) noexcept:
        cdef uint32_t i
        if not self.queries:
            for i in range(target.size):
                if target.data[i] == c"?":
                    target.size = i
                    break
        return target

    cdef void keep_failure(self, const Record* record) noexcept:
        cdef Failure* kept = &self.failures[self.failed % KEPT_FAILURES]
        cdef Picked picked
        cdef Text texts[10]
        cdef uint32_t used = 0
        cdef uint32_t size
        cdef int i
        pick(record.head, &picked)
        for i in range(<int>picked.target.size):
            if picked.target.data[i] == c"?":         # queries may hold secrets
                picked.target.size = <uint32_t>i
                break
        texts[0] = record.port
        texts[1] = record.address
        texts[2] = record.user
        texts[3] = picked.method
        texts[4] = picked.target
        texts[5] = picked.host
        texts[6] = record.service
        texts[7] = record.tunnel
        texts[8] = record.reason
        texts[9] = record.request_id
        for i in range(10):
            size = texts[i].size if texts[i].size < KEPT_SIZES[i] else KEPT_SIZES[i]
            if size:
                memcpy(kept.texts + used, texts[i].data, size)
            kept.sizes[i] = <uint16_t>size
            used += size
        kept.wall_us = <int64_t>record.ended_us + self.offset_us
        kept.total_us = record.total_us
        kept.status = record.status
        kept.failure = record.failure
        kept.delivery = record.delivery
        kept.tries = record.tries
        self.failed += 1


cdef inline unsigned char* member(unsigned char* at, const char* name, Text text, uint32_t most) noexcept nogil:
    return put_text(put(at, name), text, most) if text.size else at


cdef inline unsigned char* or_dash(unsigned char* at, Text text) noexcept nogil:
    return put_text(at, text, MAX_TEXT // 4) if text.size else put(at, b"-")


cdef dict failure_row(const Failure* kept):
    cdef int i
    cdef uint32_t used = 0
    row = {
        "time": kept.wall_us / 1e6, "code": kept.failure, "status": kept.status, "tries": kept.tries,
        "delivery": DELIVERIES[kept.delivery if kept.delivery < 3 else 1], "total_s": kept.total_us / 1e6,
    }
    for i in range(10):
        row[FAILURE_TEXTS[i]] = (<bytes>kept.texts[used:used + kept.sizes[i]]).decode("latin-1")
        used += kept.sizes[i]
    return row
