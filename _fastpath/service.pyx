"""Local services: addresses, dialling, and reuse of idle upstream connections. See service.pxd, pool.pxd."""

from libc.stdint cimport uint8_t
from libc.string cimport memcpy, memset

from cpython.ref cimport Py_DECREF

cimport cython
from _fastpath cimport net
from _fastpath.end cimport CODE_UNREACHABLE, End
from _fastpath.exchange cimport JOINED, tally_counters
from _fastpath.http1 cimport Head
from _fastpath.net cimport sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un
from _fastpath.pool cimport MAX_ADDRESSES
from _fastpath.reactor cimport Reactor
from _fastpath.settings cimport Settings
from _fastpath.socket cimport Socket, peek_alive, start_connect
from _fastpath.tcp cimport TCP_CONNECTING, TcpEnd
from _fastpath.tls cimport TlsLayer
from _fastpath.upstream cimport UPSTREAM_CONNECTING, UPSTREAM_RUNNING, Upstream

import socket


@cython.final
cdef class Service(Pool):
    """A service that this node reaches itself: one or more addresses of an "http" or "tcp" upstream.

    Without addresses (an unresolved name) requests are answered with upstream-unreachable.
    """

    def __init__(self, Reactor reactor not None, str name, str kind, Settings settings not None):
        if kind not in ("http", "tcp"):
            raise ValueError(f"a service is http or tcp, not {kind}")
        super().__init__(name, is_service=True)
        self.name_bytes = name.encode()
        self.reactor = reactor
        self.kind = kind
        self.http = kind == "http"
        self.settings = settings
        self.hosts = []

    def set_addresses(self, addresses: list[tuple]) -> None:
        """Use these addresses from now on: (AF_INET or AF_INET6, address, port[, name]) or (AF_UNIX, path), in order of preference.

        `name` is the host that the address was resolved from: by it the TLS context is found.

        Raises ValueError for an address that is not numeric or a path that is too long.
        """
        cdef sockaddr_storage parsed[MAX_ADDRESSES]
        cdef net.socklen_t sizes[MAX_ADDRESSES]
        addresses = addresses[:MAX_ADDRESSES]
        for i, address in enumerate(addresses):
            sizes[i] = parse_address(address, &parsed[i])
        memcpy(self.addresses, parsed, sizeof(parsed))
        memcpy(self.address_sizes, sizes, sizeof(sizes))
        self.address_count = len(addresses)
        self.hosts = [address[3] if len(address) > 3 else address[1] for address in addresses]
        self.next_address = 0
        self.drop_idle()

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
        while self.idle_count:
            (<Upstream>self.idle[self.idle_count - 1]).drop()

    cdef int join(self, End ingress, const Head* head) noexcept:
        cdef Upstream connection
        if head == NULL or not self.http:
            return self.join_tcp(ingress) if head == NULL and not self.http else CODE_UNREACHABLE
        # A connection that is to change its protocol is not one that may be closing at this moment.
        connection = None if head.upgrade else self.take_idle(head.idempotent)
        if connection is None:
            connection = <Upstream>self.dial(self.next_address, 1)
            if connection is None:
                self.connect_failures += 1
                self.tally.failures[<int>CODE_UNREACHABLE] += 1
                return CODE_UNREACHABLE
        connection.begin(head)
        connection.peer = ingress
        ingress.peer = connection
        connection.counted = True
        self.tally.exchanges += 1
        self.tally.active += 1
        return JOINED

    cdef Upstream take_idle(self, bint idempotent):
        cdef Upstream connection
        while self.idle_count:
            connection = <Upstream>self.idle[self.idle_count - 1]
            # What can't be sent twice does not go to a connection that is already closed. The
            # others need no look: they get a second try.
            if connection.readable or (not idempotent and not peek_alive(connection.fd)):
                connection.drop()
                continue
            self.idle_count -= 1
            Py_DECREF(connection)
            connection.state = UPSTREAM_RUNNING
            self.reused += 1
            return connection
        return None

    cdef Socket dial(self, uint8_t first, uint8_t tried):
        cdef Socket connection
        cdef uint8_t index = first
        cdef int fd
        while tried <= self.address_count:
            index = index % self.address_count
            fd = start_connect(&self.addresses[index], self.address_sizes[index])
            if fd >= 0:
                break
            index += 1
            tried += 1
        else:
            return None
        if self.http:
            connection = Upstream.__new__(Upstream)
            (<Upstream>connection).service = self
            (<Upstream>connection).state = UPSTREAM_CONNECTING
            (<Upstream>connection).address_index = index
            (<Upstream>connection).addresses_tried = tried
            if self.tls is not None and not self.secure(<Upstream>connection, index):
                net.close(fd)
                return None
        else:
            connection = TcpEnd.__new__(TcpEnd)
            (<TcpEnd>connection).service = self
            (<TcpEnd>connection).dialled = True
            (<TcpEnd>connection).state = TCP_CONNECTING
            (<TcpEnd>connection).address_index = index
            (<TcpEnd>connection).addresses_tried = tried
        connection.reactor = self.reactor
        connection.fd = fd
        if self.reactor.add(connection) < 0:
            net.close(fd)
            connection.fd = -1
            return None
        self.reactor.arm(connection, self.settings.connect_timeout)
        return connection

    cdef bint secure(self, Upstream connection, uint8_t index) noexcept:
        try:
            connection.context = self.tls[self.hosts[index]]
            connection.tls = TlsLayer(connection.context())
        except Exception:
            return False          # out of memory: a context that can't make connections was refused before
        return True

    cdef int join_tcp(self, End ingress) noexcept:
        cdef TcpEnd connection = <TcpEnd>self.dial(self.next_address, 1)
        if connection is None:
            self.connect_failures += 1
            self.tally.failures[<int>CODE_UNREACHABLE] += 1
            return CODE_UNREACHABLE
        connection.settings = self.settings
        connection.peer = ingress
        ingress.peer = connection
        self.tally.exchanges += 1
        self.tally.active += 1
        return JOINED


