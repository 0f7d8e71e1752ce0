"""External ports and their connections: shared snapshots, limits, the list of who is there. See connection.pxd."""

from libc.stdint cimport uint8_t, uint16_t

cimport cython
from _fastpath cimport net
from _fastpath.address cimport ADDRESS_SIZE, read_address, write_address
from _fastpath.crowd cimport CROWD_NOWHERE, own_crowd
from _fastpath.end cimport CODE_BAD_REQUEST, CODE_FORBIDDEN, CODE_OVERLOADED
from _fastpath.net cimport errno
from _fastpath.proxy cimport MAX_PROXY, PROXY_MORE, ProxyHeader, scan_proxy
from _fastpath.tls cimport TLS_MORE, TlsLayer

cdef enum:
    FIRST_READ = 4096             # holds every usual ClientHello, and every PROXY header

cdef unsigned char first[FIRST_READ]


@cython.final
cdef class Headcount:
    """The connections of one port in all workers.

    `memory` is writable and shared: native unsigned 32-bit cells, one for each worker. `mine` is the index of ours.
    Raises ValueError where there is no such cell.
    """

    def __init__(self, memory not None, uint32_t mine):
        cdef uint32_t[::1] view = memoryview(memory).cast("B").cast("I")
        if mine >= <size_t>view.shape[0]:
            raise ValueError("there is no cell of that number")
        self.memory = view
        self.cells = &view[0]
        self.count = <uint32_t>view.shape[0]
        self.mine = mine

    cdef uint32_t others(self) noexcept:
        cdef uint32_t total = 0
        cdef uint32_t i
        for i in range(self.count):
            if i != self.mine:
                total += self.cells[i]
        return total


cdef class Port(Pollable):
    """What the connections of one external port share. Only the compiled Listener is useful."""

    cdef bint welcomes(self, Connection connection) noexcept:
        cdef unsigned char raw[ADDRESS_SIZE]
        if self.admission is None and self.trusted is None:
            return True
        if not read_address(<const unsigned char*>connection.address, connection.address_size, raw):
            return False
        connection.trusted = self.trusted is not None and self.trusted.has(raw)
        if self.proxied and connection.greeting:
            return connection.trusted
        if connection.trusted and self.kind == PORT_HTTP:
            return True           # it speaks for others: looked at request by request
        return self.admission is None or self.admission.admits(raw)

    cdef bint admit(self, Connection connection) noexcept:
        cdef uint32_t elsewhere = self.headcount.others() if self.headcount is not None else 0
        cdef bint room = self.connections + elsewhere < self.settings.connections
        connection.previous_connection = self.last
        connection.next_connection = NULL
        if self.last != NULL:
            (<Connection>self.last).next_connection = <PyObject*>connection
        else:
            self.first = <PyObject*>connection
        self.last = <PyObject*>connection
        self.connections += 1
        if self.headcount is not None:
            self.headcount.cells[self.headcount.mine] += 1
        connection.admitted = True
        if self.settings.connections_per_address and not connection.greeting:
            return self.admit_address(connection) and room
        return room

    cdef bint admit_address(self, Connection connection) noexcept:
        try:
            if self.crowd is None:
                self.crowd = own_crowd()
        except Exception:
            return False
        connection.place = self.crowd.enter(connection.address, connection.address_size)
        if connection.place == CROWD_NOWHERE:
            return True           # more addresses than there are places: the limit of all connections holds
        connection.by_address = True
        return self.crowd.count(connection.place) <= self.settings.connections_per_address

    cdef void forget(self, Connection connection) noexcept:
        if not connection.admitted:
            return
        connection.admitted = False
        if connection.previous_connection != NULL:
            (<Connection>connection.previous_connection).next_connection = connection.next_connection
        else:
            self.first = connection.next_connection
        if connection.next_connection != NULL:
            (<Connection>connection.next_connection).previous_connection = connection.previous_connection
        else:
            self.last = connection.previous_connection
        self.connections -= 1
        if self.headcount is not None:
            self.headcount.cells[self.headcount.mine] -= 1
        if connection.told:
            connection.told = False
            self.told -= 1
        if connection.by_address:
            connection.by_address = False
            self.crowd.leave(connection.place)


