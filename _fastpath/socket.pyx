"""Connected stream sockets and the corked writer. See socket.pxd."""

from libc.string cimport memcpy, memset

cimport cython
from _fastpath cimport net
from _fastpath.address cimport ADDRESS_SIZE, write_address
from _fastpath.memory cimport queue_append, queue_clear, queue_consume, queue_vectors
from _fastpath.net cimport errno
from _fastpath.reactor cimport set_after_call
from _fastpath.tls cimport TLS_END, TLS_FAILED, TLS_MORE, TLS_RECORD, TlsLayer

cdef enum:
    CORK_PIECES = 64
    FLUSH_PIECES = 64
    FLUSH_BYTES = 1048576
    SMALL_WRITE = 4096            # pieces up to this in all are joined: send costs less than sendmsg
    NOTSENT_LOWAT = 131072
    CIPHER_IN = 32768             # ciphertext taken in one read: two records
    CIPHER_OUT = 131072           # ... and handed over in one write
    CIPHER_RECORD = 16896         # a record with its header and tag, at most (RFC 8446 5.2)
    MAX_CONGESTION = 16           # the kernel's TCP_CA_NAME_MAX

# The one corked Socket of this thread; a borrowed reference, cleared by uncork and by remove.
cdef Socket corked = None
cdef iovec pieces[CORK_PIECES]
cdef int piece_count = 0
cdef size_t piece_bytes = 0
cdef unsigned char joined[SMALL_WRITE]
cdef unsigned char cipher[CIPHER_OUT]         # these two in use inside one call only
cdef unsigned char record[TLS_RECORD]

cdef char congestion[MAX_CONGESTION]
cdef uint32_t congestion_size = 0             # 0: the kernel's default
cdef bint congestion_everywhere = False       # else on the loopback only


cdef Py_ssize_t send_vectors(int fd, iovec* vectors, int count, size_t size) noexcept:
    # Bytes taken, -1 with errno.
    cdef net.msghdr message
    cdef size_t used = 0
    cdef int i
    if count == 1:
        return net.send(fd, vectors[0].iov_base, vectors[0].iov_len, net.MSG_NOSIGNAL)
    if size <= SMALL_WRITE:
        for i in range(count):
            memcpy(joined + used, vectors[i].iov_base, vectors[i].iov_len)
            used += vectors[i].iov_len
        return net.send(fd, joined, used, net.MSG_NOSIGNAL)
    memset(&message, 0, sizeof(message))
    message.msg_iov = vectors
    message.msg_iovlen = count
    return net.sendmsg(fd, &message, net.MSG_NOSIGNAL)


cdef void uncork() noexcept:
    global corked, piece_count, piece_bytes
    cdef Socket target = corked
    cdef int count = piece_count
    cdef size_t size = piece_bytes
    cdef size_t skip
    cdef Py_ssize_t taken = 0
    cdef int i
    if target is None:
        return
    corked = None
    piece_count = 0
    piece_bytes = 0
    if target.fd < 0:
        return
    if target.tls is not None:
        taken = target.encrypt(pieces, count, size)
        if taken >= 0:
            target.finish_send(<size_t>taken)
        return
    if target.writable and target.out.size == 0:
        taken = send_vectors(target.fd, pieces, count, size)
        if taken < 0:
            if errno != net.EAGAIN and errno != net.EINTR:
                target.write_failed()
                return
            taken = 0
        if <size_t>taken < size:
            target.writable = False
    if <size_t>taken < size:
        skip = <size_t>taken
        for i in range(count):
            if skip >= pieces[i].iov_len:
                skip -= pieces[i].iov_len
                continue
            if queue_append(&target.out, <unsigned char*>pieces[i].iov_base + skip, pieces[i].iov_len - skip) < 0:
                target.write_failed()
                return
            skip = 0
    target.finish_send(<size_t>taken)


set_after_call(uncork)


