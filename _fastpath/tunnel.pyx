"""Tunnels: a session over a socket, and where the streams that the other side opens lead. See tunnel.pxd."""

from libc.math cimport exp
from libc.string cimport memset, strlen

cimport cython
from _fastpath cimport net
from _fastpath.end cimport (
    CODE_BAD_REQUEST, CODE_BODY_TOO_LARGE, CODE_CANCEL, CODE_MOVED, CODE_NO_AGENT, CODE_NO_SERVICE, CODE_OVERLOADED,
    CODE_PROTOCOL, CODE_REFUSED, CODE_TUNNEL_LOST, HEAD_END, HEAD_TCP, NEVER_SENT,
)
from _fastpath.exchange cimport JOIN_WAIT, JOINED, Egress, settle
from _fastpath.guard cimport Quota, guard_take
from _fastpath.http1 cimport (
    BODY_LENGTH, MAX_CANONICAL_HEAD, MAX_FIELDS, Field, ScanLimits, scan_request,
)
from _fastpath.memory cimport (
    chunk_bytes, iovec, memory_limit, queue_append, queue_clear, queue_consume, queue_vectors,
)
from _fastpath.net cimport errno
from _fastpath.reactor cimport SCRATCH_SIZE
from _fastpath.pool cimport Pool
from _fastpath.record cimport NEVER, Record, text_of
from _fastpath.route cimport Target
from _fastpath.forward cimport without_fields
from _fastpath.settings cimport Settings
from _fastpath.slots cimport SlotTable
from _fastpath.socket cimport set_lowat, set_stream_options, uncork
from _fastpath.sweep cimport end_late
from _fastpath.tls cimport TLS_END, TLS_MORE, TlsLayer
from _fastpath.upgrade cimport canonical_hops, offered

import os

cdef enum:
    READ_STEPS = 4                # full scratch buffers in one turn
    WRITE_PIECES = 64
    WRITE_BYTES = 262144
    TICK_MS = 250
    CONTROL_LIMIT = 1048576       # bytes of control messages that wait for Python
    CIPHER_SIZE = 65536           # ciphertext read or encrypted at once
    CIPHER_STEPS = 16
    RATE_US = 3000000             # what is older counts little

cdef Field fields[MAX_FIELDS]
cdef ScanLimits limits            # what the peer forwards has met its own limits; these are the program's
limits.head = MAX_CANONICAL_HEAD
limits.headers = MAX_FIELDS
limits.uri = MAX_CANONICAL_HEAD
cdef const char* BODY_TOO_LARGE = b"the request's body is over the agent's own limit"
cdef unsigned char ciphertext[CIPHER_SIZE]    # in use inside one call only


@cython.final
@cython.no_gc
cdef class Link(Pollable):
    """The socket under a tunnel."""

    cdef void on_ready(self) noexcept:
        cdef Tunnel tunnel = self.tunnel
        if tunnel is None:
            return
        if self.writable and tunnel.has_output():
            tunnel.flush()
        if self.readable and self.fd >= 0:
            tunnel.read()

    cdef void on_flush(self) noexcept:
        cdef Tunnel tunnel = self.tunnel
        if tunnel is not None:
            tunnel.flush()

    cdef void on_deadline(self) noexcept:
        cdef Tunnel tunnel = self.tunnel
        if tunnel is not None:
            tunnel.tick()


