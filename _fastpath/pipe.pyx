"""Two streams joined. See pipe.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cpython.ref cimport Py_DECREF, Py_INCREF

cimport cython
from _fastpath.end cimport CODE_CANCEL, CODE_OVERLOADED, HEAD_END, MAYBE_SENT, SENT, detach
from _fastpath.memory cimport chunk_data, queue_append, queue_clear, queue_consume


@cython.final
@cython.no_gc
cdef class Pipe(End):
    """One side of two joined streams. Compiled code makes and drives it."""

    def __dealloc__(self):
        queue_clear(&self.queue)
        if self.other != NULL:
            (<Pipe>self.other).other = NULL

    cdef End sink(self):
        return (<Pipe>self.other).peer if self.other != NULL else None

    # --- from our peer, the source ----------------------------------------

    cdef void take_meta(self, const unsigned char* meta, size_t size) noexcept:
        cdef End sink = self.sink()
        if sink is not None:
            sink.take_meta(meta, size)

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef End sink = self.sink()
        cdef size_t part = 0
        if sink is None:
            self.give_up(CODE_CANCEL)
            return
        if body_size:
            part = min(body_size, sink.room())
        sink.take_head(head, head_size, body, part, flags if part == body_size else flags & ~<uint32_t>HEAD_END)
        self.pass_on(part)
        if part < body_size:
            self.keep(body + part, body_size - part, flags & HEAD_END)

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        cdef End sink = self.sink()
        cdef size_t part = 0
        if sink is None:
            self.give_up(CODE_CANCEL)
            return
        if self.queue.size == 0:
            if size:
                part = min(size, sink.room())
            if part or size == 0:
                sink.take_data(data, part, end and part == size)
                self.pass_on(part)
        if part < size:
            self.keep(data + part, size - part, end)
        elif end and self.queue.size:
            self.ended = True

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        cdef End sink = self.sink()
        if sink is None:
            return
        if self.queue.size == 0:
            sink.take_end(trailers, size)
            return
        self.trailers = trailers[:size]
        self.ended = True

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        cdef End sink = self.sink()
        cdef Pipe other = <Pipe>self.other if self.other != NULL else None
        detach(self)
        if other is not None:
            detach(other)
            other.drop()
        if sink is not None:
            sink.take_reset(code, delivery, reason, reason_size)
        self.drop()

    # --- from our peer, the sink of what the other one's has sent ------------

    cdef void on_room(self) noexcept:
        cdef Pipe other = <Pipe>self.other if self.other != NULL else None
        if other is not None:
            other.pump()

    # --- inside -----------------------------------------------------------

    cdef void pass_on(self, size_t size) noexcept:
        if size and self.peer is not None:
            self.peer.consumed(size)

    cdef void keep(self, const unsigned char* data, size_t size, bint end) noexcept:
        if self.sink() is None:
            return                # what was passed before has ended the exchange
        if queue_append(&self.queue, data, size) < 0:
            self.give_up(CODE_OVERLOADED)
            return
        if end:
            self.ended = True
        if not self.held:
            self.held = True
            Py_INCREF(self)
        self.pump()               # registers for room where there is none

    cdef void pump(self) noexcept:
        cdef End sink
        cdef size_t part
        cdef bint last
        while self.queue.size:
            sink = self.sink()
            if sink is None:
                break
            part = sink.room()
            if part == 0:
                return
            part = min(part, <size_t>(self.queue.head.stop - self.queue.head.start))
            last = self.ended and self.trailers is None and part == self.queue.size
            sink.take_data(chunk_data(self.queue.head) + self.queue.head.start, part, last)
            if self.queue.size < part or self.sink() is not sink and not last:
                break             # that has ended the exchange
            queue_consume(&self.queue, part)
            self.pass_on(part)
        sink = self.sink()
        if self.trailers is not None and sink is not None:
            sink.take_end(<const unsigned char*><char*>self.trailers, <size_t>len(self.trailers))
        self.drop()

    cdef void drop(self) noexcept:
        # Nothing more is to be passed.
        queue_clear(&self.queue)
        self.trailers = None
        if self.held:
            self.held = False
            Py_DECREF(self)       # whoever calls has a reference, too

    cdef void give_up(self, uint16_t code) noexcept:
        # The source is told; so is the sink, where there still is one.
        cdef End source = self.peer
        cdef End sink = self.sink()
        cdef Pipe other = <Pipe>self.other if self.other != NULL else None
        detach(self)
        if other is not None:
            detach(other)
            other.drop()
        if source is not None:
            source.take_reset(code, SENT if code == CODE_CANCEL else MAYBE_SENT, NULL, 0)
        if sink is not None:
            sink.take_reset(code, MAYBE_SENT, NULL, 0)
        self.drop()


cdef void link_pipes(Pipe one, Pipe other) noexcept:
    one.other = <PyObject*>other
    other.other = <PyObject*>one
