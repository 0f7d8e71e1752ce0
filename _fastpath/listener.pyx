"""External ports: accepting, limits of connections, and what a port's connections share. See listener.pxd."""


from libc.stdint cimport uint8_t

cimport cython
from _fastpath cimport net
from _fastpath.client cimport Client
from _fastpath.connection cimport PORT_HTTP, PORT_TCP, PORT_TLS, Connection, Headcount, Port
from _fastpath.crowd cimport Crowd
from _fastpath.end cimport CODE_FORBIDDEN, CODE_OVERLOADED
from _fastpath.exchange cimport Lobby, tally_counters
from _fastpath.meter cimport Meters
from _fastpath.net cimport errno, sockaddr, sockaddr_storage, socklen_t
from _fastpath.gate cimport Gate
from _fastpath.networks cimport Admission, Networks
from _fastpath.reactor cimport PyObject, Reactor
from _fastpath.route cimport RouteTable
from _fastpath.settings cimport Settings
from _fastpath.socket cimport address_text, set_stream_options, uncork
from _fastpath.tcp cimport TcpEnd

import os

cdef enum:
    ACCEPT_BATCH = 8              # in one turn: workers that share a socket are to get their share
    STOP_BATCHES = 512
    PAUSE_MS = 200                # out of descriptors: look again then
    MAX_TOLD = 256                # clients at once that are told that their address is not allowed


