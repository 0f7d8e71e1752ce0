"""Local services: addresses, dialling, and reuse of idle upstream connections. See service.pxd, pool.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

cimport cython
from _fastpath cimport net
from _fastpath.backend cimport MAX_BACKENDS, Backend
from _fastpath.end cimport (
    CODE_BODY_TOO_LARGE, CODE_HEAD_TOO_LARGE, CODE_OVERLOADED, CODE_UNREACHABLE, CODE_URI_TOO_LONG, End,
)
from _fastpath.exchange cimport JOINED, tally_counters, tunnel_label
from _fastpath.gate cimport Gate
from _fastpath.http1 cimport BODY_LENGTH, Head
from _fastpath.meter cimport Meters
from _fastpath.reactor cimport Reactor
from _fastpath.settings cimport Settings
from _fastpath.socket cimport Socket, peek_alive, start_connect
from _fastpath.tcp cimport TCP_CONNECTING, TcpEnd
from _fastpath.tls cimport TlsLayer
from _fastpath.upstream cimport UPSTREAM_CONNECTING, UPSTREAM_RUNNING, Upstream


cdef enum:
    ADDED_BYTES = 8192            # what nodes on the way may add to a head
    ADDED_FIELDS = 16


@cython.final
cdef class Service(Pool):
    """A service that this node reaches itself: one or more addresses of an "http" or "tcp" upstream.

    Without addresses (an unresolved name) requests are answered with upstream-unreachable. `meters`, in an agent, count
    what comes through its tunnels.
    """

    def __init__(self, Reactor reactor not None, str name, str kind, Settings settings not None,
                 Meters meters=None):
        if kind not in ("http", "tcp"):
            raise ValueError(f"a service is http or tcp, not {kind}")
        super().__init__(name, is_service=True)
        self.name_bytes = name.encode()
        self.reactor = reactor
        self.kind = kind
        self.http = kind == "http"
        self.settings = settings
        self.meters = meters
        self.backends = ()

    def set_backends(self, backends: list[Backend]) -> None:
        """Use these addresses from now on. One that the service has already keeps its state and its idle connections.

        More than 64 are cut off. Exchanges that run go on, also with addresses that are gone.
        """
        cdef Backend new, old
        kept = []
        for new in backends[:MAX_BACKENDS]:
            old = next((each for each in self.backends if each.same(new)), None)
            if old is not None:
                old.weight = new.weight
            kept.append(new if old is None else old)
        for old in self.backends:
            if old not in kept:
                old.gone = True
                self.drop_idle_of(old)
        for place, new in enumerate(kept):
            new.place = place
            new.credit = 0
        self.backends = tuple(kept)
        if len(kept) == 1:
            (<Backend>kept[0]).admit()

    def set_on_ejected(self, callback: object) -> None:
        """Call this with every Backend that is ejected: whoever listens admits it again."""
        self.on_ejected = callback

    def set_tls(self, dict contexts) -> None:
        """Speak TLS on connections that are made from now on; None: do not.

        By host name: a callable that makes the pyOpenSSL Connection, whose `verify(connection)` raises where the peer is not
        that host, and whose `failed(reason)` is told of every handshake that fails.
        """
        self.tls = contexts

    def set_proxy_protocol(self, int version) -> None:
        """Begin tcp connections that are made from now on with a PROXY header of version 1 or 2; 0: do not. Raises ValueError."""
        if not 0 <= version <= 2:
            raise ValueError(f"PROXY headers have version 1 or 2, not {version}")
        self.proxy_version = <uint8_t>version

    def set_gate(self, Gate gate, bint own) -> None:
        """`own`: ask this of its callers (None: nothing), and not what the port asks."""
        self.gate = gate
        self.own_gate = own

    def set_trust(self, bint identity) -> None:
        """Whether requests out of tunnels keep what the other node says of its callers: Broker-User, client certificates."""
        self.distrusts = not identity

    def set_settings(self, Settings settings not None) -> None:
        """Use other limits and timeouts for exchanges that begin from now on."""
        self.settings = settings

    def counters(self) -> dict[str, object]:
        """Return counts of exchanges and connections."""
        counts = tally_counters(&self.tally)
        counts.update(idle=self.idle_count, connects=self.connects, connect_failures=self.connect_failures,
                      reused=self.reused)
        return counts

    def close(self) -> None:
        """Close the idle connections and keep none from now on; running exchanges go on."""
        self.closed = True
        self.drop_idle()

    def drop_idle(self) -> None:
        """Close the idle connections."""
        for backend in self.backends:
            self.drop_idle_of(backend)

    cdef void drop_idle_of(self, Backend backend) noexcept:
        cdef Socket connection = backend.last_idle()
        while connection is not None:
            (<Upstream>connection).drop()
            connection = backend.last_idle()

    cdef int join(self, End ingress, const Head* head) noexcept:
        cdef Upstream connection
        cdef Backend backend
        cdef uint16_t code
        if head == NULL or not self.http:
            return self.join_tcp(ingress) if head == NULL and not self.http else CODE_UNREACHABLE
        code = self.refuses(head)
        if code:
            self.tally.failures[code] += 1
            return code
        if self.tally.active >= self.settings.in_flight:
            return self.overloaded()
        backend = self.choose(0)
        if backend is None:
            return self.nobody()
        # A connection that is to change its protocol is not one that may be closing at this moment.
        connection = None if head.upgrade else self.take_idle(backend)
        if connection is None:
            connection = <Upstream>self.dial(backend, 0)
            if connection is None:
                return self.nobody()
        connection.begin(head)
        connection.tunnel = tunnel_label(ingress) if self.meters is not None else None
        connection.peer = ingress
        ingress.peer = connection
        connection.count()
        self.tally.exchanges += 1
        return JOINED

    cdef int nobody(self) noexcept:
        self.tally.failures[<int>CODE_UNREACHABLE] += 1
        return CODE_UNREACHABLE

    cdef int overloaded(self) noexcept:
        self.tally.failures[<int>CODE_OVERLOADED] += 1
        return CODE_OVERLOADED

    cdef uint16_t refuses(self, const Head* head) noexcept:
        # The service's own limits: in an agent there is no port that has looked before. Nodes on the way have added fields.
        if head.target.size > self.settings.scan.uri:
            return CODE_URI_TOO_LONG
        if head.size > self.settings.scan.head + ADDED_BYTES or head.field_count > self.settings.scan.headers + ADDED_FIELDS:
            return CODE_HEAD_TOO_LARGE
        if head.framing == BODY_LENGTH and head.content_length > self.settings.body:
            return CODE_BODY_TOO_LARGE
        return 0

    cdef Upstream take_idle(self, Backend backend):
        cdef Upstream connection
        while backend.idle_count:
            connection = <Upstream>backend.last_idle()
            # One that is closed is of no use; bytes that nobody asked for would be read as the answer to this request.
            if connection.readable or not peek_alive(connection.fd):
                connection.drop()
                continue
            self.forget_idle(connection, backend)
            connection.state = UPSTREAM_RUNNING
            self.reused += 1
            return connection
        return None

    cdef Socket dial(self, Backend first, uint64_t tried):
        cdef Backend backend = first
        cdef int fd = -1
        while backend is not None:
            tried |= <uint64_t>1 << backend.place
            fd = start_connect(&backend.address, backend.address_size)
            if fd >= 0:
                return self.begin_connecting(fd, backend, tried)
            self.unreachable(backend)
            backend = self.choose(tried)
        return None

    cdef Socket begin_connecting(self, int fd, Backend backend, uint64_t tried):
        cdef Socket connection
        if self.http:
            connection = Upstream.__new__(Upstream)
            (<Upstream>connection).service = self
            (<Upstream>connection).state = UPSTREAM_CONNECTING
            (<Upstream>connection).backend = backend
            (<Upstream>connection).tried = tried
            if self.tls is not None and not self.secure(<Upstream>connection, backend):
                net.close(fd)
                return None
        else:
            connection = TcpEnd.__new__(TcpEnd)
            (<TcpEnd>connection).service = self
            (<TcpEnd>connection).dialled = True
            (<TcpEnd>connection).state = TCP_CONNECTING
            (<TcpEnd>connection).backend = backend
            (<TcpEnd>connection).tried = tried
        connection.reactor = self.reactor
        connection.fd = fd
        if self.reactor.add(connection) < 0:
            net.close(fd)
            connection.fd = -1
            return None
        self.reactor.arm(connection, self.settings.connect_timeout)
        return connection

    cdef bint secure(self, Upstream connection, Backend backend) noexcept:
        try:
            connection.context = self.tls[backend.host]
            connection.tls = TlsLayer(connection.context())
        except Exception:
            return False          # out of memory: a context that can't make connections was refused before
        return True

    cdef int join_tcp(self, End ingress) noexcept:
        cdef TcpEnd connection
        cdef Backend backend
        if self.tally.active >= self.settings.in_flight:
            return self.overloaded()
        backend = self.choose(0)
        connection = <TcpEnd>self.dial(backend, 0) if backend is not None else None
        if connection is None:
            return self.nobody()
        connection.settings = self.settings
        connection.begun_us = self.reactor.now_us
        connection.tunnel = tunnel_label(ingress)
        connection.peer = ingress
        ingress.peer = connection
        connection.count()
        self.tally.exchanges += 1
        return JOINED
