"""Reading a client's requests: heads, bodies, and what came too early. See request.pxd."""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove, memset, strlen

cimport cython
from _fastpath.connection cimport HANDSHAKE_RECORD
from _fastpath.address cimport ADDRESS_SIZE, read_address
from _fastpath.end cimport (
    CODE_BAD_CODING, CODE_BAD_REQUEST, CODE_BAD_VERSION, CODE_BODY_TOO_LARGE, CODE_HEAD_TOO_LARGE, CODE_OVERLOADED,
    CODE_URI_TOO_LONG, MAYBE_SENT, NEVER_SENT,
)
from _fastpath.forward cimport Origin, write_request
from _fastpath.forwarded cimport Claim, read_claim
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, CHUNKED_DATA, CHUNKED_END, CHUNKED_MORE, MAX_FIELDS, MAX_HEAD, SCAN_CODING,
    SCAN_HEAD_TOO_LARGE, SCAN_URI_TOO_LONG, SCAN_VERSION, ChunkedDecoder, Field, Head, chunked_clear, chunked_next,
    scan_request,
)
from _fastpath.ids cimport ID_SIZE, make_id
from _fastpath.reactor cimport READ_SIZE
from _fastpath.socket cimport OUT_LOW, RECV_AGAIN, uncork
from _fastpath.trace cimport TRACE_ROOM, Tracing, trace_head
from _fastpath.upgrade cimport offered

cdef enum:
    LINGER_BYTES = 1048576

cdef Field request_fields[MAX_FIELDS]
cdef Claim claim                  # of the request that is being begun


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


