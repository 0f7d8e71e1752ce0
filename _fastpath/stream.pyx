"""Streams and the sending half of a session. See stream.pxd."""

from cpython.ref cimport Py_DECREF
from libc.string cimport memcpy, memset, strlen

cimport cython
from _fastpath.end cimport (
    CODE_CANCEL, CODE_HEAD_TOO_LARGE, CODE_INTERNAL, CODE_OVERLOADED, CODE_PROTOCOL, CODE_REFUSED, HEAD_END, HEAD_INTERIM,
    HEAD_TCP, MAYBE_SENT, NEVER_SENT, SENT, End, detach,
)
from _fastpath.frame cimport (
    FLAG_ACK, FLAG_END, FLAG_INTERIM, FRAME_DATA, FRAME_GOAWAY, FRAME_HEADER, FRAME_OPEN, FRAME_PING, FRAME_REPLY,
    FRAME_RESET, FRAME_TRAILERS, FRAME_WINDOW, KIND_HTTP, KIND_TCP, MAX_DATA, MAX_HEAD_FRAME, MAX_REASON,
    MAX_TRAILER_FRAME, OPEN_PREFIX, REPLY_PREFIX, frame_write,
)
from _fastpath.guard cimport guard_start, quota_give
from _fastpath.memory cimport (
    CHUNK_RESERVE, CHUNK_SIZE, Chunk, chunk_bytes, chunk_data, chunk_free, chunk_new, memory_limit, queue_push,
)
from _fastpath.output cimport (
    COMMIT_TARGET, DIRECT_FRAME, NOT_COMMITTED, lane_clear, lane_start, output_activate, output_commit_queue,
    output_direct, output_frame, queue_frame, ring_append, ring_empty, ring_remove,
)
from _fastpath.slots cimport slots_end, slots_give, slots_ping
from _fastpath.window cimport credit_consume, credit_spend, credit_start, credit_stop
from _fastpath.wire cimport get_u32, put_u16, put_u32, put_u64

cdef extern from "Python.h":
    Py_ssize_t Py_REFCNT(void* object) noexcept nogil


cdef inline size_t lane_capacity(size_t size, size_t queued) noexcept nogil:
    # Small frames get small chunks, and larger ones the more is queued: later bytes are merged into them.
    cdef size_t capacity = 512
    if size > DIRECT_FRAME:
        return CHUNK_SIZE if size <= CHUNK_SIZE else size
    while capacity < size or (capacity < queued and capacity < CHUNK_SIZE):
        capacity *= 2
    return capacity