cdef parse_address(tuple address, sockaddr_storage* out):
    # The size of the socket address.
    cdef sockaddr_in* four = <sockaddr_in*>out
    cdef sockaddr_in6* six = <sockaddr_in6*>out
    cdef sockaddr_un* local = <sockaddr_un*>out
    memset(out, 0, sizeof(sockaddr_storage))
    if address[0] == socket.AF_UNIX:
        path = address[1].encode()
        if not 0 < len(path) < 108:
            raise ValueError(f"the path of a Unix socket must be 1 to 107 bytes long, not {len(path)}")
        local.sun_family = net.AF_UNIX
        memcpy(local.sun_path, <char*>path, len(path))
        return sizeof(sockaddr_un)
    family, host, port = address[:3]
    if not 0 < port < 65536:
        raise ValueError(f"a port must be between 1 and 65535, not {port}")
    host, _, scope = host.partition("%")
    text = host.encode("ascii")
    if family == socket.AF_INET:
        four.sin_family = net.AF_INET
        four.sin_port = net.htons(port)
        done = net.inet_pton(net.AF_INET, <char*>text, &four.sin_addr)
    else:
        six.sin6_family = net.AF_INET6
        six.sin6_port = net.htons(port)
        six.sin6_scope_id = scope_number(scope)
        done = net.inet_pton(net.AF_INET6, <char*>text, &six.sin6_addr)
    if done != 1:
        raise ValueError(f"not a numeric address: {host}")
    return sizeof(sockaddr_in) if family == socket.AF_INET else sizeof(sockaddr_in6)


cdef scope_number(str scope):
    if not scope:
        return 0
    return int(scope) if scope.isdigit() else socket.if_nametoindex(scope)
