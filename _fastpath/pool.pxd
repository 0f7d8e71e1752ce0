# What an upstream connection knows of its service: addresses, settings, what counts for their health.
#
# A Pool keeps its Backends, which hold the idle connections.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.backend cimport Backend
from _fastpath.exchange cimport Egress
from _fastpath.meter cimport Meters
from _fastpath.gate cimport Gate
from _fastpath.reactor cimport Reactor
from _fastpath.settings cimport Settings
from _fastpath.socket cimport Socket

cdef enum:
    MAX_IDLE = 1024               # pooled connections of one service
    POOL_IDLE_MS = 30000
    EJECT_AFTER = 3               # failures in a row of exchanges that had a connection


cdef class Pool(Egress):
    cdef Reactor reactor
    cdef Settings settings
    cdef readonly str kind
    cdef bint http
    cdef Meters meters            # of exchanges that came through tunnels; None: clients' ports count theirs
    cdef readonly bint closed
    cdef dict tls                 # None: plain. Else by host name: () -> a pyOpenSSL Connection, with `verify` and `failed`
    cdef Gate gate                # in place of the port's, where `own_gate`
    cdef bint own_gate
    cdef bint distrusts           # what other nodes say of callers does not reach it
    cdef uint8_t proxy_version    # of the PROXY header in front of each tcp connection; 0: none
    cdef readonly tuple backends  # of Backend
    cdef object on_ejected        # (Backend) -> None: it was ejected; or None
    cdef readonly uint32_t idle_count
    cdef readonly uint64_t connects, connect_failures, reused

    # A connection that is being made to `first`, or where the kernel refuses to another one that was not tried. None: none
    # could be begun. `tried`: bits of the places that were tried before.
    cdef Socket dial(self, Backend first, uint64_t tried)
    cdef Backend choose(self, uint64_t tried)
    # False: the pool is full.
    cdef bint put_idle(self, Socket connection, Backend backend) noexcept
    cdef void forget_idle(self, Socket connection, Backend backend) noexcept
    cdef void begun(self, Backend backend) noexcept           # an exchange is joined to a connection of `backend`
    cdef void over(self, Backend backend) noexcept            # it has let go of it
    # What became of it: an answer; no connection; or a connection, but no (whole) answer.
    cdef void succeeded(self, Backend backend) noexcept
    cdef void unreachable(self, Backend backend) noexcept
    cdef void failed(self, Backend backend) noexcept
    cdef void eject(self, Backend backend) noexcept