@cython.final
cdef class Listener(Port):
    """An external port.

    `fd` is a bound, listening, non-blocking socket whose ownership passes to the Listener. `kind` is
    "http", "tcp" or "tls"; a tcp port needs the `service` it leads to. Requests go to the first table that knows
    them: `local`, then `delegated`. `tls`, where the port speaks TLS, makes the pyOpenSSL Connection of each
    client, when its first byte has come, and is told of failed handshakes by `failed(address, reason)`. `meters` count its exchanges by
    service. Raises ValueError for a wrong kind, OSError where the socket can't be watched.
    """

    def __cinit__(self, Reactor reactor, int fd, str name, str kind, Settings settings, str via,
                  RouteTable local, RouteTable delegated, service=None, tls=None,
                  Meters meters=None):
        kinds = {"http": PORT_HTTP, "tcp": PORT_TCP, "tls": PORT_TLS}
        if kind not in kinds:
            raise ValueError(f"an external port is http, tcp or tls, not {kind}")
        if kind == "tcp" and not service:
            raise ValueError("a tcp port needs the name of its service")
        self.reactor = reactor
        self.name = name
        self.name_bytes = name.encode()
        self.via = via.encode("ascii")
        self.kind = kinds[kind]
        self.service_name = service
        self.service = (service or "").encode()
        self.tls = tls
        self.meters = Meters(name) if meters is None else meters
        self.swap(local, delegated, settings)
        self.fd = fd
        if reactor.add(self) < 0:
            self.fd = -1
            raise OSError(errno, os.strerror(errno))
        self.readable = True
        reactor.queue_ready(self)

    def swap(self, RouteTable local not None, RouteTable delegated not None, Settings settings not None) -> None:
        """Use other tables and limits for requests and connections that begin from now on."""
        self.local = local
        self.delegated = delegated
        self.settings = settings

    def set_tls(self, tls not None) -> None:
        """Use other certificates and rules for connections that come from now on."""
        self.tls = tls

    def set_addresses(self, Admission admission, Networks trusted, bint proxied) -> None:
        """Let other addresses in from now on (None: all), also of those that are here: who may not stay is cut.

        `trusted`: proxies (None: none) whose word counts for whom they speak. `proxied`: connections begin with a PROXY header, and
        come from trusted proxies only.
        """
        cdef PyObject* item = self.first
        cdef Connection connection
        self.admission = admission
        self.trusted = trusted
        self.proxied = proxied
        while item != NULL:
            connection = <Connection>item
            item = connection.next_connection
            connection.trusted = False
            if not connection.told and not self.welcomes(connection):
                self.denied += 1
                connection.reset_hard()
        uncork()

    def set_lobby(self, Lobby lobby) -> None:
        """Let requests wait there whose service is not known (None: they are answered at once)."""
        self.lobby = lobby

    def set_gate(self, Gate gate, certify, int cert_fields, revoked=None) -> None:
        """Ask this of requests that begin from now on (None: nothing), and cut those whose sender has lost the right to them.

        `certify` (None: certificates are of no interest) makes the ClientCertificate of a connection that has shaken hands;
        `cert_fields`: the fields that tell services of it. `revoked` (None: none is) says of a chain whether it is good no more:
        its connections are cut, too.
        """
        cdef PyObject* item = self.first
        cdef Connection connection
        cdef Client client
        cdef bint gone
        self.gate = gate
        self.certify = certify
        self.cert_fields = <uint8_t>cert_fields
        while item != NULL:
            connection = <Connection>item
            item = connection.next_connection
            if not isinstance(connection, Client):
                continue
            client = <Client>connection
            gone = revoked is not None and client.certificate is not None and revoked(client.certificate.chain)
            if gone or not client.may_go_on():
                client.failure = CODE_FORBIDDEN
                client.reset_hard()
        uncork()

    def set_headcount(self, Headcount headcount) -> None:
        """Share the limit of connections with other workers. To be set before the first connection comes."""
        self.headcount = headcount

    def set_crowd(self, Crowd crowd) -> None:
        """Share the limit of connections per address with other workers. To be set before the first connection comes."""
        self.crowd = crowd

    def stop(self, bint backlog=True) -> None:
        """Accept no more than what has connected already; without `backlog`, nothing: another process accepts it.

        Connections end after their next response, or a short grace.
        """
        cdef PyObject* item
        cdef Connection connection
        cdef int batches = 0
        if backlog and self.fd >= 0 and not self.paused:
            # What waits in the backlog would be reset.
            self.readable = True
            while self.readable and not self.paused and batches < STOP_BATCHES:
                self.accept_some()
                batches += 1
        self.stopping = True
        item = self.first
        if self.fd >= 0:
            # The node keeps a copy of the socket (a reload may give it to another port): closing
            # ours is not enough to leave the epoll set.
            net.epoll_ctl(self.reactor.epoll_fd, net.EPOLL_CTL_DEL, self.fd, NULL)
            self.reactor.remove(self)
        while item != NULL:
            connection = <Connection>item
            item = connection.next_connection
            connection.drain()
        uncork()

    def abort(self) -> None:
        """Cut every connection that is left."""
        cdef Connection connection
        self.stop()
        while self.first != NULL:
            connection = <Connection>self.first
            connection.reset_hard()
            self.forget(connection)

    def counters(self) -> dict[str, object]:
        """Return the counts of connections, exchanges, bytes, statuses by class and failures by code."""
        counts = tally_counters(&self.tally)
        counts.update(
            connections=self.connections, accepted=self.accepted, refused=self.refused, denied=self.denied, paused=self.paused,
            handshakes=self.handshakes, handshake_failures=self.handshake_failures, resumed=self.resumed, rested=self.rested,
        )
        return counts

    @property
    def exchanges(self) -> int:
        """Exchanges that are running."""
        return self.tally.active

    cdef void on_ready(self) noexcept:
        if not self.paused:
            self.accept_some()

    cdef void on_deadline(self) noexcept:
        self.paused = False
        self.accept_some()

    cdef void receive_guest(self, Connection connection) noexcept:
        connection.greeting = self.proxied
        if not self.welcomes(connection):
            self.denied += 1
            if self.told >= MAX_TOLD:
                connection.turn_away(CODE_FORBIDDEN)
                return
            # As a connection that is answered and waits for the client to have read it.
            self.told += 1
            connection.told = True
            self.admit(connection)
            connection.refuse(CODE_FORBIDDEN)
        elif self.admit(connection):
            connection.accepted()
        else:
            self.refused += 1
            connection.refuse(CODE_OVERLOADED)

    cdef void accept_some(self) noexcept:
        cdef Connection connection
        cdef sockaddr_storage address
        cdef socklen_t size
        cdef int fd
        cdef int count
        for count in range(ACCEPT_BATCH):
            size = sizeof(address)
            fd = net.accept4(self.fd, <sockaddr*>&address, &size, net.SOCK_NONBLOCK | net.SOCK_CLOEXEC)
            if fd < 0:
                if errno == net.EAGAIN:
                    self.readable = False
                    return
                if errno == net.EMFILE or errno == net.ENFILE or errno == net.ENOBUFS or errno == net.ENOMEM:
                    # The connection stays in the backlog; the socket would be ready at once for ever.
                    self.paused = True
                    self.reactor.arm(self, PAUSE_MS)
                    return
                continue
            set_stream_options(fd, &address)
            connection = Client.__new__(Client) if self.kind == PORT_HTTP else TcpEnd.__new__(TcpEnd)
            connection.reactor = self.reactor
            connection.listener = self
            connection.settings = self.settings
            connection.fd = fd
            connection.address_size = <uint8_t>address_text(&address, connection.address, &connection.port)
            self.accepted += 1
            if self.reactor.add(connection) < 0:
                net.close(fd)
                connection.fd = -1
                continue
            self.receive_guest(connection)
            uncork()
        self.reactor.queue_ready(self)
