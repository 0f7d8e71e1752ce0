"""A client's HTTP/1.1 connection, the ingress of its exchanges. See client.pxd."""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset

cimport cython
from _fastpath.answers cimport Answer, answer_for
from _fastpath.end cimport (
    CODE_BAD_CODING, CODE_BAD_REQUEST, CODE_BAD_VERSION, CODE_BODY_TOO_LARGE, CODE_CANCEL, CODE_HEAD_TOO_LARGE,
    CODE_INTERNAL, CODE_NO_AGENT, CODE_NO_SERVICE, CODE_OVERLOADED, CODE_REFUSED, CODE_REQUEST_TIMEOUT,
    CODE_TUNNEL_LOST, CODE_UNREACHABLE, CODE_UPSTREAM_PROTOCOL, CODE_UPSTREAM_TIMEOUT, CODE_URI_TOO_LONG,
    HEAD_END, HEAD_INTERIM, MAYBE_SENT, NEVER_SENT, SENT, End,
)
from _fastpath.exchange cimport JOIN_WAIT, JOINED, Egress, detach
from _fastpath.forward cimport Origin, Reply, write_reply, write_request
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, CHUNKED_DATA, CHUNKED_END, CHUNKED_MORE, MAX_FIELDS,
    MAX_CANONICAL_HEAD, MAX_HEAD, METHOD_HEAD, SCAN_CODING, SCAN_HEAD_TOO_LARGE, SCAN_URI_TOO_LONG, SCAN_VERSION,
    ChunkedDecoder, Field, Head, ScanLimits, chunk_size_line, chunked_clear, chunked_next, scan_request, scan_response,
)
from _fastpath.memory cimport chunk_bytes, memory_limit
from _fastpath.pool cimport Pool
from _fastpath.reactor cimport READ_SIZE, PyObject
from _fastpath.record cimport Record
from _fastpath.route cimport Target
from _fastpath.socket cimport OUT_LOW, RECV_AGAIN, uncork

cdef enum:
    SERVE_STEPS = 8               # reads or requests in one turn; the rest waits for the others
    DRAIN_GRACE_MS = 500          # for clients that are idle when their port stops
    LINGER_MS = 2000
    LINGER_BYTES = 1048576
    JOIN_BODY = 4096              # a body up to this size is copied behind its head: one piece, one send
    REPLY_SLACK = 1024            # what write_reply may add

cdef const char* LAST_CHUNK = b"0\r\n\r\n"
cdef const char* CRLF = b"\r\n"
cdef Field request_fields[MAX_FIELDS]
cdef Field reply_fields[MAX_FIELDS]
cdef ScanLimits reply_limits      # of a response head: the upstream's node has applied its own limits already
reply_limits.head = MAX_CANONICAL_HEAD
reply_limits.headers = MAX_FIELDS
reply_limits.uri = MAX_CANONICAL_HEAD


cdef uint16_t scan_code(int error) noexcept:
    if error == SCAN_HEAD_TOO_LARGE:
        return CODE_HEAD_TOO_LARGE
    if error == SCAN_URI_TOO_LONG:
        return CODE_URI_TOO_LONG
    if error == SCAN_VERSION:
        return CODE_BAD_VERSION
    if error == SCAN_CODING:
        return CODE_BAD_CODING
    return CODE_BAD_REQUEST