@cython.no_gc
cdef class Socket(Pollable):
    """A connected stream socket. Only compiled subclasses are useful."""

    def __dealloc__(self):
        queue_clear(&self.out)

    cdef Py_ssize_t receive(self, void* data, size_t size) noexcept:
        cdef Py_ssize_t count
        if self.tls is not None:
            return self.receive_tls(<unsigned char*>data, size)
        count = net.recv(self.fd, data, size, 0)
        if count > 0:
            self.bytes_in += <uint64_t>count
            # A short read has emptied the socket, unless an end or an error waits behind the bytes.
            if <size_t>count < size and not self.hung_up and not self.broken:
                self.readable = False
            return count
        if count == 0:
            return 0
        if errno == net.EAGAIN or errno == net.EINTR:
            self.readable = False
            return RECV_AGAIN
        self.broken = True
        return RECV_FAILED

    cdef Py_ssize_t feed_tls(self) noexcept:
        cdef Py_ssize_t count
        # Cleared first: what arrives from here on is announced again.
        self.fresh = False
        count = net.recv(self.fd, cipher, CIPHER_IN, 0)
        if count > 0:
            self.bytes_in += <uint64_t>count
            if count == CIPHER_IN or self.hung_up or self.broken:
                self.fresh = True
            if self.tls.feed(cipher, <size_t>count) < 0:
                self.broken = True
                return RECV_FAILED
            return count
        if count < 0 and (errno == net.EAGAIN or errno == net.EINTR):
            return RECV_AGAIN
        self.broken = True        # also an end without close_notify: what came may have been cut short
        return RECV_FAILED

    cdef Py_ssize_t receive_tls(self, unsigned char* data, size_t size) noexcept:
        # As much as there is, so that the caller learns that there is no more.
        cdef size_t total = 0
        cdef Py_ssize_t count
        while total < size:
            count = self.tls.read(data + total, size - total)
            if count > 0:
                total += <size_t>count
                if self.tls.emptied() and not self.fresh and not self.broken:
                    self.readable = False
                    break
                continue
            if count == TLS_END:
                return <Py_ssize_t>total
            if count != TLS_MORE:
                self.send_tls()   # the alert that says so
                self.broken = True
                return <Py_ssize_t>total if total else RECV_FAILED
            if not self.fresh:
                if self.broken:
                    return <Py_ssize_t>total if total else RECV_FAILED
                self.readable = False
                break
            count = self.feed_tls()
            if count == RECV_FAILED:
                return <Py_ssize_t>total if total else RECV_FAILED
            if count == RECV_AGAIN:
                self.readable = False
                break
        return <Py_ssize_t>total if total else RECV_AGAIN

    cdef Py_ssize_t encrypt(self, iovec* parts, int count, size_t size) noexcept:
        # What fits into one record becomes one; else each part, record by record, so that the memory BIO never
        # holds more than one. Bytes that the kernel took, or -1.
        cdef const unsigned char* at
        cdef size_t left, part
        cdef size_t used = 0
        cdef size_t sent = 0
        cdef int i
        if size <= TLS_RECORD:
            if count > 1:
                for i in range(count):
                    memcpy(record + used, parts[i].iov_base, parts[i].iov_len)
                    used += parts[i].iov_len
                if self.tls.write(record, used) < 0:
                    self.write_failed()
                    return -1
            elif self.tls.write(parts[0].iov_base, size) < 0:
                self.write_failed()
                return -1
            return <Py_ssize_t>self.send_tls()
        for i in range(count):
            at = <const unsigned char*>parts[i].iov_base
            left = parts[i].iov_len
            while left > 0:
                part = left if left < TLS_RECORD else <size_t>TLS_RECORD
                if self.tls.write(at, part) < 0:
                    self.write_failed()
                    return -1
                used += self.tls.drain(cipher + used, CIPHER_OUT - used)
                if used > CIPHER_OUT - CIPHER_RECORD:
                    sent += self.send_cipher(used)
                    used = 0
                at += part
                left -= part
        sent += self.send_cipher(used)
        return <Py_ssize_t>(sent + self.send_tls())

    cdef size_t send_tls(self) noexcept:
        # Returns how many bytes the kernel took; the rest waits in `out`.
        cdef size_t size = CIPHER_OUT
        cdef size_t sent = 0
        while size == CIPHER_OUT and self.fd >= 0:
            size = self.tls.drain(cipher, CIPHER_OUT)
            sent += self.send_cipher(size)
        return sent

    cdef size_t send_cipher(self, size_t size) noexcept:
        cdef Py_ssize_t taken = 0
        if size == 0 or self.fd < 0 or self.broken:
            return 0
        if self.writable and self.out.size == 0:
            taken = net.send(self.fd, cipher, size, net.MSG_NOSIGNAL)
            if taken < 0:
                if errno != net.EAGAIN and errno != net.EINTR:
                    self.write_failed()
                    return 0
                taken = 0
            if <size_t>taken < size:
                self.writable = False
        if <size_t>taken < size and queue_append(&self.out, cipher + taken, size - <size_t>taken) < 0:
            self.write_failed()
        return <size_t>taken

    cdef int shake_tls(self) noexcept:
        cdef int result
        while self.fd >= 0 and not self.broken:
            result = self.tls.handshake()
            self.finish_send(self.send_tls())
            if result != TLS_MORE:
                return result
            if not self.fresh or self.feed_tls() == RECV_AGAIN:
                self.readable = False
                return TLS_MORE
        return TLS_FAILED

    cdef void finish_send(self, size_t taken) noexcept:
        if taken > 0:
            self.bytes_out += <uint64_t>taken
            self.report(taken)
        if self.out.size == 0 and self.fd >= 0:
            self.on_sent()
        elif self.fd >= 0:
            self.on_blocked()

    cdef uint64_t acknowledged(self) noexcept:
        cdef int queued = 0
        if self.fd < 0 or net.ioctl(self.fd, net.SIOCOUTQ, &queued) < 0 or queued < 0:
            queued = 0
        return self.bytes_out - <uint64_t>queued

    cdef void write(self, const void* data, size_t size) noexcept:
        global corked, piece_count, piece_bytes
        if size == 0 or self.fd < 0:
            return
        if corked is not self:
            uncork()
            if self.fd < 0:
                return
            if self.out.size > 0 or not self.writable:
                self.write_copy(data, size)
                return
            corked = self
        elif piece_count == CORK_PIECES:
            uncork()
            if self.fd < 0:
                return
            if self.out.size > 0 or not self.writable:
                self.write_copy(data, size)
                return
            corked = self
        pieces[piece_count].iov_base = <void*>data
        pieces[piece_count].iov_len = size
        piece_count += 1
        piece_bytes += size

    cdef void write_copy(self, const void* data, size_t size) noexcept:
        if corked is self:
            uncork()
        if self.fd < 0:
            return
        if self.tls is not None:
            if self.tls.write(data, size) < 0:
                self.write_failed()
                return
            self.send_tls()
        elif queue_append(&self.out, data, size) < 0:
            self.write_failed()
            return
        if self.writable:
            self.reactor.mark_dirty(self)

    cdef void on_flush(self) noexcept:
        self.flush()

    cdef void flush(self) noexcept:
        cdef iovec vectors[FLUSH_PIECES]
        cdef size_t before = self.out.size
        cdef size_t size
        cdef Py_ssize_t taken
        cdef int count, i
        while self.out.size > 0 and self.writable:
            count = queue_vectors(&self.out, vectors, FLUSH_PIECES, FLUSH_BYTES)
            size = 0
            for i in range(count):
                size += vectors[i].iov_len
            taken = send_vectors(self.fd, vectors, count, size)
            if taken < 0:
                if errno != net.EAGAIN and errno != net.EINTR:
                    self.write_failed()
                    return
                taken = 0
            if <size_t>taken < size:
                self.writable = False
            self.bytes_out += <uint64_t>taken
            queue_consume(&self.out, <size_t>taken)
        if self.out.size < before:
            self.report(before - self.out.size)
            if self.fd >= 0:
                self.on_sent()
        if self.out.size == 0 and self.fd >= 0:
            self.finish_writing()

    cdef void finish_writing(self) noexcept:
        if self.closing:
            self.reactor.remove(self)
            self.on_closed()
        elif self.shut_wanted and not self.shut:
            self.shut = True
            net.shutdown(self.fd, net.SHUT_WR)

    cdef void say_end(self) noexcept:
        if self.tls is not None and self.fd >= 0:
            self.tls.end()
            self.send_tls()

    cdef void end_writing(self) noexcept:
        if corked is self:
            uncork()
        self.say_end()
        self.shut_wanted = True
        if self.out.size == 0 and self.fd >= 0:
            self.finish_writing()

    cdef void close_gracefully(self) noexcept:
        if corked is self:
            uncork()
        if self.fd < 0:
            return
        self.say_end()
        self.closing = True
        if self.out.size == 0:
            self.finish_writing()

    cdef void reset_hard(self) noexcept:
        cdef net.linger option
        if self.fd < 0:
            return
        option.l_onoff = 1
        option.l_linger = 0
        net.setsockopt(self.fd, net.SOL_SOCKET, net.SO_LINGER, &option, sizeof(option))
        queue_clear(&self.out)
        self.reactor.remove(self)
        self.on_closed()

    cdef void write_failed(self) noexcept:
        # The peer is gone: nothing more can be written. The reader finds out and ends the exchange,
        # at the top level of a batch and not inside whoever is writing.
        queue_clear(&self.out)
        self.writable = False
        self.broken = self.readable = True
        self.reactor.queue_ready(self)

    cdef size_t sink_room(self) noexcept:
        cdef size_t held = self.out.size
        if self.tls is not None:
            held += self.tls.early.size
        if held >= OUT_HIGH or self.broken:
            self.starved = True
            return 0
        return OUT_HIGH - held

    cdef void report(self, size_t sent) noexcept:
        # Heads and chunk framing are counted with the body they go with: credit may be granted by
        # so many bytes too early, never for more than was passed.
        if sent > self.unreported:
            sent = self.unreported
        if sent and self.peer is not None:
            self.unreported -= sent
            self.peer.consumed(sent)
        if self.starved and self.out.size < OUT_LOW and self.peer is not None:
            self.starved = False
            self.peer.on_room()

    cdef void on_sent(self) noexcept:
        pass

    cdef void on_blocked(self) noexcept:
        pass

    cdef void on_closed(self) noexcept:
        pass