@cython.final
cdef class Tunnel(SessionOwner):
    """A tunnel after its handshake.

    `fd` is connected and non-blocking; its ownership passes. `dialled`: this side opened the connection.
    `routes`: what streams that the peer opens may reach. `local_window` and `local_streams` are what this side has
    announced, `peer_*` what the peer has (bytes, counts). `silence`: milliseconds without a byte until the peer is taken for dead.
    `tunnel_memory` (bytes) bounds how far the windows of this tunnel may grow in all.
    `quota`: what the streams count in that this side opens.
    `tls`: the pyOpenSSL Connection, on memory buffers and after its handshake, where the tunnel is encrypted.
    `relay`: the other end is another worker of this node (group.pxd).
    `meters`: where streams are recorded that are refused here; those that lead to a service are recorded there.
    `on_control(tunnel, payload)`, `on_close(tunnel, code, reason)` and `on_goaway(tunnel)` are called from the loop.
    """

    def __init__(self, Reactor reactor not None, int fd, *, bint dialled, str name, RouteTable routes not None,
                 uint32_t local_window, uint32_t peer_window, uint32_t local_streams, uint32_t peer_streams,
                 uint32_t silence, uint64_t tunnel_memory, on_control, on_close, on_goaway=None, bytes leftover=b"",
                 tls=None, Quota quota=None, str label="", bint relay=False, Meters meters=None):
        cdef net.sockaddr_storage peer
        cdef net.socklen_t peer_size = sizeof(peer)
        self.reactor = reactor
        self.name = name
        self.label = label.encode() if label else name.encode()
        if tls is not None:
            self.tls = TlsLayer(tls)
            self.tls.established = True
        self.routes = routes
        self.relay = relay
        self.meters = meters
        self.control_callback = on_control
        self.close_callback = on_close
        self.goaway_callback = on_goaway
        reactor.refresh_clock()
        self.session = Session(
            self, dialled=dialled, local_window=local_window, peer_window=peer_window,
            local_streams=local_streams, peer_streams=peer_streams, silence_us=<uint64_t>silence * 1000,
            tunnel_memory=tunnel_memory,
        )
        self.session.quota = quota
        self.link = Link.__new__(Link)
        self.link.tunnel = self
        self.link.reactor = reactor
        self.link.fd = fd
        if net.getpeername(fd, <net.sockaddr*>&peer, &peer_size) == 0:
            set_stream_options(fd, &peer)
        set_lowat(fd)
        if reactor.add(self.link) < 0:
            self.link.fd = -1
            self.link.tunnel = None
            raise OSError(errno, os.strerror(errno))
        self.alive = True
        self.link.writable = self.link.readable = True
        reactor.arm(self.link, TICK_MS)
        reactor.queue_ready(self.link)
        if leftover:
            self.session.now_us = reactor.now_us
            if self.session.receive(leftover, len(leftover)) < 0:
                self.end(<uint16_t>self.session.error, self.reason())
            uncork()

    def __dealloc__(self):
        queue_clear(&self.cipher)

    def send_control(self, bytes payload not None) -> None:
        """Send a CONTROL message. Raises ValueError where it is too long, ConnectionError where the tunnel is gone."""
        if not self.alive:
            raise ConnectionError("the tunnel is closed")
        self.session.now_us = self.reactor.now_us
        if self.session.control(payload, len(payload)) < 0:
            raise ValueError(f"a control message of {len(payload)} bytes can't be sent now")

    def goaway(self, uint16_t code, str reason) -> None:
        """Tell the peer to open no new streams; running ones end. With a code other than 0 it ends the tunnel."""
        if self.alive:
            text = reason.encode()[:256]
            self.session.goaway(code, text)
            self.reactor.mark_dirty(self.link)

    def close(self, uint16_t code, str reason) -> None:
        """End the tunnel now. Requests that are under way fail with tunnel-lost, or are sent again where that is safe."""
        self.end(code, reason)
        uncork()

    def swap(self, RouteTable routes not None) -> None:
        """Use another table for streams that the peer opens from now on."""
        self.routes = routes

    def counters(self) -> dict[str, int]:
        """Return counts of bytes, system calls and the session's own counters, and bytes per second over the last seconds."""
        counts = self.session.counters()
        counts.update(
            bytes_in=self.bytes_in, bytes_out=self.bytes_out, reads=self.reads, writes=self.writes,
            rate_in=round(self.rate_in), rate_out=round(self.rate_out),
        )
        return counts

    @property
    def streams(self) -> int:
        """Streams that are open, whoever opened them."""
        return self.session.active

    @property
    def rtt_us(self) -> int:
        """Smoothed round-trip time in microseconds; 0 before the first measurement."""
        return self.session.life.rtt_us

    @property
    def draining(self) -> bool:
        """One side has said that no new streams are opened."""
        return self.session.going_away

    cdef bint has_output(self) noexcept:
        return self.cipher.size > 0 or self.session.has_output()

    cdef bint take(self, const unsigned char* data, size_t size) noexcept:
        self.session.now_us = self.reactor.now_us
        if self.session.receive(data, size) < 0:
            uncork()
            self.end(<uint16_t>self.session.error, self.reason())
            return False
        uncork()                  # the scratch buffer is used again
        self.reactor.arena_used = 0
        return self.link.fd >= 0

    cdef void read_tls(self) noexcept:
        # Plaintext first: the handshake may have left some behind.
        cdef Reactor reactor = self.reactor
        cdef Link link = self.link
        cdef Py_ssize_t count
        cdef int steps = CIPHER_STEPS
        while True:
            count = self.tls.read(reactor.scratch, SCRATCH_SIZE)
            if count > 0:
                if not self.take(reactor.scratch, <size_t>count):
                    return
                continue
            if count == TLS_END:
                self.end(CODE_TUNNEL_LOST, "the connection was closed by the peer")
                return
            if count != TLS_MORE:
                self.end(CODE_TUNNEL_LOST, f"TLS failed: {self.tls.reason}")
                return
            if steps == 0:
                reactor.queue_ready(link)
                return
            steps -= 1
            count = net.recv(link.fd, ciphertext, CIPHER_SIZE, 0)
            if count < 0 and (errno == net.EAGAIN or errno == net.EINTR):
                link.readable = False
                return
            if count <= 0:
                self.end(CODE_TUNNEL_LOST, "the connection was cut by the peer")
                return
            self.reads += 1
            self.bytes_in += <uint64_t>count
            if self.tls.feed(ciphertext, <size_t>count) < 0:
                self.end(CODE_OVERLOADED, "no memory")
                return

    cdef bint encrypt(self) noexcept:
        # One more piece of the session's output; what was encrypted is never reordered, so it stays small.
        cdef iovec vectors[WRITE_PIECES]
        cdef size_t size = 0
        cdef int count = self.session.gather(vectors, WRITE_PIECES, CIPHER_SIZE)
        cdef int i
        for i in range(count):
            if self.tls.write(vectors[i].iov_base, vectors[i].iov_len) < 0:
                return False
            size += vectors[i].iov_len
        self.session.sent(size)
        while True:
            size = self.tls.drain(ciphertext, CIPHER_SIZE)
            if size == 0:
                return True
            if queue_append(&self.cipher, ciphertext, size) < 0:
                return False

    cdef void flush_tls(self) noexcept:
        cdef iovec vectors[WRITE_PIECES]
        cdef net.msghdr message
        cdef Link link = self.link
        cdef size_t size
        cdef Py_ssize_t taken
        cdef int i
        message.msg_name = message.msg_control = NULL
        message.msg_namelen = message.msg_controllen = 0
        message.msg_flags = 0
        while link.fd >= 0 and link.writable and self.has_output():
            if self.cipher.size == 0 and (not self.encrypt() or self.cipher.size == 0):
                break
            message.msg_iov = vectors
            message.msg_iovlen = queue_vectors(&self.cipher, vectors, WRITE_PIECES, WRITE_BYTES)
            size = 0
            for i in range(<int>message.msg_iovlen):
                size += vectors[i].iov_len
            taken = net.sendmsg(link.fd, &message, net.MSG_NOSIGNAL)
            if taken < 0:
                if errno != net.EAGAIN and errno != net.EINTR:
                    link.writable = False
                    link.readable = True
                    self.reactor.queue_ready(link)
                    return
                taken = 0
            self.writes += 1
            self.bytes_out += <uint64_t>taken
            if <size_t>taken < size:
                link.writable = False
            queue_consume(&self.cipher, <size_t>taken)
        if self.tls.failed:
            link.readable = True  # the reader ends the tunnel
            self.reactor.queue_ready(link)

    cdef void read(self) noexcept:
        cdef Reactor reactor = self.reactor
        cdef Link link = self.link
        cdef Py_ssize_t count
        cdef int steps
        if self.tls is not None:
            self.read_tls()
            return
        for steps in range(READ_STEPS):
            count = net.recv(link.fd, reactor.scratch, SCRATCH_SIZE, 0)
            if count < 0:
                if errno == net.EAGAIN or errno == net.EINTR:
                    link.readable = False
                else:
                    self.end(CODE_TUNNEL_LOST, "the connection was reset by the peer")
                return
            if count == 0:
                self.end(CODE_TUNNEL_LOST, "the connection was closed by the peer")
                return
            self.reads += 1
            self.bytes_in += <uint64_t>count
            if not self.take(reactor.scratch, <size_t>count):
                return
            if <size_t>count < SCRATCH_SIZE and not link.hung_up and not link.broken:
                link.readable = False
                return
        reactor.queue_ready(link)

    cdef void flush(self) noexcept:
        cdef iovec vectors[WRITE_PIECES]
        cdef net.msghdr message
        cdef Link link = self.link
        cdef size_t size
        cdef Py_ssize_t taken
        cdef int count, i
        self.session.now_us = self.reactor.now_us
        if self.tls is not None:
            self.flush_tls()
            return
        while link.fd >= 0 and link.writable and self.session.has_output():
            count = self.session.gather(vectors, WRITE_PIECES, WRITE_BYTES)
            if count == 0:
                return
            if count == 1:
                size = vectors[0].iov_len
                taken = net.send(link.fd, vectors[0].iov_base, size, net.MSG_NOSIGNAL)
            else:
                size = 0
                for i in range(count):
                    size += vectors[i].iov_len
                message.msg_name = NULL
                message.msg_namelen = 0
                message.msg_control = NULL
                message.msg_controllen = 0
                message.msg_flags = 0
                message.msg_iov = vectors
                message.msg_iovlen = count
                taken = net.sendmsg(link.fd, &message, net.MSG_NOSIGNAL)
            if taken < 0:
                if errno != net.EAGAIN and errno != net.EINTR:
                    # The reader finds out and ends the tunnel, after what the peer still had to say.
                    link.writable = False
                    link.readable = True
                    self.reactor.queue_ready(link)
                    return
                taken = 0
            self.writes += 1
            self.bytes_out += <uint64_t>taken
            if <size_t>taken < size:
                link.writable = False
            self.session.sent(<size_t>taken)

    cdef void tick(self) noexcept:
        self.session.now_us = self.reactor.now_us
        if self.session.tick() < 0:
            self.end(CODE_TUNNEL_LOST, "the peer has been silent for too long")
            return
        if self.session.remotes.active:
            end_late(self.session)
            uncork()
        if self.alive:
            self.reactor.arm(self.link, TICK_MS)
            self.rate()

    cdef void rate(self) noexcept:
        cdef uint64_t span = self.reactor.now_us - self.rated_us
        cdef double weight
        if self.rated_us and span:
            weight = 1.0 - exp(-<double>span / RATE_US)
            self.rate_in += weight * (1e6 * <double>(self.bytes_in - self.rated_in) / <double>span - self.rate_in)
            self.rate_out += weight * (1e6 * <double>(self.bytes_out - self.rated_out) / <double>span - self.rate_out)
        self.rated_us = self.reactor.now_us
        self.rated_in = self.bytes_in
        self.rated_out = self.bytes_out

    cdef void end(self, uint16_t code, str reason) noexcept:
        cdef Link link = self.link
        if not self.alive:
            return
        self.alive = False
        if code != CODE_TUNNEL_LOST:
            self.session.goaway(code, <bytes>reason.encode()[:256])
            self.flush()
        if self.tls is not None:
            self.tls.end()
            self.encrypt()
            self.flush()
        self.reactor.remove(link)
        link.tunnel = None
        self.session.abort(CODE_TUNNEL_LOST, b"the tunnel was lost")
        try:
            self.reactor.loop.call_soon(self.close_callback, self, code, reason)
        except RuntimeError:      # the loop is closed
            pass
        self.control_callback = self.goaway_callback = self.close_callback = None

    cdef str reason(self):
        return (<bytes>self.session.reason).decode("utf-8", "replace")

    # --- SessionOwner -----------------------------------------------------

    cdef void on_open(self, Stream stream, const unsigned char* meta, size_t meta_size,
                      const unsigned char* head, size_t head_size,
                      const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        cdef int result
        self.found = None
        self.understood = False
        if chunk_bytes() > memory_limit():
            self.refuse(stream, CODE_OVERLOADED, head, head_size, flags & HEAD_TCP, b"the memory budget is used up")
            return
        if flags & HEAD_TCP:
            result = self.join_tcp(stream, head, head_size)
        else:
            result = self.join_http(stream, &head, &head_size, &flags)
        if result == JOINED:
            if meta_size:
                stream.peer.take_meta(meta, meta_size)
            if not guard_take(&stream.guard, body_size, self.reactor.now_us):
                stream.fail(CODE_BODY_TOO_LARGE, BODY_TOO_LARGE)
                return
            stream.peer.take_head(head, head_size, body, body_size, flags)
        elif self.relay and (result == JOIN_WAIT or result == CODE_NO_SERVICE):
            stream.reset(CODE_REFUSED, NEVER_SENT, b"")       # has just gone: the worker that asks looks again
        else:
            self.refuse(stream, CODE_NO_AGENT if result == JOIN_WAIT else <uint16_t>result, head, head_size,
                        flags & HEAD_TCP, b"")
        self.found = None

    cdef void refuse(self, Stream stream, uint16_t code, const unsigned char* head, size_t size, bint tcp,
                     const char* reason) noexcept:
        # Before it was joined to anything: nobody else would record it.
        cdef Record record
        stream.reset(code, NEVER_SENT, reason)
        if self.meters is None:
            return
        memset(&record, 0, sizeof(Record))
        if tcp:
            record.service.data = head
            record.service.size = <uint32_t>size
        elif self.understood:
            record.head.data = head
            record.head.size = <uint32_t>size
        record.tunnel = text_of(self.label)
        record.reason.data = <const unsigned char*>reason
        record.reason.size = <uint32_t>strlen(reason)
        record.ended_us = self.reactor.now_us
        record.failure = code
        record.delivery = NEVER_SENT
        record.joined_us = record.replied_us = NEVER
        settle(self.meters, self.found, &record)

    cdef int join_http(self, Stream stream, const unsigned char** message, size_t* size, uint32_t* flags) noexcept:
        # The peer's head is read as strictly as a client's: it may be any bytes.
        cdef const unsigned char* data = message[0]
        cdef const char* reason = NULL
        cdef uint32_t resume = 0
        cdef int ambiguous = 0
        cdef bint upgrade
        cdef Head head
        cdef Target found
        head.fields = fields
        if size[0] == 0 or scan_request(data, size[0], &limits, &resume, &head, &reason) != <int>size[0]:
            return CODE_BAD_REQUEST
        if not canonical_hops(data, &head):
            return CODE_BAD_REQUEST
        found = self.routes.find(data + head.host.start, head.host.size, data + head.path.start, head.path.size,
                                 &ambiguous)
        if ambiguous:
            return CODE_BAD_REQUEST
        self.understood = True
        if not isinstance(found, Egress):
            return CODE_NO_SERVICE
        self.found = <Egress>found
        if isinstance(found, Pool):
            upgrade = head.upgrade and not offered(data, &head, (<Pool>found).settings.upgrades).size
            if not self.guard(stream, (<Pool>found).settings, &head, head.upgrade and not upgrade):
                return CODE_BODY_TOO_LARGE
            if (upgrade or (<Pool>found).distrusts) and not self.strip(&head, upgrade, (<Pool>found).distrusts, message, size):
                return CODE_OVERLOADED
            if upgrade:
                flags[0] |= HEAD_END      # not allowed on this side: an ordinary request, which is all there with its head
        return (<Egress>found).join(stream, &head)

    cdef bint strip(self, Head* head, bint upgrade, bint identity, const unsigned char** data, size_t* size) noexcept:
        cdef unsigned char* out = self.reactor.borrow(size[0])
        cdef Py_ssize_t written
        if out == NULL:
            return False
        written = without_fields(data[0], head, upgrade, identity, out, size[0])
        if written < 0:
            return False
        if upgrade:
            head.upgrade = False  # the spans are those of the old bytes: a join does not use them
        data[0] = out
        size[0] = <size_t>written
        return True

    cdef int join_tcp(self, Stream stream, const unsigned char* name, size_t size) noexcept:
        cdef Target found = self.routes.by_name(name, size)
        if not isinstance(found, Egress):
            return CODE_NO_SERVICE
        self.found = <Egress>found
        if isinstance(found, Pool):
            self.guard(stream, (<Pool>found).settings, NULL, False)
        return (<Egress>found).join(stream, NULL)

    cdef bint guard(self, Stream stream, Settings settings, const Head* head, bint switching) noexcept:
        # Hold the stream to the limits of the service here, whatever the peer holds it to. False: it is over them. What asks for
        # another protocol (`switching`) is timed by the upstream connection, until and after its 101.
        if switching:
            return True
        if settings.total_timeout:
            stream.guard.late_us = self.reactor.now_us + settings.total_timeout * 1000
        stream.guard.idle_us = settings.stream_idle * 1000
        if head == NULL:
            return True
        stream.guard.body_left = settings.body
        return head.framing != BODY_LENGTH or head.content_length <= settings.body

    cdef void on_control(self, const unsigned char* data, size_t size) noexcept:
        # Many frames may come before Python has its turn.
        if size > CONTROL_LIMIT - self.undelivered:
            self.end(CODE_OVERLOADED, "too many control messages at once")
            return
        try:
            self.reactor.loop.call_soon(self.deliver, data[:size])
            self.undelivered += <uint32_t>size
        except Exception as error:
            self.end(CODE_PROTOCOL, f"a control message could not be delivered: {error}")

    def deliver(self, bytes payload not None) -> None:
        """Pass a control message on; called by the loop."""
        self.undelivered -= <uint32_t>len(payload)
        if self.control_callback is not None:
            self.control_callback(self, payload)

    cdef void on_goaway(self) noexcept:
        callback = self.goaway_callback
        if callback is not None:
            self.goaway_callback = None       # a second GOAWAY says nothing new
            self.tell_parting()
            try:
                self.reactor.loop.call_soon(callback, self)
            except RuntimeError:
                pass

    cdef void tell_parting(self) noexcept:
        # Those whose requests run in our streams. None of them ends a stream over it at once.
        cdef SlotTable* locals = &self.session.locals
        cdef Stream stream
        cdef uint32_t slot
        for slot in range(locals.touched):
            if locals.slots[slot].stream != NULL:
                stream = <Stream>locals.slots[slot].stream
                if stream.peer is not None:
                    stream.peer.on_parting()

    cdef void on_output(self) noexcept:
        self.reactor.mark_dirty(self.link)

    cdef uint16_t on_refused(self, object egress) noexcept:
        if not self.relay or not isinstance(egress, Egress):
            return CODE_REFUSED
        (<Egress>egress).doubt(self)
        return CODE_MOVED

    cdef void on_release(self) noexcept:
        pass

    cdef void on_lent_over(self) noexcept:
        uncork()