@cython.final
@cython.no_gc
cdef class Client(Connection):
    """One HTTP/1.1 client connection."""

    def __dealloc__(self):
        free(self.stash)
        free(self.held)
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)

    # --- the connection ---------------------------------------------------

    cdef void accepted(self) noexcept:
        self.readable = self.writable = True
        self.reactor.arm(self, self.settings.idle_timeout)
        self.reactor.queue_ready(self)

    cdef void refuse(self) noexcept:
        self.readable = self.writable = True
        self.answer(CODE_OVERLOADED, NEVER_SENT)

    cdef void drain(self) noexcept:
        # A request may be on its way: whoever sends one within the grace still gets an answer, and
        # with it "Connection: close".
        if self.state == CLIENT_HEAD and self.stash_size == 0:
            self.reactor.arm(self, min(<uint64_t>DRAIN_GRACE_MS, self.settings.idle_timeout))

    cdef void on_ready(self) noexcept:
        cdef int steps = SERVE_STEPS
        if self.broken:
            self.gone()
            return
        while self.fd >= 0 and self.serve():
            steps -= 1
            if steps == 0:
                self.reactor.queue_ready(self)
                break
        if self.fd >= 0 and self.out.size > 0 and self.writable:
            self.flush()

    cdef bint serve(self) noexcept:
        # One step; True where another may follow at once.
        if self.state == CLIENT_HEAD:
            return self.read_head()
        if self.state == CLIENT_RUNNING:
            return not self.request_done and self.pump()
        if self.state == CLIENT_JOIN:
            self.join(NULL)
            return True
        if self.state == CLIENT_LINGER:
            return self.discard()
        return False

    cdef void gone(self) noexcept:
        # The client has left, or is not wanted any more.
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        if self.fd >= 0:
            self.reactor.remove(self)
            self.on_closed()

    cdef void cut(self) noexcept:
        # A response can't be completed: it must not look complete (RFC 9112 8).
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        uncork()
        self.reset_hard()

    cdef void abandon(self, uint16_t code) noexcept:
        cdef End peer = self.peer
        self.stop_waiting()
        if peer is not None:
            detach(self)
            peer.take_reset(code, self.delivery, b"", 0)

    cdef void on_closed(self) noexcept:
        self.abandon(CODE_CANCEL)
        if self.in_flight:
            self.count_finished()
        self.release_held()
        self.drop_stash(self.stash_size)
        self.egress = None
        self.left()

    cdef void linger(self) noexcept:
        # Closing while bytes are unread makes the kernel send a reset, which may overtake the answer.
        self.state = CLIENT_LINGER
        self.drop_stash(self.stash_size)
        self.end_writing()
        self.reactor.arm(self, LINGER_MS if self.out.size == 0 else self.settings.idle_timeout)
        self.reactor.queue_ready(self)

    cdef void depart(self) noexcept:
        # Everything was read; close when everything is written.
        self.state = CLIENT_LINGER
        self.reactor.arm(self, self.settings.idle_timeout)
        self.close_gracefully()

    cdef bint discard(self) noexcept:
        cdef Py_ssize_t count
        if not self.readable:
            return False
        count = self.receive(self.reactor.scratch, READ_SIZE)
        if count == RECV_AGAIN:
            return False
        if count > 0:
            self.lingered += <uint32_t>count
        if count == 0 and self.out.size > 0:
            self.readable = False
            self.close_gracefully()
            return False
        if count <= 0 or self.lingered > LINGER_BYTES:
            self.gone()
            return False
        return True

    cdef void watch(self, uint64_t delay_ms) noexcept:
        cdef uint64_t now = self.reactor.now_ms
        cdef uint64_t left
        if self.total_deadline_ms:
            left = self.total_deadline_ms - now if self.total_deadline_ms > now else 1
            if delay_ms == 0 or left < delay_ms:
                delay_ms = left
        self.reactor.arm(self, delay_ms)

    cdef void on_deadline(self) noexcept:
        if self.state == CLIENT_HEAD:
            if self.need_more:
                self.answer(CODE_REQUEST_TIMEOUT, NEVER_SENT)
            else:
                self.gone()
        elif self.state == CLIENT_LINGER:
            self.gone()
        elif self.state != CLIENT_RUNNING:
            self.answer(CODE_NO_AGENT, NEVER_SENT)
        elif self.total_deadline_ms and self.reactor.now_ms >= self.total_deadline_ms:
            self.fail(CODE_UPSTREAM_TIMEOUT, MAYBE_SENT)
        elif not self.request_done:
            # Who has stalled: the client with its body, or the one that it goes to?
            if self.peer is not None and self.peer.room() == 0:
                self.fail(CODE_UPSTREAM_TIMEOUT, MAYBE_SENT)
            else:
                self.fail(CODE_REQUEST_TIMEOUT, MAYBE_SENT)
        elif not self.reply_begun:
            self.fail(CODE_UPSTREAM_TIMEOUT, SENT)
        elif self.out.size > 0:
            self.cut()            # the reader has stalled
        else:
            self.watch(0)

    cdef void on_sent(self) noexcept:
        if self.state == CLIENT_RUNNING and self.reply_begun:
            self.watch(self.settings.idle_timeout if self.out.size > 0 else 0)
        elif self.state == CLIENT_LINGER and not self.closing:
            self.reactor.arm(self, LINGER_MS if self.out.size == 0 else self.settings.idle_timeout)
        elif self.state == CLIENT_HEAD and self.out.size < OUT_LOW and (self.stash_size > 0 or self.readable):
            self.reactor.queue_ready(self)

    # --- the request's head -----------------------------------------------

    cdef bint read_head(self) noexcept:
        cdef Py_ssize_t count
        if self.out.size >= OUT_LOW:
            return False          # pipelining does not go on while the answers are not read; on_sent continues
        if self.stash_size > 0 and not self.need_more:
            return self.parse(self.stash, self.stash_size)
        if not self.readable:
            return False
        count = self.receive(self.reactor.scratch, READ_SIZE)
        if count == RECV_AGAIN:
            return False
        if count == 0 and self.stash_size == 0 and self.out.size > 0:
            self.readable = False
            self.depart()         # it asks for nothing more, but reads its answers to the end
            return False
        if count <= 0:
            self.gone()
            return False
        if self.stash_size == 0:
            return self.parse(self.reactor.scratch, <size_t>count)
        if not self.keep(self.reactor.scratch, <size_t>count):
            return False
        return self.parse(self.stash, self.stash_size)

    cdef bint parse(self, const unsigned char* data, size_t size) noexcept:
        cdef const char* reason = NULL
        cdef Head head
        cdef int result
        head.fields = request_fields
        result = scan_request(data, size, &self.settings.scan, &self.scan_resume, &head, &reason)
        if self.begun_us == 0:
            self.begun_us = self.reactor.now_us
        if result == 0:
            if not self.need_more:
                self.reactor.arm(self, self.settings.head_timeout)
                self.need_more = True
            if data != self.stash:
                self.keep(data, size)
            return self.fd >= 0
        self.need_more = False
        self.scan_resume = 0
        if result < 0:
            self.answer(scan_code(result), NEVER_SENT)
            return False
        self.begin(data, &head, data + result, size - <size_t>result)
        return True

    cdef void begin(self, const unsigned char* data, const Head* head,
                    const unsigned char* body, size_t body_size) noexcept:
        cdef size_t used = head.size
        cdef int ambiguous = 0
        cdef bint kept
        self.method_id = head.method_id
        self.minor = head.minor
        self.framing = head.framing
        self.idempotent = head.idempotent
        self.keep_alive = head.keep_alive
        self.request_left = head.content_length if head.framing == BODY_LENGTH else 0
        # A small body that came with its head belongs to the request: it can be sent again.
        self.whole = head.framing == BODY_NONE or (
            head.framing == BODY_LENGTH and head.content_length <= body_size and head.content_length <= HELD_BODY
        )
        self.in_flight = True
        self.listener.tally.exchanges += 1
        self.listener.tally.active += 1
        self.egress = self.route(data, head, &ambiguous)
        if isinstance(self.egress, Pool):
            self.settings = (<Pool>self.egress).settings      # the service's own over its port's
        self.total_deadline_ms = (
            self.reactor.now_ms + self.settings.total_timeout if self.settings.total_timeout else 0
        )
        kept = self.hold(data, head, <size_t>self.request_left if self.whole else 0)
        if self.whole:
            used += <size_t>self.request_left
        if data == self.stash:
            self.drop_stash(used)
        elif head.size + body_size > used and not self.keep(data + used, head.size + body_size - used):
            return
        if ambiguous:
            self.answer(CODE_BAD_REQUEST, NEVER_SENT)
        elif self.egress is None:
            self.answer(CODE_NO_SERVICE, NEVER_SENT)
        elif self.request_left > self.settings.body:
            self.answer(CODE_BODY_TOO_LARGE, NEVER_SENT)
        elif not kept or chunk_bytes() > memory_limit():
            self.answer(CODE_OVERLOADED, NEVER_SENT)
        else:
            self.join(head)

    cdef Egress route(self, const unsigned char* data, const Head* head, int* ambiguous):
        cdef const unsigned char* host = data + head.host.start
        cdef const unsigned char* path = data + head.path.start
        cdef Target found = self.listener.local.find(host, head.host.size, path, head.path.size, ambiguous)
        if found is None and not ambiguous[0]:
            found = self.listener.delegated.find(host, head.host.size, path, head.path.size, ambiguous)
        if isinstance(found, Egress):
            return <Egress>found
        return None

    cdef bint hold(self, const unsigned char* data, const Head* head, size_t body_size) noexcept:
        # The canonical request, and its body where that is all there: until the response, it may be sent again.
        cdef size_t capacity = head.size + 2048
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef Origin origin
        cdef Py_ssize_t size
        if out == NULL:
            return False
        origin.address = <const unsigned char*>self.address
        origin.address_size = self.address_size
        origin.scheme = b"http"
        origin.scheme_size = 4
        origin.via = <const unsigned char*><char*>self.listener.via
        origin.via_size = <uint32_t>len(self.listener.via)
        origin.extra = NULL
        origin.extra_size = 0
        origin.trust_forwarded = False
        origin.upgrade = False
        size = write_request(data, head, &origin, out, capacity)
        if size < 0:
            return False
        self.held = <unsigned char*>malloc(<size_t>size + body_size)
        if self.held == NULL:
            return False
        memcpy(self.held, out, <size_t>size)
        memcpy(self.held + size, data + head.size, body_size)
        self.held_head = <uint32_t>size
        self.held_body = <uint32_t>body_size
        return True

    cdef void release_held(self) noexcept:
        if self.held != NULL:
            free(self.held)
            self.held = NULL
            self.held_head = self.held_body = 0

    # --- joining ----------------------------------------------------------

    cdef void join(self, const Head* head) noexcept:
        cdef const char* reason = NULL
        cdef uint32_t resume = 0
        cdef Head again
        cdef int result
        if head == NULL:
            again.fields = request_fields
            if scan_request(self.held, self.held_head, &reply_limits, &resume, &again, &reason) <= 0:
                self.answer(CODE_INTERNAL, NEVER_SENT)
                return
            head = &again
        self.tries += 1
        result = self.egress.join(self, head)
        if result == JOINED:
            self.state = CLIENT_RUNNING
            self.sent_us = self.reactor.now_us
            self.delivery = MAYBE_SENT
            self.send_request()
        elif result != JOIN_WAIT:
            self.answer(<uint16_t>result, NEVER_SENT)
        elif self.settings.agent_wait == 0:
            self.answer(CODE_NO_AGENT, NEVER_SENT)
        elif self.egress.waiting >= self.settings.waiting:
            self.answer(CODE_OVERLOADED, NEVER_SENT)
        else:
            if self.state != CLIENT_JOIN:     # waiting again goes on with the old deadline
                self.reactor.arm(self, self.settings.agent_wait)
            self.state = CLIENT_WAITING
            self.egress.wait(self)

    cdef void wait_over(self) noexcept:
        self.state = CLIENT_JOIN
        self.reactor.queue_ready(self)

    cdef void send_request(self) noexcept:
        cdef size_t body_size = self.held_body
        cdef uint32_t flags = 0
        if self.whole:
            if body_size == 0 or body_size <= self.peer.room():
                flags = HEAD_END
            else:
                body_size = 0
        self.request_seen = body_size
        if flags & HEAD_END:
            self.request_ended()
        else:
            self.watch(self.settings.idle_timeout)
        self.peer.take_head(self.held, self.held_head, self.held + self.held_head, body_size, flags)

    cdef void request_ended(self) noexcept:
        self.request_done = True
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)
            self.decoder = NULL
        if not self.reply_begun:
            self.watch(self.settings.first_byte_timeout)

    # --- the request's body -----------------------------------------------

    cdef bint pump(self) noexcept:
        cdef size_t room
        if self.peer is None:
            return False
        room = self.peer.room()
        if room == 0:
            return False          # on_room continues
        if self.whole:
            return self.pump_held(room)
        if self.stash_size > 0:
            return self.pump_stash(room)
        if not self.readable:
            return False
        if self.framing == BODY_CHUNKED:
            return self.pump_chunked(room)
        return self.pump_length(room)

    cdef bint pump_held(self, size_t room) noexcept:
        cdef const unsigned char* data = self.held + self.held_head + self.request_seen
        cdef size_t left = self.held_body - <size_t>self.request_seen
        cdef size_t size = left if left < room else room
        self.request_seen += size
        if size == left:
            self.request_ended()
        self.peer.take_data(data, size, size == left)
        uncork()
        return self.state == CLIENT_RUNNING and size < left

    cdef bint pump_stash(self, size_t room) noexcept:
        cdef size_t size = self.stash_size if self.stash_size < room else room
        cdef bint end
        if self.framing == BODY_CHUNKED:
            size = self.feed_chunked(self.stash, size)
        else:
            if size > self.request_left:
                size = <size_t>self.request_left
            self.request_left -= size
            self.request_seen += size
            end = self.request_left == 0
            if end:
                self.request_ended()
            self.peer.take_data(self.stash, size, end)
        uncork()                  # the stash may move or go away now
        if self.fd >= 0:
            self.drop_stash(size)
        return self.fd >= 0

    cdef bint pump_length(self, size_t room) noexcept:
        cdef size_t capacity = 0
        cdef unsigned char* memory = self.peer.reserve(&capacity)
        cdef bint direct = memory != NULL
        cdef Py_ssize_t count
        cdef bint end
        if not direct:
            memory = self.reactor.scratch
            capacity = READ_SIZE if room > READ_SIZE else room
        if capacity > self.request_left:
            capacity = <size_t>self.request_left
        count = self.receive(memory, capacity)
        end = count > 0 and <uint64_t>count == self.request_left
        if count > 0:
            self.request_left -= <uint64_t>count
            self.request_seen += <uint64_t>count
            if end:
                self.request_ended()
            else:
                self.watch(self.settings.idle_timeout)
        if direct:
            self.peer.commit(<size_t>count if count > 0 else 0, end)
        elif count > 0:
            self.peer.take_data(memory, <size_t>count, end)
            uncork()
        if count == 0 or (count < 0 and count != RECV_AGAIN):
            self.gone()
        return count > 0

    cdef bint pump_chunked(self, size_t room) noexcept:
        cdef size_t capacity = READ_SIZE if room > READ_SIZE else room
        cdef Py_ssize_t count = self.receive(self.reactor.scratch, capacity)
        cdef size_t used
        if count == RECV_AGAIN:
            return False
        if count <= 0:
            self.gone()
            return False
        self.watch(self.settings.idle_timeout)
        used = self.feed_chunked(self.reactor.scratch, <size_t>count)
        uncork()
        if self.fd >= 0 and self.state != CLIENT_LINGER and used < <size_t>count:
            self.keep(self.reactor.scratch + used, <size_t>count - used)
        return self.fd >= 0

    cdef size_t feed_chunked(self, const unsigned char* data, size_t size) noexcept:
        # Returns how many bytes belonged to the body's encoding.
        cdef const unsigned char* body = NULL
        cdef size_t used = 0, done = 0, body_size = 0
        cdef int event
        if self.decoder == NULL:
            self.decoder = <ChunkedDecoder*>malloc(sizeof(ChunkedDecoder))
            if self.decoder == NULL:
                self.fail(CODE_OVERLOADED, MAYBE_SENT)
                return size
            memset(self.decoder, 0, sizeof(ChunkedDecoder))
        while done < size:
            event = chunked_next(self.decoder, data + done, size - done, &used, &body, &body_size)
            done += used
            if event == CHUNKED_DATA:
                self.request_seen += body_size
                if self.request_seen > self.settings.body:
                    self.fail(CODE_BODY_TOO_LARGE, MAYBE_SENT)
                    return size
                self.peer.take_data(body, body_size, False)
                if self.peer is None:
                    return size   # answered in the meantime: the connection ends
            elif event == CHUNKED_END:
                self.peer.take_end(self.decoder.trailers, self.decoder.trailers_size)
                self.request_ended()
                return done
            elif event != CHUNKED_MORE:
                self.fail(CODE_BAD_REQUEST, MAYBE_SENT)
                return size
        return done

    cdef void on_room(self) noexcept:
        self.reactor.queue_ready(self)

    # --- the stash --------------------------------------------------------

    cdef bint keep(self, const unsigned char* data, size_t size) noexcept:
        cdef size_t need = self.stash_size + size
        cdef size_t capacity = self.stash_capacity
        cdef unsigned char* memory
        if need > capacity:
            capacity = need if capacity * 2 < need else capacity * 2
            memory = <unsigned char*>realloc(self.stash, capacity)
            if memory == NULL or capacity > <size_t>MAX_HEAD * 4:
                if memory != NULL:
                    self.stash = memory
                    self.stash_capacity = <uint32_t>capacity
                self.gone()
                return False
            self.stash = memory
            self.stash_capacity = <uint32_t>capacity
        memcpy(self.stash + self.stash_size, data, size)
        self.stash_size = <uint32_t>need
        return True

    cdef void drop_stash(self, size_t used) noexcept:
        if self.stash == NULL:
            return
        self.stash_size -= <uint32_t>used
        if self.stash_size == 0:
            free(self.stash)
            self.stash = NULL
            self.stash_capacity = 0
        else:
            memmove(self.stash, self.stash + used, self.stash_size)

    # --- the response -----------------------------------------------------

    cdef size_t room(self) noexcept:
        return self.sink_room()

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
            if self.minor >= 1 and 100 <= reply.status < 200 and reply.status != 101:
                self.write(head, head_size)
                uncork()
        elif reply.status < 200:
            self.fail(CODE_UPSTREAM_PROTOCOL, SENT)
        else:
            self.begin_reply(head, &reply, body, body_size, flags)

    cdef void begin_reply(self, const unsigned char* data, const Head* head,
                          const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef size_t capacity = head.size + REPLY_SLACK + JOIN_BODY
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef Py_ssize_t size = -1
        cdef Reply reply
        self.replied_us = self.reactor.now_us
        self.status = head.status
        self.delivery = SENT
        self.reply_framing = head.framing
        self.reply_left = head.content_length if head.framing == BODY_LENGTH else 0
        if head.framing == BODY_CHUNKED and self.minor == 0:
            self.reply_framing = BODY_UNTIL_CLOSE
        self.close_after = (
            not self.keep_alive or not self.request_done or self.listener.stopping
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

    cdef void finish(self) noexcept:
        cdef End peer = self.peer
        cdef bint unread = not self.request_done
        if self.in_flight:
            self.count_finished()
        if peer is not None:
            detach(self)
            if unread:
                peer.take_reset(CODE_CANCEL, SENT, b"", 0)
        if self.fd < 0:
            return
        if not self.close_after:
            self.next_request()
        elif unread or self.stash_size > 0 or self.readable:
            self.linger()
        else:
            self.depart()

    cdef void next_request(self) noexcept:
        self.release_held()
        self.egress = None
        self.settings = self.listener.settings                # which may have been swapped
        self.state = CLIENT_HEAD
        self.tries = 0
        self.begun_us = self.sent_us = self.replied_us = 0
        self.total_deadline_ms = 0
        self.request_left = self.request_seen = self.reply_left = self.reply_seen = 0
        self.unreported = 0
        self.request_done = self.reply_begun = self.reply_done = False
        self.delivery = self.earlier = NEVER_SENT
        self.failure = self.status = 0
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)
            self.decoder = NULL
        if self.listener.stopping:
            self.depart()
            return
        self.reactor.arm(self, self.settings.idle_timeout)
        if self.stash_size > 0 or self.readable:
            self.reactor.queue_ready(self)

    # --- failures ---------------------------------------------------------

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        detach(self)
        if self.reply_begun:
            self.cut()
        elif self.may_retry(code, delivery):
            self.state = CLIENT_JOIN
            self.request_done = False
            self.delivery = NEVER_SENT
            self.earlier = max(self.earlier, delivery)
            self.reactor.arm(self, self.settings.agent_wait)      # should there be nobody else
            self.listener.tally.retries += 1
            self.reactor.queue_ready(self)
        else:
            self.answer(CODE_NO_AGENT if code == CODE_REFUSED else code, delivery)

    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept:
        if not self.whole or self.tries >= MAX_TRIES:
            return False
        if delivery == NEVER_SENT:
            return code == CODE_REFUSED or code == CODE_TUNNEL_LOST or code == CODE_UNREACHABLE
        return delivery == MAYBE_SENT and code == CODE_TUNNEL_LOST and self.idempotent

    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept:
        # This side ends the exchange.
        self.abandon(CODE_CANCEL)
        if self.reply_begun:
            self.cut()
        else:
            self.answer(code, delivery)

    cdef void answer(self, uint16_t code, uint8_t delivery) noexcept:
        cdef const Answer* made
        self.stop_waiting()
        if self.fd < 0:
            return
        if not self.in_flight:    # its head was refused, or never came whole
            self.in_flight = True
            self.listener.tally.exchanges += 1
            self.listener.tally.active += 1
        elif self.whole:
            self.request_done = True      # nothing of it is left to read
        delivery = max(delivery, self.earlier)
        made = answer_for(
            code, delivery,
            not self.request_done or not self.keep_alive or self.minor == 0 or self.listener.stopping,
        )
        self.failure = code
        self.delivery = delivery
        self.status = made.status
        self.close_after = made.close
        self.reply_begun = self.reply_done = True
        if made.data != NULL:
            self.write(made.data, made.head_size if self.method_id == METHOD_HEAD else made.size)
        self.finish()

    cdef void count_finished(self) noexcept:
        cdef Record record
        self.in_flight = False
        self.listener.tally.active -= 1
        self.listener.tally.bytes_in += self.request_seen
        self.listener.tally.bytes_out += self.reply_seen
        self.listener.tally.statuses[self.status // 100 if self.reply_done else 0] += 1
        if self.failure:
            self.listener.tally.failures[self.failure] += 1
        if self.listener.log is not None:
            self.fill(&record)
            self.listener.log.add(&record)

    cdef void fill(self, Record* record) noexcept:
        cdef uint64_t now = self.reactor.now_us
        memset(record, 0, sizeof(Record))
        record.port = self.listener.name_bytes
        record.address = self.address
        record.address_size = self.address_size
        record.head = self.held
        record.head_size = self.held_head
        record.status = self.status if self.reply_done else 0
        record.failure = self.failure
        record.delivery = self.delivery
        record.tries = self.tries
        record.bytes_in = self.request_seen
        record.bytes_out = self.reply_seen
        record.total_us = now - self.begun_us if self.begun_us else 0
        record.joined_us = self.sent_us - self.begun_us if self.sent_us else 0
        record.replied_us = self.replied_us - self.begun_us if self.replied_us else 0
        record.service = <PyObject*>self.egress
