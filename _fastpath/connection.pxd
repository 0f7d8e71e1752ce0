# What an external port and its connections share.
#
# A Port keeps a list of its live connections (borrowed references: a connection leaves the list in
# on_closed, which always runs before it goes away). A connection keeps its Port alive.

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.crowd cimport Crowd
from _fastpath.exchange cimport Egress, Ingress, Lobby, Tally
from _fastpath.gate cimport Gate
from _fastpath.networks cimport Admission, Networks
from _fastpath.proxy cimport ProxyHeader
from _fastpath.meter cimport Meters
from _fastpath.reactor cimport Pollable, PyObject, Reactor
from _fastpath.route cimport RouteTable
from _fastpath.settings cimport Settings

cdef enum:
    HANDSHAKE_RECORD = 22         # the first byte of a TLS connection (RFC 8446 5.1)

cdef enum PortKind:
    PORT_HTTP = 1
    PORT_TCP = 2
    PORT_TLS = 3                  # passed through unopened, chosen by server name


# How many connections a port has in all workers of the node. `cells`: shared memory, one cell for each; only `mine` is written.
cdef class Headcount:
    cdef object memory            # keeps the cells alive
    cdef uint32_t* cells
    cdef uint32_t count, mine

    cdef uint32_t others(self) noexcept


# The snapshots that the connections of an external port use, and what they count. listener.pyx adds the accepting.
cdef class Port(Pollable):
    cdef readonly str name
    cdef bytes name_bytes
    cdef bytes via
    cdef uint8_t kind
    cdef Settings settings
    cdef RouteTable local
    cdef RouteTable delegated
    cdef Lobby lobby              # None: what is not known is not waited for
    cdef object tls               # None: plain. Else () -> a pyOpenSSL Connection for one more client; failed(address, reason)
    cdef readonly uint64_t handshakes
    cdef readonly uint64_t handshake_failures
    cdef readonly uint64_t resumed            # handshakes that went on with an earlier session
    cdef readonly uint64_t rested         # times that an idle TLS client gave its buffers back
    cdef str service_name
    cdef bytes service            # tcp ports: the service's name
    cdef readonly uint32_t connections
    cdef Headcount headcount      # None: this process is the only one
    cdef readonly uint64_t accepted
    cdef readonly uint64_t refused        # over a connection limit
    cdef readonly uint64_t denied         # by their address, or for want of a PROXY header
    cdef uint32_t told            # of these, connections that are still being told
    cdef Admission admission      # None: everybody
    cdef Networks trusted         # None: no proxies
    cdef Gate gate                # None: whoever connects may call
    cdef object certify           # None, or: a pyOpenSSL Connection -> the ClientCertificate that it has proven, or None
    cdef uint8_t cert_fields      # which fields tell services of that: 0 none, else as ClientCertificate.render has it
    cdef bint proxied             # a PROXY header comes first, and from `trusted` only
    cdef readonly bint stopping
    cdef Tally tally
    cdef Meters meters
    cdef Crowd crowd              # connections by address; None before there is a limit on them, and in one process
    cdef PyObject* first          # live connections
    cdef PyObject* last

    # Whether whoever connects may; says for the connection whether it is a trusted proxy.
    cdef bint welcomes(self, Connection connection) noexcept
    cdef bint admit(self, Connection connection) noexcept
    cdef bint admit_address(self, Connection connection) noexcept
    cdef void forget(self, Connection connection) noexcept


# What an accepted connection has in common, whatever it speaks.
cdef class Connection(Ingress):
    cdef Port listener
    cdef Settings settings
    cdef PyObject* next_connection
    cdef PyObject* previous_connection
    cdef char address[48]         # of the client, as text; as a PROXY header tells it
    cdef uint8_t address_size
    cdef uint8_t admitted
    cdef uint8_t by_address       # counted in the port's crowd, at `place`
    cdef uint8_t told             # counted in the port's `told`
    cdef uint8_t trusted          # the client is a trusted proxy
    cdef uint8_t greeting         # a PROXY header is to come
    cdef uint8_t shaking          # TLS: the handshake is not over, or has not begun
    cdef uint16_t port
    cdef int32_t place

    cdef void accepted(self) noexcept         # hook: registered, begin
    cdef void refuse(self, uint16_t code) noexcept     # hook: it may not stay; told why where that is possible
    cdef void turn_away(self, uint16_t code) noexcept  # hook: the same without a word
    cdef void drain(self) noexcept            # hook: end after what is running
    # A step of reading the PROXY header; True once it is over. Before anything else, the handshake too.
    cdef bint greet(self) noexcept
    cdef bint introduce(self, const ProxyHeader* header) noexcept
    # A step of the handshake; True once it is over. A port that speaks TLS calls it before anything else.
    cdef bint shake(self) noexcept
    cdef bint begin_tls(self) noexcept
    cdef void tell_failure(self) noexcept
    cdef void spoke_plain(self) noexcept      # hook: the client's first byte is not TLS
    cdef void spoke_tls(self) noexcept        # hook: the same the other way round
    cdef void left(self) noexcept             # leaves the listener; called by on_closed of subclasses