cdef class SessionOwner:
    """Receives the streams that the other side opens. Only compiled subclasses are useful."""

    cdef void on_open(self, Stream stream, const unsigned char* meta, size_t meta_size,
                      const unsigned char* head, size_t head_size,
                      const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        pass

    cdef void on_control(self, const unsigned char* data, size_t size) noexcept:
        pass

    cdef void on_goaway(self) noexcept:
        pass

    cdef void on_output(self) noexcept:
        pass

    cdef uint16_t on_refused(self, object egress) noexcept:
        return CODE_REFUSED

    cdef void on_release(self) noexcept:
        pass

    cdef void on_lent_over(self) noexcept:
        pass


@cython.final
@cython.no_gc
cdef class Stream(End):
    """One stream of a tunnel, as one side of an exchange. Only sessions make them."""

    cdef void start(self, Sender session, uint32_t id, bint local) noexcept:
        self.session = session
        self.id = id
        self.local = local
        self.kind = KIND_HTTP
        self.delivery = NEVER_SENT
        self.state = self.grant = 0
        self.meta = NULL
        self.meta_size = 0
        self.quota = self.egress = None
        guard_start(&self.guard, session.now_us)
        credit_start(&self.credit, &session.budget, session.local_window, session.peer_window, session.now_us)
        lane_start(&self.lane, <void*>self)
        memset(&self.grant_link, 0, sizeof(self.grant_link))
        memset(&self.wake_link, 0, sizeof(self.wake_link))
        self.grant_link.owner = self.wake_link.owner = <void*>self

    # --- what our peer End asks before it passes body bytes -----------------

    cdef size_t space(self) noexcept:
        cdef size_t queued = self.lane.queue.size
        cdef size_t limit = LANE_LIMIT_TIGHT if self.session.crowded() else LANE_LIMIT
        cdef size_t room
        if queued == 0:
            return self.credit.send if self.credit.send < limit else limit
        if queued >= limit:
            return 0
        room = limit - queued
        if room > self.credit.send:
            room = self.credit.send
        # Something is under way already: rather wait than read a few bytes at a time.
        return room if room >= USEFUL_ROOM else 0

    cdef size_t room(self) noexcept:
        cdef Sender session = self.session
        cdef size_t room
        if session is None or session.error >= 0 or self.state & END_ACCEPTED:
            return 0
        room = self.space()
        if room == 0:
            self.state |= WANTS_ROOM
            if self.credit.send == 0:
                session.stalls += 1
        return room

    cdef unsigned char* reserve(self, size_t* capacity) noexcept:
        cdef Sender session = self.session
        cdef size_t room = self.room()
        capacity[0] = 0
        if room == 0 or not self.state & HEAD_ACCEPTED and not (self.kind == KIND_TCP and not self.local):
            return NULL
        if self.reserved == NULL:
            self.reserved = session.spare
            session.spare = NULL
            if self.reserved == NULL:
                self.reserved = chunk_new(CHUNK_SIZE)
                if self.reserved == NULL:
                    return NULL
        if room > CHUNK_SIZE - CHUNK_RESERVE:
            room = CHUNK_SIZE - CHUNK_RESERVE
        capacity[0] = room
        return chunk_data(self.reserved) + CHUNK_RESERVE

    cdef void commit(self, size_t size, bint end) noexcept:
        cdef Sender session = self.session
        cdef Chunk* chunk = self.reserved
        cdef bint first = self.lane.queue.head == NULL
        self.reserved = NULL
        if chunk == NULL:
            return
        if session is None or size <= DIRECT_FRAME or not self.may_pass_body(size):
            # Few bytes: copied, so that no large chunk is held for them, and used for the next read.
            if session is not None and self.session is not None:
                self.take_data(chunk_data(chunk) + CHUNK_RESERVE, size, end)
            if session is not None and session.spare == NULL and session.error < 0:
                session.spare = chunk
            else:
                chunk_free(chunk)
            return
        credit_spend(&self.credit, size)
        chunk.start = CHUNK_RESERVE - FRAME_HEADER
        chunk.stop = CHUNK_RESERVE + <uint32_t>size
        frame_write(chunk_data(chunk) + chunk.start, <uint32_t>size, FRAME_DATA, FLAG_END if end else 0, self.id)
        queue_push(&self.lane.queue, chunk)
        if first:
            output_activate(&session.output, &self.lane, size + FRAME_HEADER)
        if end:
            self.accept_end()
        session.announce()

    # --- what our peer End passes -------------------------------------------

    cdef unsigned char* begin_frame(self, uint8_t type, uint8_t flags, size_t length) noexcept:
        # Memory for the payload of the stream's next frame. NULL: no memory, the stream has failed.
        cdef Sender session = self.session
        cdef size_t size = FRAME_HEADER + length
        cdef unsigned char* frame = NULL
        cdef Chunk* chunk
        self.guard.moved_us = session.now_us
        if session.control_due:
            session.commit_control()
        if not session.control_due and output_direct(&session.output, &self.lane, size):
            frame = output_frame(&session.output, &self.lane, size)
            if frame != NULL and (flags & FLAG_END or type == FRAME_TRAILERS):
                self.lane.ended = True
        else:
            chunk = chunk_new(lane_capacity(size, self.lane.queue.size))
            if chunk != NULL:
                chunk.stop = <uint32_t>size
                if self.lane.queue.head == NULL:
                    output_activate(&session.output, &self.lane, size)
                queue_push(&self.lane.queue, chunk)
                frame = chunk_data(chunk)
        if frame == NULL:
            self.fail(CODE_OVERLOADED, b"no memory")
            return NULL
        frame_write(frame, <uint32_t>length, type, flags, self.id)
        return frame + FRAME_HEADER

    cdef void take_meta(self, const unsigned char* meta, size_t size) noexcept:
        if size <= MAX_META:
            self.meta = meta
            self.meta_size = <uint16_t>size

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef Sender session = self.session
        cdef size_t prefix = OPEN_PREFIX + self.meta_size if self.local else REPLY_PREFIX
        cdef size_t first = body_size
        cdef uint8_t frame_flags = 0
        cdef unsigned char* payload
        if session is None or session.error >= 0 or self.state & (HEAD_ACCEPTED | END_ACCEPTED):
            return
        if head_size > MAX_HEAD_FRAME - prefix:
            self.fail(CODE_HEAD_TOO_LARGE, b"head is too large for a tunnel")
            return
        if body_size > self.credit.send:
            self.fail(CODE_INTERNAL, b"more body than there is room for")
            return
        if first > MAX_HEAD_FRAME - prefix - head_size:
            first = 0             # goes as DATA behind the head
        if flags & HEAD_END and first == body_size:
            frame_flags = FLAG_END
        if flags & HEAD_INTERIM and not self.local:
            frame_flags = FLAG_INTERIM
        payload = self.begin_frame(FRAME_OPEN if self.local else FRAME_REPLY, frame_flags, prefix + head_size + first)
        if payload == NULL:
            return
        if self.local:
            self.kind = KIND_TCP if flags & HEAD_TCP else KIND_HTTP
            payload[0] = self.kind
            payload[1] = 0
            put_u16(payload + 2, self.meta_size)
            put_u32(payload + 4, <uint32_t>head_size)
            memcpy(payload + OPEN_PREFIX, self.meta, self.meta_size)
        else:
            put_u32(payload, <uint32_t>head_size)
        memcpy(payload + prefix, head, head_size)
        if not frame_flags & FLAG_INTERIM:
            self.state |= HEAD_ACCEPTED
        if first:
            memcpy(payload + prefix + head_size, body, first)
            credit_spend(&self.credit, first)
        if frame_flags & FLAG_END:
            self.accept_end()
        elif first < body_size:
            self.take_data(body, body_size, flags & HEAD_END != 0)
        session.announce()

    cdef bint may_pass_body(self, size_t size) noexcept:
        # The contract between Ends. What breaks it is a bug on this side, which costs the stream, not the tunnel.
        if self.state & END_ACCEPTED:
            return False
        if not self.state & HEAD_ACCEPTED and (self.local or self.kind != KIND_TCP):
            self.fail(CODE_INTERNAL, b"body without a head")
            return False
        if size > self.credit.send:
            self.fail(CODE_INTERNAL, b"more body than there is room for")
            return False
        return True

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        cdef Sender session = self.session
        if session is None or session.error >= 0 or not self.may_pass_body(size):
            return
        credit_spend(&self.credit, size)
        if size == 0:
            if end:
                self.take_end(NULL, 0)
            return
        if self.append(data, size, end):
            if end:
                self.accept_end()
            session.announce()

    cdef bint append(self, const unsigned char* data, size_t size, bint end) noexcept:
        cdef Chunk* tail = self.lane.queue.tail
        cdef unsigned char* frame
        cdef size_t part
        if tail != NULL and chunk_data(tail)[tail.start + 4] == FRAME_DATA:
            # Fill the last frame up first.
            frame = chunk_data(tail) + tail.start
            part = tail.capacity - tail.stop
            if part > MAX_DATA - get_u32(frame):
                part = MAX_DATA - get_u32(frame)
            if part > size:
                part = size
            memcpy(chunk_data(tail) + tail.stop, data, part)
            tail.stop += <uint32_t>part
            self.lane.queue.size += part
            data += part
            size -= part
            put_u32(frame, get_u32(frame) + <uint32_t>part)
            if end and size == 0:
                frame[5] |= FLAG_END
        while size > 0:
            part = CHUNK_SIZE - FRAME_HEADER
            if part > size:
                part = size
            frame = self.begin_frame(FRAME_DATA, FLAG_END if end and part == size else 0, part)
            if frame == NULL:
                return False
            memcpy(frame, data, part)
            data += part
            size -= part
        return True

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        cdef Sender session = self.session
        cdef Chunk* tail = self.lane.queue.tail
        cdef unsigned char* payload
        if session is None or session.error >= 0 or not self.may_pass_body(0):
            return
        if size > 0 and size <= MAX_TRAILER_FRAME:
            payload = self.begin_frame(FRAME_TRAILERS, 0, size)
            if payload == NULL:
                return
            memcpy(payload, trailers, size)
        elif tail != NULL:
            chunk_data(tail)[tail.start + 5] |= FLAG_END
        elif self.begin_frame(FRAME_DATA, FLAG_END, 0) == NULL:
            return
        self.accept_end()
        session.announce()

    cdef void accept_end(self) noexcept:
        # The last frame is written; it may be committed already, and the stream over with it.
        self.state |= END_ACCEPTED
        if self.lane.ended:
            self.state |= END_COMMITTED
            if self.state & END_RECEIVED:
                self.session.release(self)

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        if self.session is not None:
            self.session.drop(self, code, delivery, reason, reason_size)

    cdef void reset(self, uint16_t code, uint8_t delivery, const char* reason) noexcept:
        if self.session is not None:
            self.session.drop(self, code, delivery, <const unsigned char*>reason, strlen(reason))

    cdef void fail(self, uint16_t code, const char* reason) noexcept:
        cdef End peer = self.peer
        cdef uint8_t delivery = self.known_delivery()
        self.reset(code, delivery, reason)
        if peer is not None:
            peer.take_reset(code, delivery, <const unsigned char*>reason, strlen(reason))

    cdef uint8_t known_delivery(self) noexcept:
        if not self.local:
            return MAYBE_SENT
        if self.state & (HEAD_RECEIVED | REPLIED):
            self.delivery = SENT
        elif self.lane.first == NOT_COMMITTED or self.lane.first >= self.session.output.sent:
            self.delivery = NEVER_SENT
        else:
            self.delivery = MAYBE_SENT
        return self.delivery

    # --- what our peer End tells as the sink --------------------------------

    cdef void consumed(self, size_t size) noexcept:
        cdef Sender session = self.session
        cdef uint32_t grant
        if session is None or self.state & END_RECEIVED:
            return                # the peer needs no more credit
        grant = credit_consume(&self.credit, &session.budget, size, session.now_us, session.life.rtt_min_us)
        if grant:
            session.owe_grant(self, grant)


@cython.no_gc
cdef class Sender:
    """The sending half of a session. Only Session is useful."""

    def __dealloc__(self):
        cdef uint32_t index
        for index in range(self.pooled):
            Py_DECREF(<object>self.pool[index])
        if self.spare != NULL:
            chunk_free(self.spare)

    cdef bint crowded(self) noexcept:
        return chunk_bytes() > memory_limit() - (memory_limit() >> 2)

    cdef bint has_output(self) noexcept:
        if self.output.committed.size or self.control_due:
            return True
        return self.error < 0 and not (ring_empty(&self.output.fresh) and ring_empty(&self.output.turns))

    cdef void announce(self) noexcept:
        if not self.announced and self.owner is not None:
            self.announced = True
            self.owner.on_output()

    # --- control frames -----------------------------------------------------

    cdef unsigned char* control_frame(self, uint8_t type, uint32_t stream, size_t length) noexcept:
        cdef unsigned char* frame = queue_frame(&self.output.control, FRAME_HEADER + length, CONTROL_CHUNK)
        if frame == NULL:
            return NULL
        frame_write(frame, <uint32_t>length, type, 0, stream)
        self.output.frames += 1
        self.control_due = True
        return frame + FRAME_HEADER

    cdef unsigned char* committed_frame(self, uint8_t type, uint8_t flags, uint32_t stream, size_t length) noexcept:
        cdef unsigned char* frame = queue_frame(&self.output.committed, FRAME_HEADER + length, CHUNK_SIZE)
        if frame == NULL:
            return NULL
        frame_write(frame, <uint32_t>length, type, flags, stream)
        self.output.position += FRAME_HEADER + length
        self.output.frames += 1
        return frame + FRAME_HEADER

    cdef void commit_ping(self) noexcept:
        cdef unsigned char* payload
        if self.pong_due:
            payload = self.committed_frame(FRAME_PING, FLAG_ACK, 0, 8)
            if payload != NULL:
                memcpy(payload, self.pong, 8)
                self.pong_due = False
        if self.ping_due:
            payload = self.committed_frame(FRAME_PING, 0, 0, 8)
            if payload != NULL:
                self.ping_number += 1
                put_u64(payload, self.ping_number)
                self.ping_due = False
                self.ping_out = True
                self.ping_us = self.now_us
                self.pings += 1
                slots_ping(&self.locals)

    cdef void commit_grants(self) noexcept:
        cdef unsigned char* payload
        cdef Stream stream
        while not ring_empty(&self.grants) and self.output.committed.size < COMMIT_TARGET:
            stream = <Stream>self.grants.next.owner
            payload = self.committed_frame(FRAME_WINDOW, 0, stream.id, 4)
            if payload == NULL:
                return
            put_u32(payload, stream.grant)
            stream.grant = 0
            ring_remove(&stream.grant_link)

    cdef void commit_control(self) noexcept:
        # Stays due while something is left: it goes before the next data then.
        if self.output.committed.size >= COMMIT_TARGET:
            return
        if self.error >= 0:
            self.control_due = not output_commit_queue(&self.output, &self.output.control)
            return
        self.commit_ping()
        if not output_commit_queue(&self.output, &self.output.control):
            return
        self.commit_grants()
        if not output_commit_queue(&self.output, &self.output.messages):
            return
        self.control_due = self.pong_due or self.ping_due or not ring_empty(&self.grants)

    cdef void owe_grant(self, Stream stream, uint32_t size) noexcept:
        if stream.grant == 0:
            ring_append(&self.grants, &stream.grant_link)
        stream.grant += size
        self.control_due = True
        self.announce()

    cdef void send_reset(self, uint32_t id, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        cdef size_t queued = self.output.control.size
        cdef unsigned char* payload
        if queued > CONTROL_BASE + <size_t>CONTROL_PER_STREAM * (self.locals.limit + self.remotes.limit):
            self.poison(CODE_PROTOCOL, b"the peer provokes RESET frames and does not read them")
            return
        if queued > CONTROL_TEXT:
            reason_size = 0
        elif reason_size > MAX_REASON:
            reason_size = MAX_REASON
        payload = self.control_frame(FRAME_RESET, id, 4 + reason_size)
        if payload == NULL:
            self.poison(CODE_OVERLOADED, b"no memory")
            return
        put_u16(payload, code)
        payload[2] = delivery
        payload[3] = 0
        if reason_size:
            memcpy(payload + 4, reason, reason_size)
        self.resets_out += 1
        self.announce()

    cdef void say_goaway(self, uint16_t code, const char* reason) noexcept:
        cdef size_t size = strlen(reason)
        cdef unsigned char* payload
        if size > MAX_REASON:
            size = MAX_REASON
        payload = self.control_frame(FRAME_GOAWAY, 0, 4 + size)
        if payload != NULL:
            put_u16(payload, code)
            put_u16(payload + 2, 0)
            memcpy(payload + 4, reason, size)
        self.announce()

    cdef void set_reason(self, const unsigned char* text, size_t size) noexcept:
        cdef size_t index
        if size > MAX_REASON:
            size = MAX_REASON
        for index in range(size):
            self.reason[index] = <char>(text[index] if text[index] >= 32 and text[index] != 127 else 63)
        self.reason[size] = 0

    cdef void poison(self, uint16_t code, const char* reason) noexcept:
        if self.error >= 0:
            return
        self.error = code
        self.set_reason(<const unsigned char*>reason, strlen(reason))
        self.control_due = False
        self.say_goaway(code, reason)

    # --- after output has moved ---------------------------------------------

    cdef void after_turn(self, Stream stream) noexcept:
        stream.guard.moved_us = self.now_us
        if stream.lane.ended:
            stream.state |= END_COMMITTED
            if stream.state & END_RECEIVED:
                self.release(stream)
            elif stream.peer is None:
                # Nobody listens to the rest of what the other side sends.
                self.drop(stream, CODE_CANCEL, SENT, NULL, 0)
        elif stream.state & WANTS_ROOM and stream.space() > 0:
            stream.state &= ~WANTS_ROOM
            ring_append(&self.wakes, &stream.wake_link)

    cdef void wake(self) noexcept:
        # Callbacks that gather and receive have collected. They may release any stream.
        cdef SessionOwner owner
        cdef Stream stream
        cdef End peer
        while self.released:
            self.released -= 1
            owner = self.owner
            if owner is not None:
                owner.on_release()
        while not ring_empty(&self.wakes):
            stream = <Stream>self.wakes.next.owner
            ring_remove(&stream.wake_link)
            peer = stream.peer
            if peer is not None:
                peer.on_room()

    # --- streams ------------------------------------------------------------

    cdef Stream new_stream(self):
        cdef void* object
        cdef Stream stream
        while self.pooled:
            self.pooled -= 1
            object = self.pool[self.pooled]
            stream = <Stream>object
            Py_DECREF(stream)     # the pool's
            if Py_REFCNT(object) == 1:
                return stream     # nobody has kept a reference: it can be another stream
        return Stream.__new__(Stream)

    cdef void drop(self, Stream stream, uint16_t code, uint8_t delivery,
                   const unsigned char* reason, size_t reason_size) noexcept:
        # A stream whose OPEN was not committed is unknown to the peer.
        if self.error < 0 and not (stream.local and stream.lane.first == NOT_COMMITTED):
            self.send_reset(stream.id, code, delivery, reason, reason_size)
        self.release(stream)

    cdef void release(self, Stream stream) noexcept:
        cdef uint32_t id = stream.id
        cdef SessionOwner owner = self.owner
        if stream.session is None:
            return
        lane_clear(&self.output, &stream.lane)
        ring_remove(&stream.grant_link)
        ring_remove(&stream.wake_link)
        if stream.reserved != NULL:
            chunk_free(stream.reserved)
            stream.reserved = NULL
        credit_stop(&stream.credit, &self.budget)
        if stream.local:
            slots_give(&self.locals, id, stream.lane.first != NOT_COMMITTED)
        else:
            slots_end(&self.remotes, id)
        self.active -= 1
        quota_give(stream.quota)
        stream.session = stream.quota = stream.egress = None
        detach(stream)
        if self.pooled < POOL_SIZE:
            self.pool[self.pooled] = <void*>stream            # the table's reference moves over
            self.pooled += 1
        else:
            Py_DECREF(stream)
        if self.quiet:
            self.released += 1
        elif owner is not None:
            owner.on_release()
