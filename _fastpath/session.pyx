"""The receiving half of a session, and its life. See session.pxd and docs/protocol.md."""

from cpython.ref cimport Py_INCREF
from libc.string cimport memcpy, strlen

cimport cython
from _fastpath.audit cimport audit
from _fastpath.end cimport (
    CODE_BODY_TOO_LARGE, CODE_CANCEL, CODE_COUNT, CODE_FLOW_CONTROL, CODE_INTERNAL, CODE_OVERLOADED, CODE_PROTOCOL, CODE_REFUSED,
    HEAD_END, HEAD_INTERIM, HEAD_TCP, NEVER_SENT, SENT, End,
)
from _fastpath.frame cimport (
    FLAG_ACK, FLAG_END, FLAG_INTERIM, FRAME_CONTROL, FRAME_DATA, FRAME_GOAWAY, FRAME_HEADER, FRAME_OPEN,
    FRAME_PING, FRAME_REPLY, FRAME_RESET, FRAME_TRAILERS, FRAME_WINDOW, ID_ACCEPTOR, KIND_HTTP, KIND_TCP,
    MAX_CONTROL, MAX_SLOTS, MAX_WINDOW, OPEN_PREFIX, REPLY_PREFIX, frame_check, frame_read, frame_write,
)
from _fastpath.liveness cimport LIFE_DEAD, LIFE_LISTEN, LIFE_SPEAK, life_check, life_measured
from _fastpath.guard cimport guard_take, quota_full, quota_take
from _fastpath.memory cimport (
    Chunk, chunk_bytes, chunk_data, chunk_free, chunk_new, memory_limit, queue_vectors,
)
from _fastpath.output cimport (
    BATCH_TARGET, COMMIT_TARGET, NOT_COMMITTED, Lane, output_clear, output_sent, output_start, output_turn,
    queue_frame, ring_append, ring_start,
)
from _fastpath.slots cimport (
    SLOT_ALIVE, SLOT_UNKNOWN, SlotTable, slots_accept, slots_clear, slots_end, slots_find, slots_pong, slots_take,
)
from _fastpath.stream cimport (
    END_ACCEPTED, END_COMMITTED, END_RECEIVED, HEAD_RECEIVED, REPLIED, WANTS_ROOM,
)
from _fastpath.window cimport credit_add, credit_arrive
from _fastpath.wire cimport BROKER_DEBUG, get_u16, get_u32, get_u64, invariant

cdef enum:
    FIRST_PARTIAL = 1024          # memory for a payload grows with what arrives, not with what is announced
    MESSAGES_LIMIT = 1048576      # queued CONTROL frames, bytes
    PING_US = 500000              # between PINGs while bytes flow
    BYTES_FLOW = 4096             # that is: more than this since the last PING


