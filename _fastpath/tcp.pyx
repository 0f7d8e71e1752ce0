"""Plain TCP connections as sides of an exchange. See tcp.pxd."""

from libc.stdint cimport uint16_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset, strlen

cimport cython
from _fastpath cimport net
from _fastpath.address cimport ADDRESS_TEXT, write_address
from _fastpath.connection cimport PORT_TLS, Port
from _fastpath.backend cimport Backend
from _fastpath.end cimport (
    CODE_BAD_REQUEST, CODE_CANCEL, CODE_MOVED, CODE_NO_AGENT, CODE_NO_SERVICE, CODE_OVERLOADED, CODE_REFUSED,
    CODE_TUNNEL_LOST, CODE_UNREACHABLE, CODE_UPSTREAM_PROTOCOL, CODE_UPSTREAM_TIMEOUT, HEAD_TCP, MAYBE_SENT, NEVER_SENT, SENT,
    End, detach,
)
from _fastpath.exchange cimport JOIN_WAIT, JOINED, Egress, Lobby, settle, tunnel_label
from _fastpath.hello cimport HELLO_MORE, HELLO_STRANGE, MAX_HELLO, MAX_NAME, scan_hello
from _fastpath.memory cimport ByteQueue, chunk_bytes, memory_limit
from _fastpath.meta cimport META_SIZE, read_meta, write_meta
from _fastpath.proxy cimport PROXY_WRITTEN, ProxyHeader, looks_proxied, write_proxy
from _fastpath.reactor cimport READ_SIZE, PyObject
from _fastpath.record cimport NEVER, Journal, Record, since, text_of
from _fastpath.route cimport Target
from _fastpath.socket cimport RECV_AGAIN, address_text, connect_error, uncork

cdef enum:
    READ_STEPS = 8                # reads in one turn; the rest waits for the others
    SERVER_PREFIX_SIZE = 4
    ALERT_SIZE = 7
    SECOND_HEADER = 16            # bytes that tell a PROXY header
    MAX_TRIES = 5
    ALERT_DECODE_ERROR = 50       # RFC 8446 6.2
    ALERT_UNRECOGNIZED_NAME = 112

cdef const char* SERVER_PREFIX = b"tls/"
cdef const char* ALERT = b"\x15\x03\x01\x00\x02\x02\x50"      # fatal, internal_error


