"""Writing the responses to a client's requests. See response.pxd."""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

cimport cython
from _fastpath.end cimport CODE_OVERLOADED, CODE_UPSTREAM_PROTOCOL, HEAD_END, HEAD_INTERIM, SENT
from _fastpath.forward cimport Reply, write_reply
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, FIELD_BROKER, FIELD_LOOKALIKE, MAX_CANONICAL_HEAD, MAX_FIELDS,
    MAX_INTERIM, Field, Head, ScanLimits, chunk_size_line, scan_response, trailers_canonical,
)
from _fastpath.pace cimport pace_stop
from _fastpath.request cimport CLIENT_RUNNING
from _fastpath.socket cimport uncork
from _fastpath.upgrade cimport switches_to
from _fastpath.websocket cimport GOING_AWAY, GOING_AWAY_SIZE, Frames, between_frames, frames_pass

cdef enum:
    JOIN_BODY = 4096              # a body up to this size is copied behind its head: one piece, one send
    REPLY_SLACK = 1024            # what write_reply may add

cdef const char* LAST_CHUNK = b"0\r\n\r\n"
cdef const char* CRLF = b"\r\n"
cdef Field reply_fields[MAX_FIELDS]
cdef ScanLimits reply_limits      # the upstream's node has applied its own limits already
reply_limits.head = MAX_CANONICAL_HEAD
reply_limits.headers = MAX_FIELDS
reply_limits.uri = MAX_CANONICAL_HEAD


