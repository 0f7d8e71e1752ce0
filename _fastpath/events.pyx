"""Sessions whose events Python can read, and whose streams Python can drive. For tests only."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

from _fastpath.end cimport HEAD_END, HEAD_INTERIM, HEAD_TCP, End, detach
from _fastpath.memory cimport iovec
from _fastpath.window cimport (
    credit_add, credit_arrive, credit_consume, credit_invariants, credit_spend, credit_start, credit_stop,
    promised_bytes,
)

cdef enum:
    VECTORS = 64


cdef inline bytes copied(const unsigned char* data, size_t size):
    return data[:size] if size else b""


cdef class EventStream(End):
    """One stream, as the End that is joined to it."""

    # --- what happens to it --------------------------------------------------

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        self.home.note(("head", self, copied(head, head_size), copied(body, body_size), flags))

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        self.home.note(("data", self, copied(data, size), bool(end)))

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        self.home.note(("end", self, copied(trailers, size)))

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        detach(self)
        self.home.note(("reset", self, code, delivery, copied(reason, reason_size)))

    cdef void on_room(self) noexcept:
        self.home.note(("room", self))

    # --- what Python does with it --------------------------------------------

    def send_head(self, bytes head not None, bytes body=b"", *, bint end=False, bint interim=False,
                  bint tcp=False, bytes meta=b""):
        """Pass a head, as the source of a message."""
        cdef uint32_t flags = 0
        if end:
            flags |= HEAD_END
        if interim:
            flags |= HEAD_INTERIM
        if tcp:
            flags |= HEAD_TCP
        self.stream.meta = <const unsigned char*><char*>meta
        self.stream.meta_size = <uint16_t>len(meta)
        self.stream.take_head(head, len(head), body, len(body), flags)
        self.home.check()

    def send_data(self, bytes data not None, bint end=False):
        """Pass body bytes."""
        self.stream.take_data(data, len(data), end)
        self.home.check()

    def send_reserved(self, bytes data not None, bint end=False) -> int:
        """Pass as many body bytes as reserved memory takes; returns how many. `end` counts if all went."""
        cdef size_t capacity = 0
        cdef unsigned char* memory = self.stream.reserve(&capacity)
        cdef size_t size = len(data)
        if memory == NULL:
            return 0
        if size > capacity:
            size = capacity
            end = False
        memcpy(memory, <char*>data, size)
        self.stream.commit(size, end)
        self.home.check()
        return size

    def send_end(self, bytes trailers=b""):
        """End the message, with trailers perhaps."""
        self.stream.take_end(trailers, len(trailers))
        self.home.check()

    def cancel(self, int code=0, int delivery=1, bytes reason=b""):
        """Give up, as an End does: detach, then tell the other side."""
        detach(self)
        self.stream.take_reset(<uint16_t>code, <uint8_t>delivery, reason, len(reason))
        self.home.check()

    def reset(self, int code, int delivery=1, bytes reason=b""):
        """End the stream early from this side."""
        self.stream.reset(<uint16_t>code, <uint8_t>delivery, reason)
        self.home.check()

    def fail(self, int code, bytes reason=b""):
        """End the stream early for a reason that this End is told, too."""
        self.stream.fail(<uint16_t>code, reason)
        self.home.check()

    def leave(self):
        """Detach without a word."""
        detach(self)

    def consume(self, size_t size):
        """Report body bytes as done with."""
        self.stream.consumed(size)
        self.home.check()

    def free(self) -> int:
        """Return how many body bytes it takes now."""
        return self.stream.room()

    @property
    def alive(self) -> bool:
        return self.stream.session is not None

    @property
    def window(self) -> int:
        return self.stream.credit.window

    @property
    def send_credit(self) -> int:
        return self.stream.credit.send

    @property
    def queued(self) -> int:
        return self.stream.lane.queue.size


cdef class EventSession(SessionOwner):
    """A session that records its events. Close it: sessions are outside the garbage collector."""

    def __init__(self, *, bint dialled, uint32_t local_window=65536, uint32_t peer_window=65536,
                 uint32_t local_streams=100, uint32_t peer_streams=100,
                 uint64_t silence_us=5_000_000, uint64_t tunnel_memory=64 << 20):
        self.recorded = []
        self.session = Session(
            self, dialled=dialled, local_window=local_window, peer_window=peer_window,
            local_streams=local_streams, peer_streams=peer_streams, silence_us=silence_us,
            tunnel_memory=tunnel_memory,
        )
        self.session.now_us = 1_000_000

    cdef void note(self, tuple event) noexcept:
        self.recorded.append(event)
        if self.on_event is not None:
            try:
                self.on_event(event)
            except BaseException as error:
                self.failure = error

    cdef void check(self) except *:
        failure = self.failure
        if failure is not None:
            self.failure = None
            raise failure

    # --- what happens to it --------------------------------------------------

    cdef void on_open(self, Stream stream, const unsigned char* meta, size_t meta_size,
                      const unsigned char* head, size_t head_size,
                      const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef EventStream end = EventStream.__new__(EventStream)
        end.home = self
        end.stream = stream
        end.id = stream.id
        end.peer = stream
        stream.peer = end
        self.note((
            "open", end, copied(meta, meta_size), copied(head, head_size), copied(body, body_size), flags,
        ))

    cdef void on_control(self, const unsigned char* data, size_t size) noexcept:
        self.note(("control", copied(data, size)))

    cdef void on_goaway(self) noexcept:
        self.note(("goaway",))

    cdef void on_output(self) noexcept:
        self.note(("output",))

    cdef void on_release(self) noexcept:
        self.note(("release",))

    # --- what Python does with it --------------------------------------------

    def events(self) -> list:
        """Return the events since the last call."""
        cdef list events = self.recorded
        self.recorded = []
        return events

    def receive(self, bytes data not None) -> list:
        """Pass bytes from the peer; returns the events since the last call. See `error` afterwards."""
        self.session.receive(data, len(data))
        self.check()
        return self.events()

    def gather(self, size_t limit=1 << 30, take=None) -> bytes:
        """Return what goes to the peer next, and take it as sent; `take`: of these bytes at most."""
        cdef iovec[VECTORS] vectors
        cdef int count = self.session.gather(vectors, VECTORS, limit)
        cdef int index
        cdef list parts = []
        for index in range(count):
            parts.append((<unsigned char*>vectors[index].iov_base)[:vectors[index].iov_len])
        data = b"".join(parts)
        if take is not None:
            data = data[:take]
        self.session.sent(len(data))
        self.check()
        return data

    def gather_all(self) -> bytes:
        """Return all output there is."""
        parts = []
        while True:
            data = self.gather()
            if not data:
                return b"".join(parts)
            parts.append(data)

    def open(self) -> EventStream | None:
        """Open a stream to the peer, or return None."""
        cdef EventStream end = EventStream.__new__(EventStream)
        end.home = self
        end.stream = self.session.open(end)
        if end.stream is None:
            return None
        end.id = end.stream.id
        return end

    def control(self, bytes data not None) -> int:
        return self.session.control(data, len(data))

    def goaway(self, int code=0, bytes reason=b""):
        self.session.goaway(<uint16_t>code, reason)
        self.check()

    def abort(self, int code=18, bytes reason=b"tunnel lost"):
        self.session.abort(<uint16_t>code, reason)
        self.check()

    def tick(self) -> int:
        result = self.session.tick()
        self.check()
        return result

    def has_output(self) -> bool:
        return self.session.has_output()

    def counters(self) -> dict:
        return self.session.counters()

    @property
    def now(self) -> int:
        return self.session.now_us

    @now.setter
    def now(self, uint64_t value):
        self.session.now_us = value

    @property
    def error(self) -> int:
        return self.session.error

    @property
    def why(self) -> str:
        return self.session.why

    @property
    def active(self) -> int:
        return self.session.active

    @property
    def going_away(self) -> bool:
        return self.session.going_away

    @property
    def remote_error(self) -> bool:
        return self.session.remote_error

    @property
    def rtt_us(self) -> int:
        return self.session.life.rtt_us

    @property
    def committed(self) -> int:
        return self.session.output.committed.size

    @property
    def control_queued(self) -> int:
        return self.session.output.control.size

    @property
    def partial_memory(self) -> int:
        return self.session.partial.capacity if self.session.partial != NULL else 0


cdef class EventCredit:
    """The credit of one stream by itself, as a test may drive it."""

    def __init__(self, uint32_t local, uint32_t peer, uint64_t budget=64 << 20, uint64_t now=1):
        self.budget.limit = budget
        credit_start(&self.credit, &self.budget, local, peer, now)

    def spend(self, size_t size) -> int:
        return credit_spend(&self.credit, size)

    def add(self, uint32_t size) -> int:
        return credit_add(&self.credit, size)

    def arrive(self, uint32_t size, uint64_t now=1) -> int:
        return credit_arrive(&self.credit, size, now)

    def consume(self, size_t size, uint64_t now=1, uint64_t rtt=0) -> int:
        return credit_consume(&self.credit, &self.budget, size, now, rtt)

    def stop(self):
        credit_stop(&self.credit, &self.budget)

    def check(self):
        credit_invariants(&self.credit, &self.budget)

    @property
    def send(self) -> int:
        return self.credit.send

    @property
    def receivable(self) -> int:
        return self.credit.receive

    @property
    def held(self) -> int:
        return self.credit.held

    @property
    def window(self) -> int:
        return self.credit.window

    @property
    def promised(self) -> int:
        return self.budget.promised


def promised() -> int:
    """Return what the windows of all sessions of this process have promised."""
    return promised_bytes()
