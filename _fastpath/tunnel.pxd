# One registered connection: the session's bytes to and from its socket, and where its streams lead.
#
# Tunnel, Link and Session refer to each other; `close` breaks the cycle. While the link is registered, the
# reactor keeps all three alive.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.end cimport End
from _fastpath.exchange cimport Egress
from _fastpath.http1 cimport Head
from _fastpath.meter cimport Meters
from _fastpath.reactor cimport Pollable, Reactor
from _fastpath.route cimport RouteTable
from _fastpath.session cimport Session
from _fastpath.settings cimport Settings
from _fastpath.memory cimport ByteQueue
from _fastpath.stream cimport SessionOwner, Stream
from _fastpath.tls cimport TlsLayer


cdef class Link(Pollable):
    cdef Tunnel tunnel


cdef class Tunnel(SessionOwner):
    cdef Reactor reactor
    cdef Link link
    cdef readonly Session session
    cdef RouteTable routes
    cdef readonly str name
    cdef object control_callback, close_callback, goaway_callback
    cdef readonly bint alive
    cdef uint32_t groups          # services that the other side announced
    cdef readonly bint relay      # leads to another worker of this node
    cdef uint64_t bytes_in, bytes_out, reads, writes
    cdef uint32_t undelivered     # bytes of control messages that wait for Python
    cdef uint64_t rated_us, rated_in, rated_out           # the last look, and what it saw
    cdef double rate_in, rate_out                         # bytes per second, smoothed over some seconds
    cdef TlsLayer tls             # None: plain
    cdef ByteQueue cipher         # ciphertext that the kernel has not taken
    cdef Meters meters            # where streams are recorded that are refused here; None: nowhere
    cdef Egress found             # what the stream leads to that is being opened; None: nothing
    cdef bint understood          # its head could be read

    cdef void read(self) noexcept
    cdef void flush(self) noexcept
    cdef bint has_output(self) noexcept
    # TLS: False where reading is over for now.
    cdef bint take(self, const unsigned char* data, size_t size) noexcept
    cdef void read_tls(self) noexcept
    cdef void flush_tls(self) noexcept
    cdef bint encrypt(self) noexcept
    cdef void tick(self) noexcept
    cdef void rate(self) noexcept
    cdef void end(self, uint16_t code, str reason) noexcept
    cdef str reason(self)
    cdef void tell_parting(self) noexcept
    cdef void refuse(self, Stream stream, uint16_t code, const unsigned char* head, size_t size, bint tcp,
                     const char* reason) noexcept
    cdef int join_http(self, Stream stream, const unsigned char** head, size_t* size, uint32_t* flags) noexcept
    cdef bint strip(self, Head* head, bint upgrade, bint identity, const unsigned char** data, size_t* size) noexcept
    cdef bint guard(self, Stream stream, Settings settings, const Head* head, bint switching) noexcept
    cdef int join_tcp(self, Stream stream, const unsigned char* name, size_t size) noexcept