def set_congestion(str choice not None) -> None:
    """Choose the congestion control of connections that are made from now on.

    "system": the kernel's default. "auto": the same, but on the loopback "reno", which every kernel offers to everybody: there
    is no network to share, and the timers of pacing ones such as bbr cost more than the copying. Otherwise a name of at most 15
    ASCII characters for all connections; where the kernel refuses it, its default remains.
    """
    global congestion_size, congestion_everywhere
    name = b"" if choice == "system" else b"reno" if choice == "auto" else choice.encode("ascii")
    if len(name) >= MAX_CONGESTION:
        raise ValueError("the name of a congestion control has at most 15 characters")
    congestion_everywhere = choice != "auto"
    congestion_size = <uint32_t>len(name)
    memcpy(congestion, <char*>name, len(name))


cdef bint is_loopback(const sockaddr_storage* address) noexcept:
    cdef const unsigned char* raw
    cdef int i
    if address.ss_family == net.AF_INET:
        return (<const unsigned char*>&(<const net.sockaddr_in*>address).sin_addr)[0] == 127
    if address.ss_family != net.AF_INET6:
        return False
    raw = <const unsigned char*>&(<const net.sockaddr_in6*>address).sin6_addr
    for i in range(10):
        if raw[i] != 0:
            return False
    if raw[10] == 0xff and raw[11] == 0xff:
        return raw[12] == 127
    return raw[10] == raw[11] == raw[12] == raw[13] == raw[14] == 0 and raw[15] == 1


