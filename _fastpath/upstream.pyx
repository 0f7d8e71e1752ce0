"""One exchange after another over a connection to an upstream (HTTP/1.1), the egress. See upstream.pxd."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset, strlen

cimport cython
from _fastpath.backend cimport Backend
from _fastpath.end cimport (
    CODE_CANCEL, CODE_OVERLOADED, CODE_PROTOCOL, CODE_UNREACHABLE,
    CODE_UPSTREAM_PROTOCOL, CODE_UPSTREAM_TIMEOUT,
    HEAD_END, MAYBE_SENT, NEVER_SENT, SENT, End, detach,
)
from _fastpath.exchange cimport settle
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, Head, chunk_size_line, trailers_canonical,
)
from _fastpath.memory cimport ByteQueue
from _fastpath.pool cimport POOL_IDLE_MS
from _fastpath.record cimport Record, since, text_of
from _fastpath.socket cimport RECV_AGAIN, connect_error, peek_alive, uncork
from _fastpath.tls cimport TLS_MORE
from _fastpath.trace cimport TRACE_ROOM, trace_head
from _fastpath.upgrade cimport asked_in

cdef enum:
    READ_STEPS = 8                # reads in one turn; the rest waits for the others
    HELD_LIMIT = 65536            # of a request that is kept for a second try

cdef const char* LAST_CHUNK = b"0\r\n\r\n"
cdef const char* CRLF = b"\r\n"


@cython.final
@cython.no_gc
cdef class Upstream(ReplyReader):
    """One connection to an upstream."""

    def __dealloc__(self):
        free(self.held)

    cdef void begin(self, const Head* head) noexcept:
        # A new exchange; take_head follows.
        self.method_id = head.method_id
        self.idempotent = head.idempotent
        self.request_framing = head.framing
        self.request_left = head.content_length if head.framing == BODY_LENGTH else 0
        self.request_done = self.reply_begun = self.touched = False
        self.total_deadline_ms = (
            self.reactor.now_ms + self.service.settings.total_timeout if self.service.settings.total_timeout else 0
        )
        self.asks_upgrade = head.upgrade
        self.upgrade = None
        self.keep_alive = True
        self.unreported = 0
        self.starved = False
        self.status = self.failure = 0
        self.reason.size = 0
        self.delivery = MAYBE_SENT
        self.tries = 1
        self.request_seen = self.reply_seen = self.replied_us = 0
        self.trace.span = self.trace.parent = 0
        self.begun_us = self.reactor.now_us
        self.joined_us = self.begun_us if self.state == UPSTREAM_RUNNING else 0

    # --- the connection ---------------------------------------------------

    cdef void on_ready(self) noexcept:
        cdef int steps = READ_STEPS
        if self.state == UPSTREAM_CONNECTING:
            if not (self.writable or self.broken):
                return
            self.connected()
        elif self.state == UPSTREAM_SHAKING:
            self.shake()
        elif self.state == UPSTREAM_IDLE:
            # What was announced may have been read already, or be of no concern to us (TLS tickets).
            if self.broken or self.hung_up or not self.is_quiet():
                self.drop()       # an answer nobody asked for, or the end
            else:
                self.readable = False
            return
        elif self.state == UPSTREAM_CANCELLED:
            if self.out.size > 0 and self.writable and not self.broken:
                self.flush()
            if self.fd >= 0 and (self.broken or self.readable):
                self.drop()
            return
        if self.fd >= 0 and self.state == UPSTREAM_RUNNING:
            if self.upgraded and self.broken and self.read_over:
                self.lost()       # no read will find out any more
                return
            if self.out.size > 0 and self.writable:
                self.flush()
            while (self.fd >= 0 and self.readable and self.state == UPSTREAM_RUNNING and not self.read_over
                    and self.read_some()):
                steps -= 1
                if steps == 0:
                    self.reactor.queue_ready(self)
                    break

    cdef void connected(self) noexcept:
        if self.broken or connect_error(self.fd) != 0:
            self.service.unreachable(self.backend)
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT, b"the upstream refused the connection")
            return
        if self.tls is None:
            self.ready_for_request()
            return
        self.state = UPSTREAM_SHAKING
        self.shake()

    cdef void shake(self) noexcept:
        # The request has not left, and does not before the service has proven who it is.
        cdef int result
        if self.out.size > 0 and self.writable:
            self.flush()
        result = self.shake_tls()
        if result == TLS_MORE:
            return
        if result == 1 and self.trusts() and self.tls.write_early() == 0:
            self.ready_for_request()
            self.finish_send(self.send_tls())
            return
        self.handshake_failed(self.tls.reason)

    cdef void handshake_failed(self, str reason) noexcept:
        self.service.unreachable(self.backend)
        try:
            self.context.failed(reason)
        except Exception:
            pass                  # it is only told to people
        if not self.next_address():
            self.fail(CODE_UNREACHABLE, NEVER_SENT, b"TLS with the upstream failed")

    cdef bint trusts(self) noexcept:
        # Whether the certificate, which a known CA has signed, is that of the service.
        try:
            self.context.verify(self.tls.connection)
        except Exception as problem:
            self.tls.fail(str(problem))
            return False
        return True

    cdef void ready_for_request(self) noexcept:
        self.state = UPSTREAM_RUNNING
        self.service.connects += 1
        self.joined_us = self.reactor.now_us
        if self.request_done:
            self.await_reply()
        else:
            self.await_body()

    cdef bint next_address(self) noexcept:
        # The request has not left: another address of the service gets it.
        cdef Upstream other
        cdef Backend backend
        if self.peer is None:
            return False
        backend = self.service.choose(self.tried)
        other = <Upstream>self.service.dial(backend, self.tried) if backend is not None else None
        if other is None:
            return False
        other.move_from(self)
        return True

    cdef void move_from(self, Upstream other) noexcept:
        cdef End peer = other.peer
        self.method_id = other.method_id
        self.idempotent = other.idempotent
        self.request_framing = other.request_framing
        self.request_left = other.request_left
        self.total_deadline_ms = other.total_deadline_ms
        self.request_done = other.request_done
        self.unreported = other.unreported
        self.starved = other.starved
        self.asks_upgrade = other.asks_upgrade
        self.upgrade = other.upgrade
        self.keep_alive = True
        self.out = other.out
        memset(&other.out, 0, sizeof(ByteQueue))
        if self.tls is not None:
            self.tls.early = other.tls.early
            memset(&other.tls.early, 0, sizeof(ByteQueue))
        self.held = other.held
        self.held_head = other.held_head
        self.held_body = other.held_body
        other.held = NULL
        self.follow(other)
        self.request_seen = other.request_seen
        detach(other)
        self.peer = peer
        peer.peer = self
        other.drop()

    cdef void on_deadline(self) noexcept:
        if self.state == UPSTREAM_IDLE:
            self.drop()
        elif self.state == UPSTREAM_CANCELLED:
            self.drop()
        elif self.state == UPSTREAM_CONNECTING:
            self.service.unreachable(self.backend)
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT, b"the upstream did not accept the connection in time")
        elif self.state == UPSTREAM_SHAKING:
            self.handshake_failed("the handshake took too long")
        elif self.closing:
            self.drop()
        elif self.upgraded:
            self.fail(CODE_CANCEL, SENT, b"nothing was said for too long")
        elif self.total_deadline_ms and self.reactor.now_ms >= self.total_deadline_ms:
            self.fail(CODE_UPSTREAM_TIMEOUT, SENT if self.request_done else MAYBE_SENT, b"the exchange took too long")
        elif self.reply_begun:
            self.watch(0)
        elif not self.request_done:
            self.watch(0)         # the ingress watches over the request's body
        else:
            self.fail(CODE_UPSTREAM_TIMEOUT, SENT, b"the upstream did not answer in time")

    cdef void watch(self, uint64_t delay_ms) noexcept:
        cdef uint64_t now = self.reactor.now_ms
        cdef uint64_t left
        if self.total_deadline_ms:
            left = self.total_deadline_ms - now if self.total_deadline_ms > now else 1
            if delay_ms == 0 or left < delay_ms:
                delay_ms = left
        self.reactor.arm(self, delay_ms)

    cdef void await_reply(self) noexcept:
        self.watch(self.service.settings.first_byte_timeout)

    cdef void await_body(self) noexcept:
        self.watch(0)             # the ingress watches over it

    cdef void drop(self) noexcept:
        # Closes the connection; whoever was joined has been told.
        if self.state == UPSTREAM_IDLE:
            self.service.forget_idle(self, self.backend)
            self.state = UPSTREAM_RUNNING
        uncork()
        self.settle(False)
        self.clear()
        if self.fd >= 0:
            self.reactor.remove(self)

    cdef void count(self) noexcept:
        self.counted = True
        self.service.begun(self.backend)

    cdef void uncount(self) noexcept:
        # Whoever was joined may be gone before the response is complete: what counts is what was joined.
        if self.counted:
            self.counted = False
            self.service.over(self.backend)

    cdef void settle(self, bint whole) noexcept:
        cdef Record record
        if not self.counted:
            return
        self.uncount()
        self.service.tally.bytes_in += self.request_seen
        self.service.tally.bytes_out += self.reply_seen
        if self.service.meters is not None:
            self.fill(&record)
            if not whole:
                record.status = 0
            settle(self.service.meters, self.service, &record)

    cdef void fill(self, Record* record) noexcept:
        memset(record, 0, sizeof(Record))
        record.head.data = self.held
        record.head.size = self.held_head if self.held != NULL else 0
        record.tunnel = text_of(self.tunnel)
        record.reason = self.reason
        record.ended_us = self.reactor.now_us
        record.trace = self.trace
        record.status = self.status
        record.failure = self.failure
        record.delivery = SENT if self.reply_begun else self.delivery
        record.tries = self.tries
        record.bytes_in = self.request_seen
        record.bytes_out = self.reply_seen
        record.joined_us = since(self.begun_us, self.joined_us)
        record.replied_us = since(self.begun_us, self.replied_us)
        record.total_us = self.reactor.now_us - self.begun_us

    cdef void follow(self, Upstream other) noexcept:
        if other.counted:
            other.uncount()
            self.count()
        self.tunnel = other.tunnel
        self.trace = other.trace
        self.begun_us = other.begun_us
        self.tries = other.tries
        self.delivery = other.delivery

    cdef void on_closed(self) noexcept:
        self.fail(CODE_UPSTREAM_PROTOCOL, MAYBE_SENT, b"the upstream connection was closed")

    cdef void clear(self) noexcept:
        if self.held != NULL:
            free(self.held)
            self.held = NULL
        self.clear_reply()

    cdef void fail(self, uint16_t code, uint8_t delivery, const char* reason) noexcept:
        cdef End peer = self.peer
        if peer is not None:
            self.service.tally.failures[code] += 1
            if (code == CODE_UPSTREAM_PROTOCOL or code == CODE_UPSTREAM_TIMEOUT) and (self.touched or not self.reused):
                self.service.failed(self.backend)     # else an idle connection had just ended: that is nobody's fault
            self.failure = code
            self.delivery = delivery
            self.reason.data = <const unsigned char*>reason
            self.reason.size = <uint32_t>strlen(reason)
            detach(self)
            peer.take_reset(code, delivery, <const unsigned char*>reason, strlen(reason))
        self.drop()

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        # The ingress has lost interest, or is lost: the rest of this response is of no use.
        self.failure = code
        self.reason.data = reason
        self.reason.size = <uint32_t>reason_size
        detach(self)
        if code != CODE_CANCEL and not self.failure:      # a limit of this node, or the tunnel was lost
            self.failure = code
            self.reason.data = reason
            self.reason.size = <uint32_t>(reason_size if reason_size < 256 else 256)
        if self.upgraded:
            self.settle(False)
            uncork()
            self.reset_hard()     # what it has sent and received is not all
            self.reason.size = 0
            return
        self.service.tally.statuses[0] += 1
        if self.state == UPSTREAM_RUNNING and self.request_done and not (self.touched or self.asks_upgrade or self.broken):
            self.wait_for_cancelled()
        else:
            self.drop()
        self.reason.size = 0      # was borrowed

    cdef void wait_for_cancelled(self) noexcept:
        # The upstream has the request and may go on working. It is told that nobody waits (half-close), and counts as busy until
        # it answers or hangs up: a client that asks and cancels cannot raise what it has to do at once (CVE-2023-44487).
        self.state = UPSTREAM_CANCELLED
        self.reason.size = 0      # it was lent for the call only
        self.clear()
        self.end_writing()
        if self.fd >= 0:
            self.reactor.arm(self, self.service.settings.first_byte_timeout)

    # --- the request ------------------------------------------------------

    cdef size_t room(self) noexcept:
        return self.sink_room()

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef bint whole = (flags & HEAD_END) != 0
        head = self.follow_trace(head, &head_size)
        self.hold(head, head_size, body, body_size, whole)
        self.write(head, head_size)
        if self.asks_upgrade and not whole:
            self.upgrade = asked_in(head, head_size)
            self.request_done = True
        elif body_size or whole:
            self.take_data(body, body_size, whole)
        uncork()                  # head and body are only lent for this call
        if self.state == UPSTREAM_RUNNING:
            if self.request_done:
                self.await_reply()
            else:
                self.await_body()

    cdef const unsigned char* follow_trace(self, const unsigned char* head, size_t* size) noexcept:
        # The head as the service gets it: with this node's span in it where the request is traced.
        cdef unsigned char* out
        cdef uint32_t mark = 0
        cdef size_t written
        if self.service.meters is None or not self.service.meters.journal.tracing.on or self.trace.span:
            return head           # what a port's client asks for carries the port's span
        out = self.reactor.borrow(size[0] + TRACE_ROOM)
        if out == NULL:
            return head
        written = trace_head(head, size[0], &self.service.meters.journal.tracing, &self.trace, out, &mark)
        if written == 0:
            return head
        size[0] = written
        return out

    cdef void hold(self, const unsigned char* head, size_t head_size,
                   const unsigned char* body, size_t body_size, bint whole) noexcept:
        # The upstream may be closing this very connection: then a new one gets the request. Without that, the head
        # is held for the record of the exchange.
        self.again_safe = self.reused and whole and self.idempotent and head_size + body_size <= HELD_LIMIT
        if not self.again_safe:
            if self.service.meters is None or self.held != NULL or head_size > HELD_LIMIT:
                return
            body_size = 0
        self.held = <unsigned char*>malloc(head_size + body_size)
        if self.held == NULL:
            self.again_safe = False
            return
        memcpy(self.held, head, head_size)
        memcpy(self.held + head_size, body, body_size)
        self.held_head = <uint32_t>head_size
        self.held_body = <uint32_t>body_size

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        cdef unsigned char* line
        if self.request_framing == BODY_LENGTH:
            if size > self.request_left or (end and size < self.request_left):
                self.fail(CODE_PROTOCOL, MAYBE_SENT, b"the request's body does not have its announced length")
                return
            self.request_left -= size
        elif self.request_framing == BODY_NONE and size:
            self.fail(CODE_PROTOCOL, MAYBE_SENT, b"the request has a body that was not announced")
            return
        if size:
            self.request_seen += size
            self.unreported += size
            if self.upgraded:
                self.reactor.arm(self, self.service.settings.upgraded_timeout)
            if self.request_framing == BODY_CHUNKED:
                line = self.reactor.borrow(20)
                if line == NULL:
                    self.fail(CODE_OVERLOADED, MAYBE_SENT, b"out of memory")
                    return
                self.write(line, <size_t>chunk_size_line(size, line))
            self.write(data, size)
            if self.request_framing == BODY_CHUNKED:
                self.write(CRLF, 2)
        if end:
            if self.request_framing == BODY_CHUNKED:
                self.write(LAST_CHUNK, 5)
            self.request_complete()

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        if size and not trailers_canonical(trailers, size):
            self.fail(CODE_PROTOCOL, MAYBE_SENT, b"the request's trailers are malformed")
        elif size and self.request_framing == BODY_CHUNKED:
            self.write(LAST_CHUNK, 3)
            self.write(trailers, size)
            self.write(CRLF, 2)
            uncork()
            self.request_complete()
        else:
            self.take_data(NULL, 0, True)

    cdef void request_complete(self) noexcept:
        self.request_done = True
        if self.upgraded:
            self.end_writing()
            if self.read_over:
                self.finish_upgraded()
        elif self.state == UPSTREAM_RUNNING and not self.reply_begun:
            self.await_reply()

    cdef void upgrade_begun(self) noexcept:
        self.request_done = False
        self.request_framing = BODY_UNTIL_CLOSE
        self.total_deadline_ms = 0

    cdef void finish_upgraded(self) noexcept:
        # Both directions have ended; what is still to be written is.
        self.settle(True)
        detach(self)
        self.reactor.arm(self, self.service.settings.idle_timeout)
        self.close_gracefully()

    # --- the end of an exchange -------------------------------------------

    cdef void reply_complete(self, bint clean) noexcept:
        # `clean`: nothing came behind the response. Only then is the connection good for another one.
        if self.fd < 0:
            return
        if self.upgraded:
            self.read_over = True
            if self.request_done:
                self.finish_upgraded()
            return
        uncork()
        self.settle(True)
        if self.peer is not None:
            detach(self)
        if (
            clean and self.keep_alive and self.request_done and self.out.size == 0
            and not self.broken and not self.hung_up and not self.service.closed
            and (not self.readable or self.is_quiet())
        ):
            self.readable = False
            self.clear()
            self.state = UPSTREAM_IDLE
            self.reused = True
            self.reactor.arm(self, POOL_IDLE_MS)
            if self.service.put_idle(self, self.backend):
                return
            self.state = UPSTREAM_RUNNING
        self.drop()

    cdef bint is_quiet(self) noexcept:
        if self.tls is None:
            return peek_alive(self.fd)
        return self.receive(self.reactor.scratch, 1) == RECV_AGAIN

    cdef void lost(self) noexcept:
        # The upstream ended or broke the connection in the middle of an exchange.
        if self.again():
            return
        if self.reply_begun:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT, b"the upstream hung up in the middle of its response")
        else:
            self.fail(CODE_UPSTREAM_PROTOCOL, MAYBE_SENT if not self.touched else SENT,
                      b"the upstream hung up before its response")

    cdef bint again(self) noexcept:
        # One second try, on a new connection, of an idempotent request that met a connection that was just
        # being closed (RFC 9112 9.3.1).
        cdef Upstream other
        cdef Backend backend
        cdef End peer = self.peer
        if self.held == NULL or not self.again_safe or self.touched or peer is None:
            return False
        backend = self.service.choose(0)
        other = <Upstream>self.service.dial(backend, 0) if backend is not None else None
        if other is None:
            return False
        self.service.tally.retries += 1
        detach(self)
        peer.peer = other
        other.peer = peer
        other.method_id = self.method_id
        other.idempotent = True
        other.request_framing = self.request_framing
        other.request_left = self.held_body if self.request_framing == BODY_LENGTH else 0
        other.keep_alive = True
        other.follow(self)
        other.tries += 1
        other.take_head(self.held, self.held_head, self.held + self.held_head, self.held_body, HEAD_END)
        self.drop()
        return True
