"""Records of exchanges: lines of the access log, formatted in compiled code, and the last failures. See record.pxd."""

from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, strlen
from libc.time cimport gmtime_r, time_t, tm

cimport cython
from _fastpath.lines cimport Picked, pick, put, put_digits, put_number, put_text
from _fastpath.spool cimport KIND_LINES, Home, Lines, Spool
from _fastpath.trace cimport put_span, threshold_of
from _fastpath.net cimport CLOCK_MONOTONIC, CLOCK_REALTIME, clock_gettime, timespec

cdef enum:
    MOST_OUT = 16                 # blocks that are being written
    FEW_OUT = 4
    SHORT_TEXT = 256              # bytes of a name, an id, a reason
    SPAN_BUDGET = 200             # traced exchanges between two flushes: clients choose whether they are traced

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
cdef class Outlet(Home):
    """A buffer of lines, and where it is handed over to. Only a Journal makes them."""

    def __dealloc__(self):
        free(self.block)

    cdef void open(self, uint8_t format, object sink, bint queries) except *:
        # What was formatted before is handed over first.
        if self.used:
            self.hand_over()
        self.sink = sink
        self.spool = sink if isinstance(sink, Spool) else None
        self.format = format if sink is not None else LOG_OFF
        self.queries = queries
        self.second = -1
        self.stamp_size = 0

    cdef unsigned char* room(self) noexcept:
        if self.block != NULL and BLOCK_SIZE - self.used >= MAX_LINE:
            return self.block + self.used
        if self.used:
            try:
                self.hand_over()
            except Exception:
                return NULL
        if self.out >= MOST_OUT:
            self.reap()
        if self.block == NULL and self.out < MOST_OUT:
            self.block = <unsigned char*>malloc(BLOCK_SIZE)
        return self.block

    cdef void hand_over(self) except *:
        cdef Lines lines = Lines.__new__(Lines)
        lines.home = self
        lines.data = self.block
        lines.size = self.used
        lines.records = self.lines
        self.block = NULL
        self.used = self.lines = 0
        self.out += 1
        if self.spool is not None:
            self.spool.put(KIND_LINES, lines, -1)
        else:
            self.sink(lines)

    cdef void reap(self) noexcept:
        if self.spool is not None:
            self.spool.reap()

    cdef void flush(self) except *:
        self.reap()
        # To whoever has got behind a block goes when it is full: small ones would soon be all there may be.
        if self.used and self.out < FEW_OUT:
            self.hand_over()

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

    cdef Text shown(self, Text target) noexcept:
        cdef uint32_t i
        if not self.queries:
            for i in range(target.size):
                if target.data[i] == c"?":
                    target.size = i
                    break
        return target


