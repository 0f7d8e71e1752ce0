"""Compiled loops over two sessions, for bench/micro: what they cost without Python in between."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memset

from _fastpath.end cimport CODE_CANCEL, HEAD_END, End, detach
from _fastpath.memory cimport iovec
from _fastpath.session cimport Session
from _fastpath.stream cimport SessionOwner, Stream

cdef enum:
    VECTORS = 64
    GATHER = 262144
    BODY = 65536

cdef unsigned char[BODY] body
memset(body, 120, BODY)


cdef class Caller(End):
    """Opens streams, and counts what comes back."""

    cdef uint64_t replies
    cdef uint64_t received

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* data, size_t size, uint32_t flags) noexcept:
        self.take_data(data, size, flags & HEAD_END)

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        cdef End peer = self.peer
        self.received += size
        if size and not end and peer is not None:
            peer.consumed(size)
        if end:
            self.replies += 1     # not detached: one Caller stands for all streams, the sessions forget it

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        detach(self)


cdef class Answerer(SessionOwner):
    """Answers every stream: with one frame, or with a body of `total` bytes as credit allows."""

    cdef uint32_t head_size
    cdef uint32_t body_size
    cdef uint64_t total
    cdef Source source

    cdef void on_open(self, Stream stream, const unsigned char* meta, size_t meta_size,
                      const unsigned char* head, size_t head_size,
                      const unsigned char* data, size_t size, uint32_t flags) noexcept:
        if self.total == 0:
            stream.take_head(body, self.head_size, body, self.body_size, HEAD_END)
            return
        self.source = Source()
        self.source.left = self.total
        self.source.peer = stream
        stream.peer = self.source
        stream.take_head(body, self.head_size, body, 0, 0)
        self.source.on_room()


cdef class Source(End):
    """Passes a long body on, straight into reserved memory."""

    cdef uint64_t left

    cdef void on_room(self) noexcept:
        cdef size_t capacity = 0
        while self.left and self.peer is not None:
            if self.peer.reserve(&capacity) == NULL:
                return
            if capacity > self.left:
                capacity = <size_t>self.left
            self.left -= capacity
            self.peer.commit(capacity, self.left == 0)

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        detach(self)


cdef class Loop:
    """A dialling and an accepting session, wired together."""

    cdef Session near
    cdef Session far
    cdef Answerer answerer

    def __init__(self, uint32_t head_size=300, uint32_t body_size=1024, uint64_t total=0):
        cdef dict limits = {
            "local_window": 1 << 20, "peer_window": 1 << 20, "local_streams": 10000, "peer_streams": 10000,
            "silence_us": 5_000_000, "tunnel_memory": 64 << 20,
        }
        self.answerer = Answerer()
        self.answerer.head_size = head_size
        self.answerer.body_size = body_size
        self.answerer.total = total
        self.near = Session(SessionOwner(), dialled=True, **limits)
        self.far = Session(self.answerer, dialled=False, **limits)

    def close(self) -> None:
        """End both sessions: they are outside the garbage collector."""
        self.near.abort(CODE_CANCEL, b"")
        self.far.abort(CODE_CANCEL, b"")

    cdef size_t carry(self, Session source, Session sink) noexcept:
        cdef iovec[VECTORS] vectors
        cdef size_t total = 0
        cdef int count
        cdef int index
        source.now_us += 1
        sink.now_us += 1
        count = source.gather(vectors, VECTORS, GATHER)
        for index in range(count):
            sink.receive(<unsigned char*>vectors[index].iov_base, vectors[index].iov_len)
            total += vectors[index].iov_len
        source.sent(total)
        return total

    def requests(self, uint64_t count, uint32_t batch, uint32_t head_size=300) -> int:
        """Send `count` requests, `batch` at a time; returns how many were answered."""
        cdef Caller caller = Caller()
        cdef uint64_t opened = 0
        cdef uint32_t index
        cdef Stream stream
        while opened < count:
            for index in range(batch):
                stream = self.near.open(caller)
                if stream is None:
                    break
                stream.take_head(body, head_size, NULL, 0, HEAD_END)
                opened += 1
            stream = None
            while self.carry(self.near, self.far):
                pass
            while self.carry(self.far, self.near):
                pass
        return caller.replies

    def bulk(self) -> int:
        """Send one request and read its long response; returns the body's bytes."""
        cdef Caller caller = Caller()
        cdef Stream stream = self.near.open(caller)
        cdef uint64_t replies = caller.replies
        stream.take_head(body, 300, NULL, 0, HEAD_END)
        stream = None
        while caller.replies == replies:
            if not self.carry(self.near, self.far) and not self.carry(self.far, self.near):
                break
        return caller.received
