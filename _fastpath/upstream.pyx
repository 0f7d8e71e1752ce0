"""One exchange after another over a connection to an upstream (HTTP/1.1), the egress. See upstream.pxd."""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset, strlen

cimport cython
from _fastpath.end cimport (
    CODE_CANCEL, CODE_OVERLOADED, CODE_PROTOCOL, CODE_UNREACHABLE, CODE_UPSTREAM_PROTOCOL, CODE_UPSTREAM_TIMEOUT,
    HEAD_END, HEAD_INTERIM, MAYBE_SENT, NEVER_SENT, SENT, End,
)
from _fastpath.exchange cimport detach
from _fastpath.forward cimport write_response
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, CHUNKED_DATA, CHUNKED_END, CHUNKED_MORE, MAX_FIELDS,
    MAX_HEAD, MAX_HEADERS, Field, Head, ScanLimits, chunk_size_line, chunked_clear, chunked_next, scan_response,
)
from _fastpath.memory cimport ByteQueue
from _fastpath.pool cimport POOL_IDLE_MS
from _fastpath.reactor cimport READ_SIZE
from _fastpath.socket cimport RECV_AGAIN, connect_error, peek_alive, uncork

cdef enum:
    READ_STEPS = 8                # reads in one turn; the rest waits for the others
    HEAD_BODY = 16384             # of the body that goes along with its head
    HELD_LIMIT = 65536            # of a request that is kept for a second try

cdef const char* LAST_CHUNK = b"0\r\n\r\n"
cdef const char* CRLF = b"\r\n"
cdef Field fields[MAX_FIELDS]
cdef ScanLimits reply_limits
reply_limits.head = 262144
reply_limits.headers = MAX_HEADERS
reply_limits.uri = MAX_HEAD