@cython.final
@cython.no_gc
cdef class Session(Sender):
    """The multiplexer of one tunnel. Compiled code drives it; Python sees counters only."""

    def __cinit__(self, SessionOwner owner not None, *, bint dialled, uint32_t local_window, uint32_t peer_window,
                  uint32_t local_streams, uint32_t peer_streams, uint64_t silence_us, uint64_t tunnel_memory):
        if not 0 < local_window <= MAX_WINDOW or not 0 < peer_window <= MAX_WINDOW:
            raise ValueError("a window must be between 1 and 2147483647")
        if local_streams > MAX_SLOTS or peer_streams > MAX_SLOTS:
            raise ValueError("at most 65535 streams can be announced")
        self.owner = owner
        self.dialled = dialled
        self.error = -1
        self.local_window = local_window
        self.peer_window = peer_window
        self.local_limit = peer_streams
        self.locals.limit = peer_streams
        self.remotes.limit = local_streams
        self.locals.initiator = 0 if dialled else ID_ACCEPTOR
        self.remotes.initiator = ID_ACCEPTOR if dialled else 0
        self.life.silence_us = silence_us
        self.budget.limit = tunnel_memory
        output_start(&self.output)
        ring_start(&self.grants)
        ring_start(&self.wakes)
        self.ping_due = self.control_due = True       # the first output brings the first measurement

    def __dealloc__(self):
        output_clear(&self.output)
        if self.partial != NULL:
            chunk_free(self.partial)
        slots_clear(&self.locals)
        slots_clear(&self.remotes)

    @property
    def why(self) -> str:
        """Why the session is poisoned, for people."""
        return (<bytes><char*>self.reason).decode("utf-8", "replace")

    def counters(self) -> dict[str, int]:
        """Return all counters since the tunnel began."""
        return {
            "frames_in": self.frames_in, "frames_out": self.output.frames,
            "bytes_in": self.bytes_in, "bytes_out": self.output.sent,
            "opened": self.opened, "accepted": self.accepted, "refused": self.refused,
            "resets_in": self.resets_in, "resets_out": self.resets_out, "stalls": self.stalls, "pings": self.pings,
            "window_growths": self.budget.growths, "window_shrinks": self.budget.shrinks,
            "window_bytes": self.budget.promised, "active": self.active, "rtt_us": self.life.rtt_us,
        }

    # --- streams of our own -------------------------------------------------

    cdef Stream open(self, End ingress):
        cdef Stream stream
        cdef uint32_t id
        if self.error >= 0 or self.going_away or self.locals.active >= self.locals.limit:
            return None
        if quota_full(self.quota):
            return None
        if chunk_bytes() > memory_limit():
            return None
        stream = self.new_stream()
        id = slots_take(&self.locals, <void*>stream)
        if id == 0:
            return None
        Py_INCREF(stream)
        stream.start(self, id, True)
        stream.egress = self.egress
        stream.quota = self.quota
        quota_take(self.quota)
        stream.peer = ingress
        ingress.peer = stream
        self.active += 1
        self.opened += 1
        return stream

    # --- bytes in -----------------------------------------------------------

    cdef int receive(self, const unsigned char* data, size_t size) noexcept:
        cdef size_t used
        if self.error >= 0:
            return -1
        if BROKER_DEBUG:
            invariant(not self.receiving, b"receive is not called from inside receive.")
            audit(self)
        self.receiving = True
        self.life.heard_us = self.now_us
        self.bytes_in += size
        while size > 0 and self.error < 0:
            if not self.in_frame:
                used = self.receive_header(data, size)
            elif self.frame.type == FRAME_DATA:
                used = self.receive_data(data, size)
            else:
                used = self.receive_whole(data, size)
            data += used
            size -= used
        self.receiving = False
        self.wake()
        if BROKER_DEBUG:
            audit(self)
        return 0 if self.error < 0 else -1

    cdef size_t receive_header(self, const unsigned char* data, size_t size) noexcept:
        cdef const char* reason = NULL
        cdef size_t used = FRAME_HEADER
        cdef int error
        if self.header_have == 0 and size >= FRAME_HEADER:
            frame_read(data, &self.frame)
        else:
            used = FRAME_HEADER - self.header_have
            if used > size:
                used = size
            memcpy(self.header + self.header_have, data, used)
            self.header_have += <uint32_t>used
            if self.header_have < FRAME_HEADER:
                return used
            self.header_have = 0
            frame_read(self.header, &self.frame)
        self.frames_in += 1
        error = frame_check(&self.frame, &reason)
        if error:
            self.poison(<uint16_t>error, reason)
        elif self.frame.type == FRAME_DATA:
            if self.begin_data() and self.left == 0:
                self.receive_data(data, 0)
        elif self.frame.length == 0:
            self.dispatch(data)
        else:
            self.in_frame = True
        return used

    cdef size_t receive_whole(self, const unsigned char* data, size_t size) noexcept:
        cdef Chunk* chunk = self.partial
        cdef size_t have = chunk.stop if chunk != NULL else 0
        cdef size_t part = self.frame.length - have
        cdef size_t capacity
        cdef SessionOwner owner = self.owner
        if chunk == NULL and part <= size:
            self.in_frame = False
            self.dispatch(data)
            return part
        if part > size:
            part = size
        if chunk == NULL or chunk.capacity < have + part:
            capacity = 2 * have if have else <size_t>FIRST_PARTIAL
            if capacity < have + part:
                capacity = have + part
            if capacity > self.frame.length:
                capacity = self.frame.length
            chunk = chunk_new(capacity)
            if chunk == NULL:
                self.poison(CODE_OVERLOADED, b"no memory")
                return part
            if have:
                memcpy(chunk_data(chunk), chunk_data(self.partial), have)
                chunk_free(self.partial)
            chunk.stop = <uint32_t>have
            self.partial = chunk
        memcpy(chunk_data(chunk) + have, data, part)
        chunk.stop += <uint32_t>part
        if chunk.stop == self.frame.length:
            # Ours while the callbacks run: they may abort the session.
            self.partial = NULL
            self.in_frame = False
            self.dispatch(chunk_data(chunk))
            if owner is not None:
                owner.on_lent_over()
            chunk_free(chunk)
        return part

    cdef void dispatch(self, const unsigned char* data) noexcept:
        cdef uint8_t type = self.frame.type
        cdef SessionOwner owner = self.owner
        if type == FRAME_OPEN:
            self.take_open(data)
        elif type == FRAME_REPLY:
            self.take_reply(data)
        elif type == FRAME_WINDOW:
            self.take_window(data)
        elif type == FRAME_RESET:
            self.take_reset(data)
        elif type == FRAME_TRAILERS:
            self.take_trailers(data)
        elif type == FRAME_PING:
            self.take_ping(data)
        elif type == FRAME_GOAWAY:
            self.take_goaway(data)
        elif type == FRAME_CONTROL and owner is not None:
            owner.on_control(data, self.frame.length)

    cdef Stream find(self, bint* broken):
        # The stream of the current frame. None where the frame is to be ignored, or (*broken) was the last one.
        cdef uint32_t id = self.frame.stream
        cdef SlotTable* table = &self.locals if (id & ID_ACCEPTOR) == self.locals.initiator else &self.remotes
        cdef int state = SLOT_UNKNOWN
        cdef Stream stream
        cdef void* found = slots_find(table, id, &state)
        broken[0] = False
        if state == SLOT_ALIVE:
            stream = <Stream>found
            if not stream.local or stream.lane.first != NOT_COMMITTED:
                return stream
            state = SLOT_UNKNOWN
        if state == SLOT_UNKNOWN:
            broken[0] = True
            self.poison(CODE_PROTOCOL, b"frame of a stream that was never opened")
        return None

    # --- frames of a stream -------------------------------------------------

    cdef bint begin_data(self) noexcept:
        # A DATA header: everything that can be wrong with the frame is known before its first byte.
        cdef bint broken
        cdef Stream stream = self.find(&broken)
        if broken:
            return False
        self.in_frame = True
        self.left = self.frame.length
        if stream is None:
            return True           # of a stream that is over: skipped
        if stream.state & END_RECEIVED:
            self.poison(CODE_PROTOCOL, b"DATA after the end of its direction")
        elif stream.local and not stream.state & HEAD_RECEIVED and stream.kind == KIND_HTTP:
            self.poison(CODE_PROTOCOL, b"DATA before the final REPLY")
        elif credit_arrive(&stream.credit, self.frame.length, self.now_us) != 0:
            self.poison(CODE_FLOW_CONTROL, b"DATA exceeds the stream's window")
        else:
            stream.state |= HEAD_RECEIVED
            return True
        return False

    cdef size_t receive_data(self, const unsigned char* data, size_t size) noexcept:
        cdef size_t part = self.left if self.left < size else size
        cdef bint broken
        cdef bint end
        cdef Stream stream
        cdef End peer
        self.left -= <uint32_t>part
        end = self.left == 0 and self.frame.flags & FLAG_END
        if self.left == 0:
            self.in_frame = False
        stream = self.find(&broken)
        if stream is None:
            return part
        if not guard_take(&stream.guard, part, self.now_us):
            stream.fail(CODE_BODY_TOO_LARGE, b"the request's body is over the agent's own limit")
            return part
        peer = stream.peer
        if end:
            stream.state |= END_RECEIVED
        if peer is not None:
            peer.take_data(data, part, end)
        elif not stream.state & END_ACCEPTED or stream.state & END_COMMITTED:
            # Nobody listens, and nothing of ours is queued that a RESET would drop.
            self.drop(stream, CODE_CANCEL, SENT, NULL, 0)
        if end:
            self.direction_ended(stream)
        return part

    cdef void direction_ended(self, Stream stream) noexcept:
        if stream.session is not None and stream.state & END_COMMITTED:
            self.release(stream)

    cdef void take_open(self, const unsigned char* data) noexcept:
        cdef uint32_t id = self.frame.stream
        cdef uint8_t kind = data[0]
        cdef size_t meta_size = get_u16(data + 2)
        cdef size_t head_size = get_u32(data + 4)
        cdef size_t body_size = self.frame.length - OPEN_PREFIX
        cdef uint32_t flags = HEAD_TCP if kind == KIND_TCP else 0
        cdef const char* reason = NULL
        cdef SessionOwner owner = self.owner
        cdef Stream stream
        if (id & ID_ACCEPTOR) != self.remotes.initiator:
            reason = b"OPEN with the initiator bit of the other side"
        elif kind != KIND_HTTP and kind != KIND_TCP:
            reason = b"OPEN of an unknown kind"
        elif meta_size > body_size or head_size > body_size - meta_size:
            reason = b"OPEN is shorter than its parts"
        else:
            body_size -= meta_size + head_size
            if body_size > self.local_window:
                self.poison(CODE_FLOW_CONTROL, b"OPEN exceeds the stream's window")
                return
            reason = slots_accept(&self.remotes, id)
        if reason != NULL:
            self.poison(CODE_PROTOCOL, reason)
            return
        self.accepted += 1
        if chunk_bytes() > memory_limit():
            slots_end(&self.remotes, id)
            self.refused += 1
            self.send_reset(id, CODE_OVERLOADED, NEVER_SENT, NULL, 0)
            return
        stream = self.new_stream()
        stream.start(self, id, False)
        Py_INCREF(stream)
        self.remotes.slots[id & 0xffff].stream = <void*>stream
        self.active += 1
        stream.kind = kind
        stream.state = HEAD_RECEIVED
        credit_arrive(&stream.credit, <uint32_t>body_size, self.now_us)
        if self.frame.flags & FLAG_END:
            stream.state |= END_RECEIVED
            flags |= HEAD_END
        data += OPEN_PREFIX
        owner.on_open(stream, data, meta_size, data + meta_size, head_size,
                      data + meta_size + head_size, body_size, flags)
        if stream.session is not None and stream.peer is None and not stream.state & END_ACCEPTED:
            stream.reset(CODE_INTERNAL, NEVER_SENT, b"nobody took the stream")

    cdef void take_reply(self, const unsigned char* data) noexcept:
        cdef size_t head_size = get_u32(data)
        cdef size_t body_size = self.frame.length - REPLY_PREFIX
        cdef bint interim = self.frame.flags & FLAG_INTERIM
        cdef bint end = self.frame.flags & FLAG_END
        cdef bint broken
        cdef uint32_t flags = 0
        cdef Stream stream = self.find(&broken)
        cdef End peer
        if stream is None:
            return
        if not stream.local:
            self.poison(CODE_PROTOCOL, b"REPLY from the side that opened the stream")
            return
        if stream.state & (HEAD_RECEIVED | END_RECEIVED):
            self.poison(CODE_PROTOCOL, b"REPLY after the final one")
            return
        if head_size > body_size:
            self.poison(CODE_PROTOCOL, b"REPLY is shorter than its head")
            return
        body_size -= head_size
        if interim and (end or body_size or stream.kind != KIND_HTTP):
            self.poison(CODE_PROTOCOL, b"interim REPLY with a body or an end")
            return
        if credit_arrive(&stream.credit, <uint32_t>body_size, self.now_us) != 0:
            self.poison(CODE_FLOW_CONTROL, b"REPLY exceeds the stream's window")
            return
        stream.state |= REPLIED
        if interim:
            flags = HEAD_INTERIM
        else:
            stream.state |= HEAD_RECEIVED
        if stream.kind == KIND_TCP:
            flags |= HEAD_TCP
        if end:
            stream.state |= END_RECEIVED
            flags |= HEAD_END
        peer = stream.peer
        if peer is not None:
            peer.take_head(data + REPLY_PREFIX, head_size, data + REPLY_PREFIX + head_size, body_size, flags)
        else:
            self.drop(stream, CODE_CANCEL, SENT, NULL, 0)
        if end:
            self.direction_ended(stream)

    cdef void take_trailers(self, const unsigned char* data) noexcept:
        cdef bint broken
        cdef Stream stream = self.find(&broken)
        cdef End peer
        if stream is None:
            return
        if stream.state & END_RECEIVED or not stream.state & HEAD_RECEIVED:
            self.poison(CODE_PROTOCOL, b"TRAILERS outside of a message")
            return
        stream.state |= END_RECEIVED
        peer = stream.peer
        if peer is not None:
            peer.take_end(data, self.frame.length)
        self.direction_ended(stream)

    cdef void take_window(self, const unsigned char* data) noexcept:
        cdef uint32_t size = get_u32(data)
        cdef bint broken
        cdef Stream stream = self.find(&broken)
        if broken:
            return
        if size == 0:
            self.poison(CODE_PROTOCOL, b"WINDOW of nothing")
            return
        if stream is None:
            return
        if credit_add(&stream.credit, size) != 0:
            self.poison(CODE_FLOW_CONTROL, b"WINDOW raises the credit above its maximum")
        elif stream.state & WANTS_ROOM and stream.space() > 0:
            stream.state &= ~WANTS_ROOM
            ring_append(&self.wakes, &stream.wake_link)

    cdef void take_reset(self, const unsigned char* data) noexcept:
        cdef uint16_t code = get_u16(data)
        cdef uint8_t delivery = data[2]
        cdef bint broken
        cdef Stream stream = self.find(&broken)
        cdef End peer
        if broken:
            return
        if delivery > SENT:
            self.poison(CODE_PROTOCOL, b"RESET with an unknown delivery")
            return
        self.resets_in += 1
        if stream is None:
            return
        if code >= CODE_COUNT:
            code = CODE_INTERNAL  # of a newer version
        if stream.local and stream.state & (REPLIED | HEAD_RECEIVED):
            delivery = SENT       # whatever the peer says now
        if code == CODE_REFUSED and delivery == NEVER_SENT and stream.local and self.owner is not None:
            code = self.owner.on_refused(stream.egress)
        stream.delivery = delivery
        peer = stream.peer
        self.release(stream)
        if peer is not None:
            peer.take_reset(code, delivery, data + 4, self.frame.length - 4)

    # --- frames of the tunnel -----------------------------------------------

    cdef void take_ping(self, const unsigned char* data) noexcept:
        if not self.frame.flags & FLAG_ACK:
            # Only the last one is answered: a flood costs nothing.
            memcpy(self.pong, data, 8)
            self.pong_due = self.control_due = True
            self.announce()
        elif self.ping_out and get_u64(data) == self.ping_number:
            self.ping_out = False
            life_measured(&self.life, self.now_us - self.ping_us, self.now_us)
            slots_pong(&self.locals)

    cdef void take_goaway(self, const unsigned char* data) noexcept:
        cdef uint16_t code = get_u16(data)
        cdef SessionOwner owner = self.owner
        self.going_away = True
        if code != CODE_CANCEL:
            self.error = code
            self.remote_error = True
            self.set_reason(data + 4, self.frame.length - 4)
            return
        if owner is not None:
            owner.on_goaway()     # what was opened before goes on, even if it is still queued: the peer takes it

    cdef void end_streams(self, SlotTable* table, uint16_t code, const char* reason) noexcept:
        # Callbacks may end others, or abort.
        cdef uint32_t slot = 0
        cdef uint8_t delivery
        cdef Stream stream
        cdef End peer
        while slot < table.touched:
            if table.slots[slot].stream != NULL:
                stream = <Stream>table.slots[slot].stream
                peer = stream.peer
                delivery = stream.known_delivery()
                self.release(stream)
                if peer is not None:
                    peer.take_reset(code, delivery, <const unsigned char*>reason, strlen(reason))
            slot += 1

    # --- bytes out ----------------------------------------------------------

    cdef int gather(self, iovec* vectors, int slots, size_t limit) noexcept:
        cdef size_t target = <size_t>COMMIT_TARGET if self.output.blocked else <size_t>BATCH_TARGET
        cdef Lane* lane
        if BROKER_DEBUG:
            audit(self)
        self.quiet = True
        if self.control_due:
            self.commit_control()
        if self.error < 0 and not self.control_due:
            while self.output.committed.size < target:
                lane = output_turn(&self.output)
                if lane == NULL:
                    break
                self.after_turn(<Stream>lane.turn.owner)
        self.quiet = False
        if BROKER_DEBUG:
            audit(self)
        return queue_vectors(&self.output.committed, vectors, slots, limit)

    cdef void sent(self, size_t size) noexcept:
        output_sent(&self.output, size)
        if size:
            self.life.spoke_us = self.now_us
        if not self.has_output():
            self.announced = False
        self.wake()
        if BROKER_DEBUG:
            audit(self)

    cdef int control(self, const unsigned char* data, size_t size) noexcept:
        cdef unsigned char* frame
        if self.error >= 0 or size == 0 or size > MAX_CONTROL:
            return -1
        if self.output.messages.size + size > MESSAGES_LIMIT:
            return -1
        frame = queue_frame(&self.output.messages, FRAME_HEADER + size, 0)
        if frame == NULL:
            return -1
        frame_write(frame, <uint32_t>size, FRAME_CONTROL, 0, 0)
        memcpy(frame + FRAME_HEADER, data, size)
        self.output.frames += 1
        self.control_due = True
        self.announce()
        return 0

    # --- life ---------------------------------------------------------------

    cdef int tick(self) noexcept:
        cdef uint64_t since = self.now_us - self.ping_us
        cdef uint8_t due
        if self.error >= 0:
            return -1
        due = life_check(&self.life, self.now_us)
        if due & LIFE_DEAD:
            return -1
        if not self.ping_out and not self.ping_due and (
            self.locals.retired
            or (due & LIFE_LISTEN and since >= self.life.silence_us // 4)
            or (self.bytes_in - self.pinged_at_bytes > BYTES_FLOW and since >= PING_US)
        ):
            self.ping_due = self.control_due = True
            self.pinged_at_bytes = self.bytes_in
        elif due & LIFE_SPEAK:
            self.pong_due = self.control_due = True       # the last answer again: it answers nothing
        if self.has_output():
            self.announce()
        return 0

    cdef void goaway(self, uint16_t code, const char* reason) noexcept:
        if self.error >= 0:
            return
        if code != CODE_CANCEL:
            self.poison(code, reason)
        elif not self.parting:
            self.going_away = self.parting = True
            self.say_goaway(code, reason)

    cdef void abort(self, uint16_t code, const char* reason) noexcept:
        if self.error < 0:
            self.error = code
            self.set_reason(<const unsigned char*>reason, strlen(reason))
        self.end_streams(&self.locals, code, reason)
        self.end_streams(&self.remotes, code, reason)
        output_clear(&self.output)
        if self.partial != NULL:
            chunk_free(self.partial)
            self.partial = NULL
        if self.spare != NULL:
            chunk_free(self.spare)
            self.spare = NULL
        self.control_due = False
        slots_clear(&self.locals)
        slots_clear(&self.remotes)
        self.owner = self.egress = self.quota = None