@cython.final
@cython.no_gc
cdef class TcpEnd(Connection):
    """A TCP connection that is passed through."""

    def __dealloc__(self):
        free(self.hello)

    # --- an accepted connection -------------------------------------------

    cdef void accepted(self) noexcept:
        self.readable = self.writable = True
        if self.listener.kind == PORT_TLS:
            self.state = TCP_HELLO
        else:
            self.name = self.listener.service
        if self.greeting or self.state == TCP_HELLO:
            self.reactor.arm(self, self.settings.head_timeout)
        self.begun_us = self.reactor.now_us
        self.in_flight = True
        self.listener.tally.exchanges += 1
        self.listener.tally.active += 1
        self.reactor.queue_ready(self)

    cdef void refuse(self, uint16_t code) noexcept:
        self.turn_away(code)

    cdef void turn_away(self, uint16_t code) noexcept:
        if not self.in_flight:
            self.begun_us = self.reactor.now_us
            self.in_flight = True
            self.listener.tally.exchanges += 1
            self.listener.tally.active += 1
        self.fail(code, NEVER_SENT)

    cdef void drain(self) noexcept:
        if self.state != TCP_RUNNING:
            self.fail(CODE_NO_AGENT, NEVER_SENT)

    # On a tls port: the first message, which is passed on as it came.

    cdef bint read_hello(self) noexcept:
        cdef unsigned char name[SERVER_PREFIX_SIZE + MAX_NAME]
        cdef size_t size = 0
        cdef Py_ssize_t count = self.receive(self.reactor.scratch, MAX_HELLO - self.hello_size)
        cdef int result
        if count == RECV_AGAIN:
            return False
        if count <= 0 or not self.keep_hello(self.reactor.scratch, <size_t>count):
            self.fail(CODE_CANCEL if count <= 0 else CODE_OVERLOADED, NEVER_SENT)
            return False
        result = scan_hello(self.hello, self.hello_size, name + SERVER_PREFIX_SIZE, &size)
        if result == HELLO_MORE:
            return False
        if result < 0:
            if result == HELLO_STRANGE:
                self.drop_hello()
            self.fail(CODE_BAD_REQUEST, NEVER_SENT)
            return False
        memcpy(name, SERVER_PREFIX, SERVER_PREFIX_SIZE)
        self.name = name[:SERVER_PREFIX_SIZE + size]
        self.reactor.arm(self, 0)
        self.state = TCP_NEW
        return True

    cdef bint keep_hello(self, const unsigned char* data, size_t size) noexcept:
        cdef unsigned char* memory = <unsigned char*>realloc(self.hello, self.hello_size + size)
        if memory == NULL:
            return False
        memcpy(memory + self.hello_size, data, size)
        self.hello = memory
        self.hello_size += <uint32_t>size
        self.seen_in += size
        return True

    cdef void drop_hello(self) noexcept:
        free(self.hello)
        self.hello = NULL
        self.hello_size = 0

    cdef void refuse_hello(self) noexcept:
        cdef unsigned char alert[ALERT_SIZE]
        memcpy(alert, ALERT, ALERT_SIZE)
        if self.failure == CODE_BAD_REQUEST:
            alert[ALERT_SIZE - 1] = ALERT_DECODE_ERROR
        elif self.failure == CODE_NO_SERVICE:
            alert[ALERT_SIZE - 1] = ALERT_UNRECOGNIZED_NAME
        self.write_copy(alert, ALERT_SIZE)
        self.flush()

    cdef bint repeats_itself(self) noexcept:
        # A second PROXY header would reach the service, which might believe it.
        cdef unsigned char start[SECOND_HEADER]
        cdef Py_ssize_t count
        if not self.listener.proxied or self.hello_size:
            return False          # a TLS client's first bytes were seen to be TLS
        count = net.recv(self.fd, start, SECOND_HEADER, net.MSG_PEEK)
        return count > 0 and looks_proxied(start, <size_t>count)

    cdef void begin(self) noexcept:
        cdef Port port = self.listener
        cdef const unsigned char* name = <const unsigned char*><char*>self.name
        cdef Target found = port.local.by_name(name, len(self.name))
        cdef unsigned char meta[META_SIZE]
        cdef int result
        if found is None:
            found = port.delegated.by_name(name, len(self.name))
        if not isinstance(found, Egress):
            found = port.lobby
        if found is None or isinstance(found, Lobby) and (<Lobby>found).closed:
            self.fail(CODE_NO_SERVICE, NEVER_SENT)
            return
        if chunk_bytes() > memory_limit():
            self.fail(CODE_OVERLOADED, NEVER_SENT)
            return
        self.egress = <Egress>found
        if self.routed_us == 0:
            self.routed_us = self.reactor.now_us
        if isinstance(found, Pool):
            self.settings = (<Pool>found).settings
        self.tries += 1
        result = self.join_within(self.egress, NULL, self.settings.in_flight)
        if result == JOINED:
            self.state = TCP_RUNNING
            self.joined_us = self.reactor.now_us
            self.tunnel = tunnel_label(self.peer)
            self.delivery = MAYBE_SENT
            self.moved_ms = self.reactor.now_ms
            self.total_deadline_ms = self.moved_ms + self.settings.total_timeout if self.settings.total_timeout else 0
            self.watch()
            if self.hello_size > self.peer.room():
                self.fail(CODE_OVERLOADED, NEVER_SENT)
                return
            self.peer.take_meta(meta, self.describe(meta))
            self.peer.take_head(name, len(self.name), self.hello, self.hello_size, HEAD_TCP)
        elif result != JOIN_WAIT:
            self.fail(<uint16_t>result, NEVER_SENT)
        elif self.settings.agent_wait == 0 or self.egress.waiting >= self.settings.waiting:
            self.fail(CODE_NO_AGENT, NEVER_SENT)
        else:
            if self.deadline_ms == 0:
                self.reactor.arm(self, self.settings.agent_wait)
            self.state = TCP_WAITING
            self.egress.wait(self)

    cdef uint32_t describe(self, unsigned char* meta) noexcept:
        cdef net.sockaddr_storage local
        cdef net.socklen_t size = sizeof(local)
        cdef char target[ADDRESS_TEXT]
        cdef uint32_t target_size = 0
        cdef uint16_t port = 0
        if net.getsockname(self.fd, <net.sockaddr*>&local, &size) == 0:
            target_size = address_text(&local, target, &port)
        return write_meta(self.address, self.address_size, self.port, target, target_size, port, meta)

    cdef void wait_over(self) noexcept:
        self.state = TCP_NEW
        self.reactor.queue_ready(self)

    # --- a dialled connection ---------------------------------------------

    cdef void connected(self) noexcept:
        if self.broken or connect_error(self.fd) != 0:
            self.service.unreachable(self.backend)
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT)
            return
        self.state = TCP_RUNNING
        self.joined_us = self.reactor.now_us
        self.service.connects += 1
        self.service.succeeded(self.backend)
        self.reactor.arm(self, 0)     # from here on the clocks are those of the ingress: a TcpEnd, or a stream's guard
        if self.out.size > 0:
            self.flush()
        elif self.shut_wanted:
            self.end_writing()

    cdef bint next_address(self) noexcept:
        cdef TcpEnd other
        cdef End peer = self.peer
        cdef Backend backend
        if peer is None:
            return False
        backend = self.service.choose(self.tried)
        other = <TcpEnd>self.service.dial(backend, self.tried) if backend is not None else None
        if other is None:
            return False
        self.uncount()
        other.count()
        other.settings = self.settings
        other.out = self.out
        memset(&self.out, 0, sizeof(ByteQueue))
        other.unreported = self.unreported
        other.begun_us = self.begun_us
        other.address = self.address
        other.address_size = self.address_size
        other.seen_out = self.seen_out
        other.starved = self.starved
        other.shut_wanted = self.shut_wanted
        other.write_ended = self.write_ended
        other.introduced = self.introduced
        detach(self)
        other.peer = peer
        peer.peer = other
        self.reactor.remove(self)
        return True

    cdef void count(self) noexcept:
        self.counted = True
        self.service.begun(self.backend)

    cdef void uncount(self) noexcept:
        self.counted = False
        self.service.over(self.backend)

    # --- both -------------------------------------------------------------

    cdef void on_ready(self) noexcept:
        cdef int steps = READ_STEPS
        if self.greeting and not self.broken:
            if self.greet() and self.state != TCP_HELLO:
                self.reactor.arm(self, 0)
            elif self.fd < 0 or (self.greeting and not self.broken):
                return
        if self.state == TCP_HELLO:
            if self.broken or not self.readable or not self.read_hello():
                if self.fd >= 0 and self.broken:
                    self.fail(CODE_CANCEL, NEVER_SENT)
                return
        if self.state == TCP_NEW:
            if self.greeting or self.repeats_itself():
                self.fail(CODE_BAD_REQUEST, NEVER_SENT)
                return
            self.begin()
        elif self.state == TCP_CONNECTING:
            if not (self.writable or self.broken):
                return
            self.connected()
        if self.fd < 0 or self.state != TCP_RUNNING:
            if self.fd >= 0 and self.broken:
                self.fail(CODE_CANCEL, NEVER_SENT)
            return
        if self.broken and self.peer is None:
            self.reset_hard()     # was only to be flushed
            return
        if self.broken and self.read_ended:
            # No read will find out any more that the connection is gone.
            self.fail(CODE_CANCEL if not self.dialled else CODE_UPSTREAM_PROTOCOL, MAYBE_SENT)
            return
        if self.out.size > 0 and self.writable:
            self.flush()
        while self.fd >= 0 and self.readable and not self.read_ended and self.pump():
            steps -= 1
            if steps == 0:
                self.reactor.queue_ready(self)
                break

    cdef bint pump(self) noexcept:
        cdef size_t capacity = 0
        cdef size_t room
        cdef unsigned char* memory
        cdef bint direct
        cdef Py_ssize_t count
        if self.peer is None:
            return False
        room = self.peer.room()
        if room == 0:
            return False          # on_room continues
        memory = self.peer.reserve(&capacity)
        direct = memory != NULL
        if not direct:
            memory = self.reactor.scratch
            capacity = READ_SIZE if room > READ_SIZE else room
        count = self.receive(memory, capacity)
        if count > 0:
            self.seen_in += <uint64_t>count
            self.moved_ms = self.reactor.now_ms
            self.drop_hello()     # more than it has left, which is not at hand any more
        if direct:
            self.peer.commit(<size_t>count if count > 0 else 0, count == 0)
        elif count > 0:
            self.peer.take_data(memory, <size_t>count, False)
            uncork()
        elif count == 0:
            self.peer.take_end(NULL, 0)
        if count == 0:
            self.read_ended = True
            self.finish_if_over()
        elif count < 0 and count != RECV_AGAIN:
            self.fail(CODE_CANCEL if not self.dialled else CODE_UPSTREAM_PROTOCOL, MAYBE_SENT)
        return count > 0

    cdef void consumed(self, size_t size) noexcept:
        self.moved_ms = self.reactor.now_ms

    cdef void on_room(self) noexcept:
        self.reactor.queue_ready(self)

    cdef size_t room(self) noexcept:
        return self.sink_room()

    cdef void take_meta(self, const unsigned char* meta, size_t size) noexcept:
        cdef ProxyHeader header
        cdef unsigned char out[PROXY_WRITTEN]
        if not self.dialled:
            return
        read_meta(meta, size, &header)
        if header.known:
            self.address_size = <uint8_t>write_address(header.source, self.address)
        if self.service.proxy_version:
            self.introduced = True
            self.write_copy(out, write_proxy(self.service.proxy_version, &header, out))

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        if self.dialled and not self.introduced:
            self.take_meta(NULL, 0)       # the service waits for a header, whether anybody said who it is or not
        if body_size:
            self.take_data(body, body_size, False)
            uncork()

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        if size:
            self.drop_hello()
            self.seen_out += size
            self.unreported += size
            self.moved_ms = self.reactor.now_ms
            self.write(data, size)
        if end:
            self.take_end(NULL, 0)

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        self.write_ended = True
        if self.state == TCP_RUNNING:
            self.end_writing()
        else:
            self.shut_wanted = True
        self.finish_if_over()

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        detach(self)
        if self.may_retry(code, delivery):
            self.state = TCP_NEW
            self.delivery = NEVER_SENT
            if code == CODE_MOVED:
                self.tries -= 1
            self.reactor.arm(self, self.settings.agent_wait)
            self.listener.tally.retries += 1
            self.reactor.queue_ready(self)
            return
        if code == CODE_MOVED:
            code = CODE_NO_AGENT
        self.failure = code
        self.delivery = delivery
        uncork()
        self.leave()
        self.reset_hard()

    cdef bint may_retry(self, uint16_t code, uint8_t delivery) noexcept:
        # Nothing has reached a service, and all that the client has sent is at hand.
        if self.dialled or self.fd < 0 or delivery != NEVER_SENT or self.tries >= MAX_TRIES:
            return False
        if code != CODE_REFUSED and code != CODE_MOVED and code != CODE_TUNNEL_LOST:
            return False
        return self.state == TCP_RUNNING and not self.read_ended and self.seen_out == 0 and self.seen_in == self.hello_size

    cdef void on_sent(self) noexcept:
        # A direction that has ended is done when the kernel has all of it.
        self.moved_ms = self.reactor.now_ms
        if self.write_ended:
            self.finish_if_over()

    cdef void finish_if_over(self) noexcept:
        if not (self.read_ended and self.write_ended) or self.fd < 0:
            return
        detach(self)
        self.leave()
        self.reactor.arm(self, self.settings.idle_timeout)
        self.close_gracefully()

    cdef void watch(self) noexcept:
        cdef uint64_t now = self.reactor.now_ms
        cdef uint64_t first = self.moved_ms + self.settings.idle_timeout
        if self.total_deadline_ms and self.total_deadline_ms < first:
            first = self.total_deadline_ms
        self.reactor.arm(self, first - now if first > now else 1)

    cdef void expired(self) noexcept:
        # One direction may have ended long ago: bytes in the other one keep the connection.
        cdef uint64_t now = self.reactor.now_ms
        cdef uint64_t taken = self.acknowledged()
        if self.total_deadline_ms and now >= self.total_deadline_ms:
            self.give_up(b"the connection took too long")
            return
        if taken != self.read_mark and taken != self.bytes_out:
            self.moved_ms = now   # its host takes what the kernel holds for it, however slowly
        self.read_mark = taken
        if now >= self.moved_ms + self.settings.idle_timeout:
            self.give_up(b"nothing was said for too long")
        else:
            self.watch()

    cdef void give_up(self, const char* reason) noexcept:
        cdef Journal journal = self.listener.meters.journal
        journal.because(<const unsigned char*>reason, strlen(reason))
        self.fail(CODE_UPSTREAM_TIMEOUT, MAYBE_SENT)
        journal.because(NULL, 0)

    cdef void on_deadline(self) noexcept:
        if self.state == TCP_CONNECTING:
            self.service.unreachable(self.backend)
            if not self.next_address():
                self.fail(CODE_UNREACHABLE, NEVER_SENT)
        elif self.state == TCP_RUNNING and not self.dialled and self.peer is not None:
            self.expired()
        else:
            if self.greeting:
                self.listener.denied += 1
            if self.state != TCP_WAITING:
                self.fail(CODE_CANCEL, self.delivery)
            else:
                self.fail(CODE_NO_SERVICE if isinstance(self.egress, Lobby) else CODE_NO_AGENT, self.delivery)

    cdef void fail(self, uint16_t code, uint8_t delivery) noexcept:
        # Over, and not in order: both sides see a reset, so that nothing cut short looks whole.
        self.failure = code
        self.delivery = delivery
        self.abandon(code, delivery)
        self.leave()
        uncork()
        if self.hello_size and self.state != TCP_RUNNING and not self.broken and self.fd >= 0:
            self.refuse_hello()
            self.drop_hello()
            self.reactor.arm(self, self.settings.idle_timeout)
            self.close_gracefully()
        else:
            self.reset_hard()

    cdef void abandon(self, uint16_t code, uint8_t delivery) noexcept:
        cdef End peer = self.peer
        self.stop_waiting()
        if peer is not None:
            detach(self)
            peer.take_reset(code, delivery, b"", 0)

    cdef void on_closed(self) noexcept:
        self.abandon(CODE_CANCEL, self.delivery)
        self.leave()
        self.left()

    cdef void leave(self) noexcept:
        # Counts the end of the exchange, once.
        cdef Record record
        if self.dialled:
            self.leave_service(&record)
            return
        if not self.in_flight:
            return
        self.in_flight = False
        self.count_out()
        self.listener.tally.active -= 1
        self.listener.tally.bytes_in += self.seen_in
        self.listener.tally.bytes_out += self.seen_out
        if self.failure:
            self.listener.tally.failures[self.failure] += 1
        self.fill(&record)
        settle(self.listener.meters, None if isinstance(self.egress, Lobby) else self.egress, &record)

    cdef void leave_service(self, Record* record) noexcept:
        # The same for one that was dialled.
        if not self.counted:
            return
        self.uncount()
        self.service.tally.bytes_in += self.seen_out
        self.service.tally.bytes_out += self.seen_in
        if self.service.meters is not None:
            self.fill(record)
            record.bytes_in = self.seen_out
            record.bytes_out = self.seen_in
            record.delivery = SENT if self.seen_in else MAYBE_SENT if self.joined_us else NEVER_SENT
            record.routed_us = 0
            record.tries = 1
            settle(self.service.meters, self.service, record)

    cdef void fill(self, Record* record) noexcept:
        memset(record, 0, sizeof(Record))
        record.address.data = <const unsigned char*>self.address
        record.address.size = self.address_size
        record.tunnel = text_of(self.tunnel)
        record.ended_us = self.reactor.now_us
        record.failure = self.failure
        record.delivery = SENT if self.seen_out else self.delivery    # it has said something
        record.tries = self.tries
        record.bytes_in = self.seen_in
        record.bytes_out = self.seen_out
        record.routed_us = since(self.begun_us, self.routed_us)
        record.joined_us = since(self.begun_us, self.joined_us)
        record.replied_us = NEVER
        record.total_us = self.reactor.now_us - self.begun_us