@cython.no_gc
cdef class RequestReader(Connection):
    """The half of a client connection that requests come in by. Only compiled subclasses are useful."""

    def __dealloc__(self):
        free(self.stash)
        free(self.held)
        self.drop_decoder()

    # --- hooks ------------------------------------------------------------

    cdef void begin(self, const unsigned char* data, const Head* head,
                    const unsigned char* body, size_t body_size) noexcept:
        pass

    cdef void request_ended(self) noexcept:
        pass

    cdef void watch(self, uint64_t delay_ms) noexcept:
        pass

    cdef uint64_t patience(self) noexcept:
        return 0

    cdef void body_moved(self) noexcept:
        pass

    cdef void answer(self, uint16_t code, uint8_t delivery) noexcept:
        pass

    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept:
        pass

    cdef void depart(self) noexcept:
        pass

    cdef void gone(self) noexcept:
        pass

    # --- the head ---------------------------------------------------------

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
            if data[0] == HANDSHAKE_RECORD:
                self.spoke_tls()
            else:
                if reason != NULL:
                    self.listener.meters.journal.because(<const unsigned char*>reason, strlen(reason))
                self.answer(scan_code(result), NEVER_SENT)
                self.listener.meters.journal.because(NULL, 0)
            return False
        self.begin(data, &head, data + result, size - <size_t>result)
        return True

    cdef void identify(self, const unsigned char* data, const Head* head) noexcept:
        cdef unsigned char peer[ADDRESS_SIZE]
        read_address(<const unsigned char*>self.address, self.address_size, peer)
        read_claim(data, head, self.listener.trusted, peer, &claim)
        self.claimed = claim.known != 0
        memcpy(self.claimant, claim.raw, ADDRESS_SIZE)

    cdef unsigned char* introduction(self, uint32_t* size) noexcept:
        cdef bytes user = self.caller.lines if self.caller is not None else None
        cdef bytes shown = None
        cdef unsigned char* out
        if self.certificate is not None and self.listener.cert_fields:
            shown = self.certificate.lines_for(self.listener.cert_fields)
        if user is None and shown is None:
            return NULL
        size[0] = <uint32_t>((len(user) if user is not None else 0) + (len(shown) if shown is not None else 0))
        out = self.reactor.borrow(size[0])
        if out == NULL:
            return NULL
        if user is not None:
            memcpy(out, <const char*>user, len(user))
        if shown is not None:
            memcpy(out + size[0] - len(shown), <const char*>shown, len(shown))
        return out

    cdef bint hold(self, const unsigned char* data, const Head* head, size_t body_size) noexcept:
        # The canonical request, and a small body, now or as it comes: until the response, it may be sent again.
        cdef size_t rest = 0
        cdef uint32_t extra_size = 0
        cdef unsigned char* extra = self.introduction(&extra_size)
        cdef size_t capacity = head.size + 2048 + extra_size
        cdef unsigned char* out = self.reactor.borrow(capacity)
        cdef unsigned char new_id[ID_SIZE]
        cdef Origin origin
        cdef Py_ssize_t size
        if out == NULL or (extra == NULL and extra_size):
            return False
        origin.address = <const unsigned char*>self.address
        origin.address_size = self.address_size
        origin.scheme = b"http" if self.tls is None else b"https"
        origin.scheme_size = 4 if self.tls is None else 5
        origin.via = <const unsigned char*><char*>self.listener.via
        origin.via_size = <uint32_t>len(self.listener.via)
        origin.extra = extra
        origin.extra_size = extra_size
        origin.drop_authorization = self.spent and not self.gate.keeps
        origin.upgrade = offered(data, head, self.settings.upgrades)
        self.upgrade = (
            data[origin.upgrade.start:origin.upgrade.start + origin.upgrade.size].lower() if origin.upgrade.size else None
        )
        origin.trust_forwarded = self.trusted
        origin.claim = &claim if self.trusted else NULL
        make_id(new_id)
        origin.new_id = new_id
        origin.request_id = &self.request_id
        size = write_request(data, head, &origin, out, capacity)
        if size < 0:
            return False
        out = self.follow_trace(out, &size)
        if out == NULL:
            return False
        if self.framing == BODY_LENGTH and self.request_left <= HELD_BODY:
            rest = <size_t>self.request_left - body_size
        self.held = <unsigned char*>malloc(<size_t>size + body_size + rest)
        if self.held == NULL:
            return False
        memcpy(self.held, out, <size_t>size)
        memcpy(self.held + size, data + head.size, body_size)
        self.held_head = <uint32_t>size
        self.held_body = <uint32_t>body_size
        self.held_room = <uint32_t>rest
        self.retained = True
        return True

    cdef unsigned char* follow_trace(self, unsigned char* head, Py_ssize_t* size) noexcept:
        # The canonical head, with this node's span in it where the request is traced.
        cdef const Tracing* rules = &self.listener.meters.journal.tracing
        cdef unsigned char* out
        cdef size_t written
        self.trace.span = self.trace.parent = 0
        if not rules.on:
            return head
        out = self.reactor.borrow(<size_t>size[0] + TRACE_ROOM)
        if out == NULL:
            return NULL
        written = trace_head(head, <size_t>size[0], rules, &self.trace, out, &self.request_id.start)
        if written == 0:
            return head
        size[0] = <Py_ssize_t>written
        return out

    cdef void release_held(self) noexcept:
        if self.held != NULL:
            free(self.held)
            self.held = NULL
            self.held_head = self.held_body = self.held_room = 0

    cdef void retain(self, const unsigned char* body, size_t size) noexcept:
        if size == 0:
            return
        if size > self.held_room:
            self.retained = False
            return
        memcpy(self.held + self.held_head + self.held_body, body, size)
        self.held_body += <uint32_t>size
        self.held_room -= <uint32_t>size
        self.whole = self.held_room == 0

    # --- the body ---------------------------------------------------------

    cdef bint pump(self) noexcept:
        cdef size_t room
        if self.peer is None:
            return False
        room = self.peer.room()
        if room == 0:
            self.pace.held_up = True
            return False          # on_room continues
        if self.whole or self.request_seen < self.held_body:
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
        cdef bint end = self.whole and size == left
        self.request_seen += size
        if end:
            self.request_ended()
        self.peer.take_data(data, size, end)
        uncork()
        return self.state == CLIENT_RUNNING and not end

    cdef bint pump_stash(self, size_t room) noexcept:
        cdef size_t size = self.stash_size if self.stash_size < room else room
        cdef bint end
        if self.framing == BODY_CHUNKED:
            size = self.feed_chunked(self.stash, size)
        else:
            if size > self.request_left:
                size = <size_t>self.request_left
            self.retain(self.stash, size)
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
        end = count == 0 and self.upgraded
        if count > 0:
            self.retain(memory, <size_t>count)
            self.request_left -= <uint64_t>count
            self.request_seen += <uint64_t>count
            end = self.request_left == 0
            if not end:
                self.body_moved()
        if end:
            self.request_ended()
        if direct:
            self.peer.commit(<size_t>count if count > 0 else 0, end)
        elif count > 0 or end:
            self.peer.take_data(memory, <size_t>count, end)
            uncork()
        if (count == 0 and not end) or (count < 0 and count != RECV_AGAIN):
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
        self.body_moved()
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
        self.retained = False
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

    cdef void drop_decoder(self) noexcept:
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)
            self.decoder = NULL

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