@cython.final
@cython.no_gc
cdef class Upstream(Socket):
    """One connection to an upstream."""

    def __dealloc__(self):
        free(self.held)
        free(self.stash)
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)

    cdef void begin(self, const Head* head) noexcept:
        # A new exchange; take_head follows.
        self.method_id = head.method_id
        self.idempotent = head.idempotent
        self.request_framing = head.framing
        self.request_left = head.content_length if head.framing == BODY_LENGTH else 0
        self.request_done = self.reply_begun = self.touched = False
        self.keep_alive = True
        self.unreported = 0
        self.starved = False

    # --- the connection ---------------------------------------------------

    cdef void on_ready(self) noexcept:
        cdef int steps = READ_STEPS
        if self.state == UPSTREAM_CONNECTING:
            if not (self.writable or self.broken):
                return
            self.connected()
        elif self.state == UPSTREAM_IDLE:
            self.drop()           # an answer nobody asked for, or the end
            return
        if self.fd >= 0 and self.state == UPSTREAM_RUNNING:
            if self.out.size > 0 and self.writable:
                self.flush()
            while self.fd >= 0 and self.readable and self.state == UPSTREAM_RUNNING and self.read_some():
                steps -= 1
                if steps == 0:
                    self.reactor.queue_ready(self)
                    break

    cdef void connected(self) noexcept:
        if self.broken or connect_error(self.fd) != 0:
            self.service.connect_failures += 1
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT, b"the upstream refused the connection")
            return
        self.state = UPSTREAM_RUNNING
        self.service.next_address = self.address_index
        self.service.connects += 1
        self.await_reply()

    cdef bint next_address(self) noexcept:
        # The request has not left: another address of the service gets it.
        cdef Upstream other
        cdef End peer = self.peer
        if self.addresses_tried >= self.service.address_count or peer is None:
            return False
        other = <Upstream>self.service.dial((self.address_index + 1) % self.service.address_count, self.addresses_tried + 1)
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
        self.request_done = other.request_done
        self.unreported = other.unreported
        self.starved = other.starved
        self.keep_alive = True
        self.out = other.out
        memset(&other.out, 0, sizeof(ByteQueue))
        self.held = other.held
        self.held_head = other.held_head
        self.held_body = other.held_body
        other.held = NULL
        self.counted = other.counted
        other.counted = False
        detach(other)
        self.peer = peer
        peer.peer = self
        other.drop()

    cdef void on_deadline(self) noexcept:
        if self.state == UPSTREAM_IDLE:
            self.drop()
        elif self.state == UPSTREAM_CONNECTING:
            self.service.connect_failures += 1
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT, b"the upstream did not accept the connection in time")
        elif not self.request_done:
            self.await_reply()    # the ingress watches over the request's body
        elif not self.reply_begun:
            self.fail(CODE_UPSTREAM_TIMEOUT, SENT, b"the upstream did not answer in time")

    cdef void await_reply(self) noexcept:
        self.reactor.arm(self, self.service.settings.first_byte_timeout)

    cdef void drop(self) noexcept:
        # Closes the connection; whoever was joined has been told.
        if self.state == UPSTREAM_IDLE:
            self.service.forget_idle(self)
            self.state = UPSTREAM_RUNNING
        uncork()
        self.uncount()
        self.clear()
        if self.fd >= 0:
            self.reactor.remove(self)

    cdef void uncount(self) noexcept:
        # Whoever was joined may be gone before the response is complete: what counts is what was joined.
        if self.counted:
            self.counted = False
            self.service.tally.active -= 1

    cdef void on_closed(self) noexcept:
        self.fail(CODE_UPSTREAM_PROTOCOL, MAYBE_SENT, b"the upstream connection was closed")

    cdef void clear(self) noexcept:
        if self.held != NULL:
            free(self.held)
            self.held = NULL
        if self.stash != NULL:
            free(self.stash)
            self.stash = NULL
        self.stash_size = self.scan_resume = 0
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)
            self.decoder = NULL

    cdef void fail(self, uint16_t code, uint8_t delivery, const char* reason) noexcept:
        cdef End peer = self.peer
        if peer is not None:
            self.service.tally.failures[code] += 1
            detach(self)
            peer.take_reset(code, delivery, <const unsigned char*>reason, strlen(reason))
        self.drop()

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        # The ingress has lost interest, or is lost: the rest of this response is of no use.
        detach(self)
        self.service.tally.statuses[0] += 1
        self.drop()

    # --- the request ------------------------------------------------------

    cdef size_t room(self) noexcept:
        return self.sink_room()

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef bint whole = (flags & HEAD_END) != 0
        if self.reused and whole and self.idempotent and head_size + body_size <= HELD_LIMIT:
            # The upstream may be closing this very connection: then a new one gets the request.
            self.held = <unsigned char*>malloc(head_size + body_size)
            if self.held != NULL:
                memcpy(self.held, head, head_size)
                memcpy(self.held + head_size, body, body_size)
                self.held_head = <uint32_t>head_size
                self.held_body = <uint32_t>body_size
        self.write(head, head_size)
        if body_size or whole:
            self.take_data(body, body_size, whole)
        uncork()                  # head and body are only lent for this call
        if self.state == UPSTREAM_RUNNING:
            self.await_reply()

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
            self.unreported += size
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
        if size and self.request_framing == BODY_CHUNKED:
            self.write(LAST_CHUNK, 3)
            self.write(trailers, size)
            self.write(CRLF, 2)
            uncork()
            self.request_complete()
        else:
            self.take_data(NULL, 0, True)

    cdef void request_complete(self) noexcept:
        self.request_done = True
        if self.state == UPSTREAM_RUNNING and not self.reply_begun:
            self.await_reply()

    # --- the response -----------------------------------------------------

    cdef bint read_some(self) noexcept:
        cdef size_t room
        if not self.reply_begun:
            return self.read_head()
        if self.peer is None:
            return False
        room = self.peer.room()
        if room == 0:
            return False          # on_room continues
        if self.reply_framing == BODY_LENGTH:
            return self.read_length(room)
        if self.reply_framing == BODY_CHUNKED:
            return self.read_chunked(room)
        return self.read_until_close(room)

    cdef void on_room(self) noexcept:
        self.reactor.queue_ready(self)

    cdef bint read_head(self) noexcept:
        # With the body bytes that come along, which may be more than the peer has room for now: those are
        # kept. One read of the head is small; the bulk follows by room.
        cdef Py_ssize_t count = self.receive(self.reactor.scratch, READ_SIZE if self.stash_size == 0 else 4096)
        if count == RECV_AGAIN:
            return False
        if count <= 0:
            self.lost()
            return False
        self.touched = True
        if self.stash_size == 0:
            return self.parse(self.reactor.scratch, <size_t>count)
        if not self.keep(self.reactor.scratch, <size_t>count):
            self.fail(CODE_OVERLOADED, SENT, b"out of memory")
            return False
        return self.parse(self.stash, self.stash_size)

    cdef bint parse(self, const unsigned char* data, size_t size) noexcept:
        cdef const char* reason = NULL
        cdef Head head
        cdef int result
        cdef size_t used = 0
        while used < size:
            head.fields = fields
            result = scan_response(data + used, size - used, &reply_limits, self.method_id,
                                   &self.scan_resume, &head, &reason)
            if result < 0:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT, reason)
                return False
            if result == 0:
                return self.keep_rest(data, used, size)
            self.scan_resume = 0
            used += <size_t>result
            if head.status >= 200:
                return self.begin_reply(data + used - result, &head, size - used)
            if head.status == 101 or self.peer is None:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT, b"the upstream switched protocols unasked")
                return False
            self.interim(data + used - result, &head)
        return self.keep_rest(data, used, size)

    cdef bint keep_rest(self, const unsigned char* data, size_t used, size_t size) noexcept:
        # What is left of the input is the beginning of a head.
        cdef unsigned char* old = self.stash
        if data == old:
            if used == 0:
                return True
            self.stash = NULL
            self.stash_size = 0
        if used < size and not self.keep(data + used, size - used):
            free(old)
            self.fail(CODE_OVERLOADED, SENT, b"out of memory")
            return False
        if data == old:
            free(old)
        return True

    cdef bint keep(self, const unsigned char* data, size_t size) noexcept:
        cdef unsigned char* memory = <unsigned char*>realloc(self.stash, self.stash_size + size)
        if memory == NULL:
            return False
        memcpy(memory + self.stash_size, data, size)
        self.stash = memory
        self.stash_size += <uint32_t>size
        return True

    cdef void interim(self, const unsigned char* data, const Head* head) noexcept:
        cdef unsigned char* out = self.reactor.borrow(head.size + 256)
        cdef Py_ssize_t size
        if out == NULL:
            return
        size = write_response(data, head, out, head.size + 256)
        if size > 0:
            self.peer.take_head(out, <size_t>size, NULL, 0, HEAD_INTERIM)

    cdef bint begin_reply(self, const unsigned char* data, const Head* head, size_t rest) noexcept:
        cdef size_t capacity = head.size + 256
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef const unsigned char* body = data + head.size
        cdef Py_ssize_t size = -1
        cdef size_t part = 0
        cdef bint end = False
        cdef End peer = self.peer
        if peer is None:
            self.drop()
            return False
        if out != NULL:
            size = write_response(data, head, out, capacity)
        if size < 0:
            self.fail(CODE_OVERLOADED, SENT, b"the response's head is too large")
            return False
        self.reply_begun = True
        self.reactor.arm(self, 0)
        self.reply_framing = head.framing
        self.reply_left = head.content_length if head.framing == BODY_LENGTH else 0
        self.keep_alive = head.keep_alive and head.framing != BODY_UNTIL_CLOSE
        self.service.tally.statuses[head.status // 100] += 1
        if head.framing == BODY_NONE or (head.framing == BODY_LENGTH and head.content_length == 0):
            end = True
        elif head.framing == BODY_LENGTH:
            part = rest if rest < self.reply_left else <size_t>self.reply_left
            if part > HEAD_BODY:
                part = 0          # by room, like the rest of it
            self.reply_left -= part
            end = self.reply_left == 0
        if part and part > peer.room():
            self.reply_left += part
            part = 0
            end = False
        self.service.tally.bytes_out += part
        peer.take_head(out, <size_t>size, body, part, HEAD_END if end else 0)
        rest -= part
        if end:
            self.reply_complete(rest == 0)
            return False
        return self.feed_rest(body + part, rest)

    cdef bint feed_rest(self, const unsigned char* data, size_t size) noexcept:
        # Body bytes that were read together with the head: at most READ_SIZE, which a stream's
        # window or a socket's queue takes in nearly every case; what it does not take waits in the stash.
        cdef size_t room, part
        cdef unsigned char* old
        while size > 0 and self.fd >= 0 and self.peer is not None:
            room = self.peer.room()
            if room == 0:
                break
            part = size if size < room else room
            if self.reply_framing == BODY_LENGTH and part > self.reply_left:
                part = <size_t>self.reply_left
            if not self.pass_body(data, part, part < size):
                return False      # over, one way or the other
            data += part
            size -= part
        uncork()
        old = self.stash
        self.stash = NULL
        self.stash_size = 0
        if size > 0 and self.fd >= 0 and self.peer is not None and not self.keep(data, size):
            self.fail(CODE_OVERLOADED, SENT, b"out of memory")
        free(old)
        return self.fd >= 0 and self.peer is not None and self.stash_size == 0

    cdef bint pass_body(self, const unsigned char* data, size_t size, bint more) noexcept:
        # Borrowed body bytes, not more than the peer's room; `more` bytes lie behind them. False: the response is over.
        cdef bint end
        if self.reply_framing == BODY_CHUNKED:
            return self.feed_chunked(data, size)
        end = False
        if self.reply_framing == BODY_LENGTH:
            self.reply_left -= size
            end = self.reply_left == 0
        self.service.tally.bytes_out += size
        self.peer.take_data(data, size, end)
        if end:
            self.reply_complete(not more)
        return not end and self.peer is not None

    cdef bint read_length(self, size_t room) noexcept:
        cdef size_t capacity = 0
        cdef unsigned char* memory
        cdef bint direct
        cdef Py_ssize_t count
        cdef bint end
        if self.stash_size > 0:
            return self.feed_rest(self.stash, self.stash_size)
        if self.reply_left <= HEAD_BODY and self.reply_left <= room:
            return self.read_last(<size_t>self.reply_left)
        memory = self.peer.reserve(&capacity)
        direct = memory != NULL
        if not direct:
            memory = self.reactor.scratch
            capacity = READ_SIZE if room > READ_SIZE else room
        if capacity > self.reply_left:
            capacity = <size_t>self.reply_left
        count = self.receive(memory, capacity)
        end = count > 0 and <uint64_t>count == self.reply_left
        if count > 0:
            self.reply_left -= <uint64_t>count
            self.service.tally.bytes_out += <uint64_t>count
        if direct:
            self.peer.commit(<size_t>count if count > 0 else 0, end)
        elif count > 0:
            self.peer.take_data(memory, <size_t>count, end)
            uncork()
        if end:
            self.reply_complete(True)
            return False
        if count == 0 or (count < 0 and count != RECV_AGAIN):
            self.lost()
        return count > 0

    cdef bint read_last(self, size_t left) noexcept:
        # The small rest of a body, and one look behind it in the same call: a short read says that the
        # connection is idle again.
        cdef Py_ssize_t count = self.receive(self.reactor.scratch, READ_SIZE)
        if count == RECV_AGAIN:
            return False
        if count <= 0:
            self.lost()
            return False
        if not self.pass_body(self.reactor.scratch, <size_t>count if <size_t>count < left else left,
                              <size_t>count > left):
            return False
        uncork()
        return True

    cdef bint read_until_close(self, size_t room) noexcept:
        cdef size_t capacity
        cdef Py_ssize_t count
        if self.stash_size > 0:
            return self.feed_rest(self.stash, self.stash_size)
        capacity = READ_SIZE if room > READ_SIZE else room
        count = self.receive(self.reactor.scratch, capacity)
        if count > 0:
            self.service.tally.bytes_out += <uint64_t>count
            self.peer.take_data(self.reactor.scratch, <size_t>count, False)
            uncork()
            return True
        if count == 0:
            self.peer.take_end(NULL, 0)
            self.reply_complete(False)
        elif count != RECV_AGAIN:
            self.lost()
        return False

    cdef bint read_chunked(self, size_t room) noexcept:
        cdef size_t capacity
        cdef Py_ssize_t count
        cdef bint more
        if self.stash_size > 0:
            return self.feed_rest(self.stash, self.stash_size)
        capacity = READ_SIZE if room > READ_SIZE else room
        count = self.receive(self.reactor.scratch, capacity)
        if count == RECV_AGAIN:
            return False
        if count <= 0:
            self.lost()
            return False
        more = self.feed_chunked(self.reactor.scratch, <size_t>count)
        uncork()
        return more

    cdef bint feed_chunked(self, const unsigned char* data, size_t size) noexcept:
        # False: the response is over, one way or the other.
        cdef const unsigned char* body = NULL
        cdef size_t used = 0, done = 0, body_size = 0
        cdef int event
        if self.decoder == NULL:
            self.decoder = <ChunkedDecoder*>malloc(sizeof(ChunkedDecoder))
            if self.decoder == NULL:
                self.fail(CODE_OVERLOADED, SENT, b"out of memory")
                return False
            memset(self.decoder, 0, sizeof(ChunkedDecoder))
        while done < size:
            event = chunked_next(self.decoder, data + done, size - done, &used, &body, &body_size)
            done += used
            if event == CHUNKED_DATA:
                self.service.tally.bytes_out += body_size
                self.peer.take_data(body, body_size, False)
                if self.peer is None:
                    return False
            elif event == CHUNKED_END:
                self.peer.take_end(self.decoder.trailers, self.decoder.trailers_size)
                self.reply_complete(done == size)
                return False
            elif event != CHUNKED_MORE:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT, self.decoder.reason)
                return False
        return True

    cdef void reply_complete(self, bint clean) noexcept:
        # `clean`: nothing came behind the response. Only then is the connection good for another one.
        if self.fd < 0:
            return
        uncork()
        self.uncount()
        if self.peer is not None:
            detach(self)
        if (
            clean and self.keep_alive and self.request_done and self.out.size == 0
            and not self.broken and not self.hung_up and not self.service.closed
            and (not self.readable or peek_alive(self.fd))
        ):
            self.readable = False
            self.clear()
            self.state = UPSTREAM_IDLE
            self.reused = True
            self.reactor.arm(self, POOL_IDLE_MS)
            if self.service.put_idle(self):
                return
            self.state = UPSTREAM_RUNNING
        self.drop()

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
        cdef End peer = self.peer
        if self.held == NULL or self.touched or not self.reused or peer is None:
            return False
        other = <Upstream>self.service.dial(self.service.next_address, 1)
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
        other.counted = self.counted
        self.counted = False
        other.take_head(self.held, self.held_head, self.held + self.held_head, self.held_body, HEAD_END)
        self.drop()
        return True