cdef void set_stream_options(int fd, const sockaddr_storage* peer) noexcept:
    cdef int one = 1
    if peer.ss_family == net.AF_UNIX:
        return
    net.setsockopt(fd, net.IPPROTO_TCP, net.TCP_NODELAY, &one, sizeof(one))
    if congestion_size and (congestion_everywhere or is_loopback(peer)):
        net.setsockopt(fd, net.IPPROTO_TCP, net.TCP_CONGESTION, congestion, congestion_size)


cdef void set_lowat(int fd) noexcept:
    cdef int lowat = NOTSENT_LOWAT
    net.setsockopt(fd, net.IPPROTO_TCP, net.TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat))


cdef int start_connect(const sockaddr_storage* address, socklen_t size) noexcept:
    cdef int fd = net.socket(address.ss_family, net.SOCK_STREAM | net.SOCK_NONBLOCK | net.SOCK_CLOEXEC, 0)
    if fd < 0:
        return -1
    set_stream_options(fd, address)
    if net.connect(fd, <const sockaddr*>address, size) < 0 and errno != net.EINPROGRESS:
        net.close(fd)
        return -1
    return fd


cdef int connect_error(int fd) noexcept:
    cdef int error = 0
    cdef socklen_t size = sizeof(error)
    if net.getsockopt(fd, net.SOL_SOCKET, net.SO_ERROR, &error, &size) < 0:
        return -1
    return error


cdef bint peek_alive(int fd) noexcept:
    # An idle upstream connection has nothing to say; bytes or an end mean that it is of no use.
    cdef char byte
    return net.recv(fd, &byte, 1, net.MSG_PEEK | net.MSG_DONTWAIT) < 0 and errno == net.EAGAIN


cdef bint raw_address(const sockaddr_storage* address, unsigned char* raw, uint16_t* port) noexcept:
    cdef const net.sockaddr_in* four
    cdef const net.sockaddr_in6* six
    port[0] = 0
    if address.ss_family == net.AF_INET:
        four = <const net.sockaddr_in*>address
        port[0] = net.ntohs(four.sin_port)
        memset(raw, 0, ADDRESS_SIZE)
        raw[10] = raw[11] = 0xff
        memcpy(raw + 12, &four.sin_addr, 4)
        return True
    if address.ss_family == net.AF_INET6:
        six = <const net.sockaddr_in6*>address
        port[0] = net.ntohs(six.sin6_port)
        memcpy(raw, &six.sin6_addr, ADDRESS_SIZE)
        return True
    return False


cdef uint32_t address_text(const sockaddr_storage* address, char* out, uint16_t* port) noexcept:
    # An IPv4 client of a dual-stack port is an IPv4 client (RFC 4291 2.5.5.2).
    cdef unsigned char raw[ADDRESS_SIZE]
    if raw_address(address, raw, port):
        return write_address(raw, out)
    memcpy(out, b"unix", 5)
    return 4