@cython.no_gc
cdef class ResponseWriter(RequestReader):
    """The half of a client connection that responses go out by. Only compiled subclasses are useful."""

    def __dealloc__(self):
        free(self.frames)

    # --- hooks ------------------------------------------------------------

    cdef void finish(self) noexcept:
        pass

    cdef void cut(self) noexcept:
        pass

    # --- the response -----------------------------------------------------

    cdef size_t room(self) noexcept:
        return self.sink_room()

    cdef bint is_last(self) noexcept:
        return self.served >= self.listener.settings.requests

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef const char* reason = NULL
        cdef uint32_t resume = 0
        cdef Head reply
        cdef int result
        reply.fields = reply_fields
        result = scan_response(head, head_size, &reply_limits, self.method_id, &resume, &reply, &reason)
        if self.reply_begun or result <= 0 or <size_t>result != head_size:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
        elif flags & HEAD_INTERIM:
            self.send_interim(head, &reply)
        elif reply.status < 200:
            if switches_to(head, &reply, self.upgrade):
                self.begin_upgrade(head, &reply, body, body_size)
            else:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
        else:
            self.begin_reply(head, &reply, body, body_size, flags)

    cdef void begin_upgrade(self, const unsigned char* data, const Head* head,
                            const unsigned char* body, size_t body_size) noexcept:
        cdef size_t capacity = head.size + REPLY_SLACK
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef Py_ssize_t size = -1
        cdef Reply reply
        memset(&reply, 0, sizeof(reply))
        reply.minor = self.minor
        reply.upgrade = True
        reply.via = <const unsigned char*><char*>self.listener.via
        reply.via_size = <uint32_t>len(self.listener.via)
        if out != NULL:
            size = write_reply(data, head, &reply, out, capacity)
        if size < 0:
            self.fail(CODE_OVERLOADED, SENT)
            return
        self.replied_us = self.reactor.now_us
        self.status = head.status
        self.delivery = SENT
        self.reply_begun = self.upgraded = self.close_after = True
        self.reply_framing = self.framing = BODY_UNTIL_CLOSE
        self.request_left = UINT64_MAX
        self.request_done = self.whole = False
        self.total_deadline_ms = 0
        pace_stop(&self.pace)
        if self.upgrade == b"websocket":
            self.frames = <Frames*>calloc(1, sizeof(Frames))      # NULL: then it can't be told, which is all
        self.watch(self.patience())
        self.write(out, <size_t>size)
        if body_size:
            self.send_body(body, body_size)
        uncork()
        self.reactor.queue_ready(self)        # what the client has sent meanwhile

    # A WebSocket client is told by a Close between two frames of the service that the node, or the service's, goes away. It answers
    # with a Close of its own, which the service gets: so all three end in order. What the service still says is dropped.

    cdef void on_parting(self) noexcept:
        if self.frames == NULL or self.parting or self.frames.closed or self.reply_done:
            return
        self.parting = PARTING_DUE
        if between_frames(self.frames):
            self.say_going_away()

    cdef void say_going_away(self) noexcept:
        self.parting = PARTING_SAID
        self.write(GOING_AWAY, GOING_AWAY_SIZE)

    cdef void send_frames(self, const unsigned char* data, size_t size) noexcept:
        cdef size_t used = 0
        cdef bint now = False
        if self.parting != PARTING_SAID:
            while used < size and not now:
                used += frames_pass(self.frames, data + used, size - used)
                now = self.parting == PARTING_DUE and between_frames(self.frames) and not self.frames.closed
            self.unreported += used
            self.write(data, used)
            if now:
                self.say_going_away()
        if used < size and self.peer is not None:
            self.peer.consumed(size - used)

    cdef bint decline_upgrade(self) noexcept:
        # An ordinary response: the request is over for the service, too. False: something broke over it.
        self.upgrade = None
        self.peer.take_end(NULL, 0)
        return self.state == CLIENT_RUNNING

    cdef void send_interim(self, const unsigned char* data, const Head* head) noexcept:
        cdef uint32_t at
        for at in range(head.field_count):
            if head.fields[at].hop or head.fields[at].known == FIELD_BROKER or head.fields[at].known == FIELD_LOOKALIKE:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT)       # canonical heads have none (docs/protocol.md)
                return
        if head.status >= 200 or head.status == 101 or head.size > MAX_INTERIM - self.interim_size:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
            return
        self.interim_size += head.size
        if self.minor >= 1:
            self.write(data, head.size)
            uncork()

    cdef void begin_reply(self, const unsigned char* data, const Head* head,
                          const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef size_t capacity = head.size + REPLY_SLACK + JOIN_BODY
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef Py_ssize_t size = -1
        cdef Reply reply
        if self.upgrade is not None and not self.decline_upgrade():
            return
        self.replied_us = self.reactor.now_us
        self.status = head.status
        self.delivery = SENT
        self.reply_framing = head.framing
        self.reply_left = head.content_length if head.framing == BODY_LENGTH else 0
        if head.framing == BODY_CHUNKED and self.minor == 0:
            self.reply_framing = BODY_UNTIL_CLOSE
        self.close_after = (
            not self.keep_alive or not self.request_done or self.listener.stopping or self.is_last()
            or self.reply_framing == BODY_UNTIL_CLOSE
        )
        reply.minor = self.minor
        reply.close = self.close_after
        reply.keep_alive_10 = self.minor == 0 and not self.close_after
        reply.upgrade = False
        reply.via = <const unsigned char*><char*>self.listener.via
        reply.via_size = <uint32_t>len(self.listener.via)
        if out != NULL:
            size = write_reply(data, head, &reply, out, capacity - JOIN_BODY)
        if size < 0:
            self.fail(CODE_OVERLOADED, SENT)
            return
        self.reply_begun = True
        pace_stop(&self.pace)
        self.watch(0)
        if self.reply_framing == BODY_LENGTH and body_size <= JOIN_BODY and body_size <= self.reply_left:
            # Head and body are one piece: one plain send.
            memcpy(out + size, body, body_size)
            self.reply_left -= body_size
            self.reply_seen += body_size
            self.unreported += body_size
            self.reactor.arena_used -= capacity - <size_t>size - body_size
            self.write(out, <size_t>size + body_size)
        else:
            self.reactor.arena_used -= capacity - <size_t>size
            self.write(out, <size_t>size)
            if body_size:
                self.send_body(body, body_size)
                uncork()          # the body is only lent for this call
        if flags & HEAD_END and self.reply_begun and self.state == CLIENT_RUNNING:
            self.end_reply()

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        if not self.reply_begun:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
            return
        if size:
            self.send_body(data, size)
        if end and self.state == CLIENT_RUNNING and self.peer is not None:
            self.end_reply()

    cdef void send_body(self, const unsigned char* data, size_t size) noexcept:
        cdef unsigned char* line
        if self.reply_framing == BODY_LENGTH:
            if size > self.reply_left:
                self.cut()        # more than was announced
                return
            self.reply_left -= size
        elif self.reply_framing == BODY_NONE:
            self.cut()
            return
        self.reply_seen += size
        if self.upgraded:
            self.watch(self.patience())
            if self.frames != NULL:
                self.send_frames(data, size)
                return
        self.unreported += size
        if self.reply_framing == BODY_CHUNKED:
            line = self.reactor.borrow(20)
            if line == NULL:
                self.cut()
                return
            self.write(line, <size_t>chunk_size_line(size, line))
        self.write(data, size)
        if self.reply_framing == BODY_CHUNKED:
            self.write(CRLF, 2)

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        if not self.reply_begun:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
            return
        if size and not trailers_canonical(trailers, size):
            self.cut()            # they would be read as whatever they are: another response
            return
        if size and self.reply_framing == BODY_CHUNKED:
            self.reply_framing = BODY_NONE
            self.write(LAST_CHUNK, 3)
            self.write(trailers, size)
            self.write(CRLF, 2)
            uncork()
        self.end_reply()

    cdef void end_reply(self) noexcept:
        if self.reply_framing == BODY_LENGTH and self.reply_left > 0:
            self.cut()            # less than was announced
            return
        if self.reply_framing == BODY_CHUNKED:
            self.write(LAST_CHUNK, 5)
        self.reply_done = True
        self.finish()
