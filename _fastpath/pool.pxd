# What an upstream connection knows of its service: addresses, settings, the idle connections.
#
# A Pool owns its address table and holds strong references to the idle connections (last in, first out).

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.exchange cimport Egress
from _fastpath.net cimport sockaddr_storage, socklen_t
from _fastpath.reactor cimport PyObject, Reactor
from _fastpath.settings cimport Settings
from _fastpath.socket cimport Socket

cdef enum:
    MAX_ADDRESSES = 64
    MAX_IDLE = 1024               # pooled connections of one service
    POOL_IDLE_MS = 30000


cdef class Pool(Egress):
    cdef Reactor reactor
    cdef Settings settings
    cdef readonly str kind
    cdef bint http
    cdef readonly bint closed
    cdef sockaddr_storage addresses[MAX_ADDRESSES]
    cdef socklen_t address_sizes[MAX_ADDRESSES]
    cdef dict tls                 # None: plain. Else by host name: () -> a pyOpenSSL Connection, with `verify` and `failed`
    cdef list hosts               # the name that each address was resolved from
    cdef uint8_t proxy_version    # of the PROXY header in front of each tcp connection; 0: none
    cdef uint8_t address_count
    cdef uint8_t next_address     # the one that worked last
    cdef PyObject* idle[MAX_IDLE]
    cdef readonly uint32_t idle_count
    cdef readonly uint64_t connects, connect_failures, reused

    # A connection that is being made to address number `first`, `tried` of them having been tried with it;
    # further addresses are tried at once where the kernel refuses. None: none could be begun.
    cdef Socket dial(self, uint8_t first, uint8_t tried)
    # False: the pool is full.
    cdef bint put_idle(self, Socket connection) noexcept
    cdef void forget_idle(self, Socket connection) noexcept
