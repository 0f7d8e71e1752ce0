"""Reading an upstream's responses: heads, and bodies by the room of whoever takes them. See reply.pxd."""

from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset

cimport cython
from _fastpath.end cimport CODE_OVERLOADED, CODE_UPSTREAM_PROTOCOL, HEAD_END, HEAD_INTERIM, SENT, End
from _fastpath.forward cimport write_response
from _fastpath.http1 cimport (
    BODY_CHUNKED, BODY_LENGTH, BODY_NONE, BODY_UNTIL_CLOSE, CHUNKED_DATA, CHUNKED_END, CHUNKED_MORE, MAX_FIELDS,
    MAX_INTERIM, Field, Head, chunked_clear, chunked_next, scan_response,
)
from _fastpath.reactor cimport READ_SIZE
from _fastpath.socket cimport RECV_AGAIN, uncork
from _fastpath.upgrade cimport switches_to

cdef enum:
    HEAD_BODY = 16384             # of the body that goes along with its head

cdef Field fields[MAX_FIELDS]


@cython.no_gc
cdef class ReplyReader(Socket):
    """The half of an upstream connection that responses come in by. Only compiled subclasses are useful."""

    def __dealloc__(self):
        free(self.stash)
        self.drop_decoder()

    # --- hooks ------------------------------------------------------------

    cdef void reply_complete(self, bint clean) noexcept:
        pass

    cdef void lost(self) noexcept:
        pass

    cdef void upgrade_begun(self) noexcept:
        pass

    cdef void fail(self, uint16_t code, uint8_t delivery, const char* reason) noexcept:
        pass

    cdef void drop(self) noexcept:
        pass

    cdef void watch(self, uint64_t delay_ms) noexcept:
        pass

    # --- heads ------------------------------------------------------------

    cdef void clear_reply(self) noexcept:
        free(self.stash)
        self.stash = NULL
        self.stash_size = self.scan_resume = self.interim_size = 0
        self.drop_decoder()

    cdef void drop_decoder(self) noexcept:
        if self.decoder != NULL:
            chunked_clear(self.decoder)
            free(self.decoder)
            self.decoder = NULL

    cdef bint read_some(self) noexcept:
        cdef size_t room
        if not self.reply_begun:
            return self.read_head()
        if self.peer is None:
            return False
        room = self.peer.room()
        if room == 0:
            return False          # on_room continues
        if self.reply_framing == BODY_CHUNKED:
            return self.read_chunked(room)
        return self.read_plain(room)

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
            result = scan_response(data + used, size - used, &self.service.settings.reply, self.method_id,
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
            if head.status == 101:
                if self.peer is not None and switches_to(data + used - result, &head, self.upgrade):
                    return self.begin_upgrade(data + used - result, &head, size - used)
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT, b"the upstream switched protocols unasked")
                return False
            if self.peer is None or <uint32_t>result > MAX_INTERIM - self.interim_size:
                self.fail(CODE_UPSTREAM_PROTOCOL, SENT, b"the upstream sent too many interim responses")
                return False
            self.interim_size += <uint32_t>result
            self.interim(data + used - result, &head)
            if self.fd < 0:
                return False      # whoever asked is gone, and `data` with it
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
        self.service.succeeded(self.backend)
        self.watch(0)
        self.reply_framing = head.framing
        self.reply_left = head.content_length if head.framing == BODY_LENGTH else UINT64_MAX
        self.keep_alive = head.keep_alive and head.framing != BODY_UNTIL_CLOSE
        self.status = head.status
        self.replied_us = self.reactor.now_us
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
        self.reply_seen += part
        peer.take_head(out, <size_t>size, body, part, HEAD_END if end else 0)
        rest -= part
        if end:
            self.reply_complete(rest == 0)
            return False
        return self.feed_rest(body + part, rest)

    cdef bint begin_upgrade(self, const unsigned char* data, const Head* head, size_t rest) noexcept:
        cdef unsigned char* out = self.reactor.borrow(head.size + 256)
        cdef Py_ssize_t size = -1
        if out != NULL:
            size = write_response(data, head, out, head.size + 256)
        if size < 0:
            self.fail(CODE_OVERLOADED, SENT, b"the response's head is too large")
            return False
        self.reply_begun = self.upgraded = True
        self.keep_alive = False
        self.reply_framing = BODY_UNTIL_CLOSE
        self.reply_left = UINT64_MAX
        self.status = head.status
        self.replied_us = self.reactor.now_us
        self.service.tally.statuses[1] += 1
        self.reactor.arm(self, self.service.settings.upgraded_timeout)
        self.upgrade_begun()
        self.peer.take_head(out, <size_t>size, NULL, 0, 0)
        return self.feed_rest(data + head.size, rest)

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
        self.reply_seen += size
        self.peer.take_data(data, size, end)
        if end:
            self.reply_complete(not more)
        return not end and self.peer is not None

    cdef bint read_plain(self, size_t room) noexcept:
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
        end = count == 0 and self.reply_framing == BODY_UNTIL_CLOSE
        if count > 0:
            self.reply_left -= <uint64_t>count
            end = self.reply_left == 0
            self.reply_seen += <uint64_t>count
            if self.upgraded:
                self.reactor.arm(self, self.service.settings.upgraded_timeout)
        if direct:
            self.peer.commit(<size_t>count if count > 0 else 0, end)
        elif count > 0 or end:
            self.peer.take_data(memory, <size_t>count, end)
            uncork()
        if end:
            self.reply_complete(count > 0)
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
                self.reply_seen += body_size
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