@cython.no_gc
cdef class Connection(Ingress):
    """An accepted connection. Only compiled subclasses are useful."""

    cdef void accepted(self) noexcept:
        pass

    cdef void refuse(self, uint16_t code) noexcept:
        pass

    cdef void turn_away(self, uint16_t code) noexcept:
        pass

    cdef void drain(self) noexcept:
        pass

    cdef void spoke_plain(self) noexcept:
        pass

    cdef void spoke_tls(self) noexcept:
        pass

    cdef bint greet(self) noexcept:
        # Looked at where it lies in the kernel: what stands behind it is left there for whoever reads next.
        cdef ProxyHeader header
        cdef Py_ssize_t count
        cdef int size
        if not self.readable:
            return False
        count = net.recv(self.fd, first, MAX_PROXY, net.MSG_PEEK)
        if count < 0 and (errno == net.EAGAIN or errno == net.EINTR):
            self.readable = False
            return False
        if count <= 0:
            self.broken = True
            return False
        size = scan_proxy(first, <size_t>count, &header)
        if size == PROXY_MORE and not self.hung_up:
            self.readable = False
            return False
        if size <= 0 or net.recv(self.fd, first, <size_t>size, 0) != size:
            self.listener.denied += 1
            self.turn_away(CODE_BAD_REQUEST)
            return False
        self.greeting = False
        return self.introduce(&header)

    cdef bint introduce(self, const ProxyHeader* header) noexcept:
        # The client is whom the proxy names; where it names nobody, the proxy.
        cdef Port port = self.listener
        if header.known:
            self.address_size = <uint8_t>write_address(header.source, self.address)
            self.port = header.source_port
            if not port.welcomes(self):
                port.denied += 1
                self.turn_away(CODE_FORBIDDEN)
                return False
        if port.settings.connections_per_address and not port.admit_address(self):
            port.refused += 1
            self.turn_away(CODE_OVERLOADED)
            return False
        return True

    cdef bint begin_tls(self) noexcept:
        # Nothing is made for a client before its first byte: a silent one costs a descriptor.
        cdef Py_ssize_t count
        if not self.readable:
            return False
        self.fresh = False
        count = net.recv(self.fd, first, FIRST_READ, 0)
        if count < 0 and (errno == net.EAGAIN or errno == net.EINTR):
            self.readable = False
            return False
        if count <= 0:
            self.broken = True
            return False
        if first[0] != HANDSHAKE_RECORD:
            self.shaking = False
            self.spoke_plain()
            return False
        if count == FIRST_READ:
            self.fresh = True
        try:
            self.tls = TlsLayer(self.listener.tls())
        except Exception:
            self.listener.handshake_failures += 1
            self.broken = True
            return False
        return self.tls.feed(first, <size_t>count) == 0

    cdef bint shake(self) noexcept:
        cdef int result
        if self.tls is None and not self.begin_tls():
            return False
        result = self.shake_tls()
        if result == 1:
            self.shaking = False
            self.listener.handshakes += 1
            self.listener.resumed += self.tls.resumed()
        elif result != TLS_MORE:
            self.listener.handshake_failures += 1
            self.broken = True
            self.tell_failure()
        return result == 1

    cdef void tell_failure(self) noexcept:
        # Nothing is told of a client that has just left.
        if self.tls.failed:
            try:
                self.listener.tls.failed((<bytes>self.address[:self.address_size]).decode(), self.tls.reason)
            except Exception:
                pass

    cdef void left(self) noexcept:
        if self.listener is not None:
            self.listener.forget(self)