@cython.final
cdef class Journal:
    """Where the exchanges of a process are recorded. `codes` are the contract's failure codes by number.

    Not thread-safe: its Lines may be let go by any thread that holds the interpreter's lock.
    """

    def __cinit__(self, codes=()):
        self.codes = tuple(bytes(code) for code in codes)
        self.log = Outlet.__new__(Outlet)
        self.spans = Outlet.__new__(Outlet)
        self.failures = <Failure*>calloc(KEPT_FAILURES, sizeof(Failure))
        if self.failures == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.failures)

    def write(self, str format not None, sink, bint queries=True) -> None:
        """From now on format records ("json", "combined" or "off") and pass blocks of lines to `sink`.

        What was formatted before is handed over first. Targets are written with their query where `queries` says so.
        """
        formats = {"off": LOG_OFF, "json": LOG_JSON, "combined": LOG_COMBINED}
        if format not in formats:
            raise ValueError(f"a format is off, json or combined, not {format}")
        self.log.open(formats[format], sink, queries)
        self.flush()

    def trace(self, sink, bint begin=False, double ratio=0.0) -> None:
        """From now on trace, and pass blocks of JSON lines about traced exchanges to `sink`; None: trace no more.

        `begin`: a trace is begun where a request has none; `ratio`, from 0 to 1, of these are sampled.
        """
        self.spans.open(LOG_JSON, sink, False)
        self.tracing.on = sink is not None
        self.tracing.begin = begin
        self.tracing.threshold = threshold_of(ratio)
        self.flush()

    @property
    def records(self) -> int:
        """Records of the access log."""
        return self.log.records

    @property
    def dropped(self) -> int:
        """Of these: lost, since nothing takes them fast enough."""
        return self.log.dropped

    @property
    def traced(self) -> int:
        """Exchanges that were traced."""
        return self.spans.records

    @property
    def untold(self) -> int:
        """Spans of these that were lost."""
        return self.spans.dropped

    def flush(self) -> None:
        """Hand over what is there, and look at the clock: call it a few times a second."""
        cdef timespec wall, now
        clock_gettime(CLOCK_REALTIME, &wall)
        clock_gettime(CLOCK_MONOTONIC, &now)
        self.offset_us = (
            (<int64_t>wall.tv_sec - <int64_t>now.tv_sec) * 1000000
            + (<int64_t>wall.tv_nsec - <int64_t>now.tv_nsec) // 1000
        )
        self.budget = SPAN_BUDGET
        self.log.flush()
        self.spans.flush()

    def last_failures(self) -> list[dict[str, object]]:
        """Return the last exchanges that ended early, the latest first: `code` is a number."""
        cdef uint64_t i
        cdef uint64_t count = self.failed if self.failed < KEPT_FAILURES else KEPT_FAILURES
        return [failure_row(&self.failures[(self.failed - 1 - i) % KEPT_FAILURES]) for i in range(count)]

    cdef void because(self, const unsigned char* reason, size_t size) noexcept:
        self.reason.data = reason
        self.reason.size = <uint32_t>(size if size < SHORT_TEXT else SHORT_TEXT)

    cdef void add(self, Record* record) noexcept:
        if record.reason.size == 0:
            record.reason = self.reason
        if record.failure:
            self.keep_failure(record)
        if self.log.format != LOG_OFF:
            self.log.records += 1
            if not self.put(self.log, record):
                self.log.dropped += 1
        if record.trace.span and self.spans.format != LOG_OFF:
            self.add_span(record)

    cdef bint put(self, Outlet outlet, const Record* record) noexcept:
        cdef int64_t wall_us = <int64_t>record.ended_us + self.offset_us
        cdef unsigned char* begin = outlet.room()
        cdef unsigned char* at
        if begin == NULL:
            return False
        outlet.set_stamp(wall_us)
        if outlet.format == LOG_JSON:
            at = self.put_json(outlet, begin, record, wall_us)
        else:
            at = self.put_combined(outlet, begin, record)
        outlet.used += at - begin
        outlet.lines += 1
        return True

    cdef void add_span(self, const Record* record) noexcept:
        self.spans.records += 1
        if self.budget and self.put(self.spans, record):
            self.budget -= 1
        else:
            self.spans.dropped += 1 if record.joined_us == NEVER else 2

    cdef unsigned char* put_json(self, Outlet outlet, unsigned char* at, const Record* record, int64_t wall_us) noexcept:
        cdef Picked picked
        cdef uint64_t after = record.routed_us
        pick(record.head, &picked)
        at = put(at, b'{"time":"')
        memcpy(at, outlet.stamp, outlet.stamp_size)
        at = put(put_digits(put(at + outlet.stamp_size, b"."), <uint64_t>(wall_us % 1000000), 6), b'Z","port":"')
        at = put_text(at, record.port, SHORT_TEXT)
        at = member(at, b'","client":"', known_or(record.address, picked.client), SHORT_TEXT)
        at = member(at, b'","user":"', known_or(record.user, picked.user), SHORT_TEXT)
        at = member(at, b'","method":"', picked.method, SHORT_TEXT)
        at = member(at, b'","target":"', outlet.shown(picked.target), MAX_TEXT)
        at = member(at, b'","host":"', picked.host, SHORT_TEXT)
        at = member(at, b'","service":"', record.service, SHORT_TEXT)
        at = member(at, b'","tunnel":"', record.tunnel, SHORT_TEXT)
        at = member(at, b'","request_id":"', known_or(record.request_id, picked.request_id), SHORT_TEXT)
        if picked.trace.size >= 35:
            picked.trace.data += 3
            at = member(at, b'","trace_id":"', picked.trace, 32)
        if record.trace.span:
            at = put_span(put(at, b'","span_id":"'), record.trace.span)
        if record.trace.parent:
            at = put_span(put(at, b'","parent_id":"'), record.trace.parent)
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

    cdef unsigned char* put_combined(self, Outlet outlet, unsigned char* at, const Record* record) noexcept:
        cdef Picked picked
        pick(record.head, &picked)
        at = put(or_dash(at, known_or(record.address, picked.client)), b" - ")
        at = put(or_dash(at, known_or(record.user, picked.user)), b" [")
        memcpy(at, outlet.stamp, outlet.stamp_size)
        at = put(at + outlet.stamp_size, b' +0000] "')
        if picked.method.size:
            at = put(put_text(at, picked.method, SHORT_TEXT), b" ")
            at = put(put_text(at, outlet.shown(picked.target), MAX_TEXT), b" ")
            at = put_text(at, picked.version, 16)
        else:
            at = put(at, b"-")
        at = put(put_number(put(at, b'" '), record.status), b" ")
        at = put(put_number(at, record.bytes_out), b' "')
        at = put(or_dash(at, picked.referer), b'" "')
        return put(or_dash(at, picked.agent), b'"\n')

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
        texts[1] = known_or(record.address, picked.client)
        texts[2] = known_or(record.user, picked.user)
        texts[3] = picked.method
        texts[4] = picked.target
        texts[5] = picked.host
        texts[6] = record.service
        texts[7] = record.tunnel
        texts[8] = record.reason
        texts[9] = known_or(record.request_id, picked.request_id)
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


# What this node knows itself, else what the node before it has written into the head.
cdef inline Text known_or(Text known, Text told) noexcept nogil:
    return known if known.size else told


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
