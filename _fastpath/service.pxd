# A local service: a Pool that dials.

from libc.stdint cimport uint16_t, uint64_t
from _fastpath.backend cimport Backend
from _fastpath.end cimport End
from _fastpath.http1 cimport Head
from _fastpath.pool cimport Pool
from _fastpath.socket cimport Socket
from _fastpath.upstream cimport Upstream


cdef class Service(Pool):
    cdef uint16_t refuses(self, const Head* head) noexcept       # a Code where the request is over the service's limits, else 0
    cdef Upstream take_idle(self, Backend backend)
    cdef int join_tcp(self, End ingress) noexcept
    cdef int nobody(self) noexcept            # counts that no address is left
    cdef int overloaded(self) noexcept        # counts that it has as much to do as it may have
    cdef Socket begin_connecting(self, int fd, Backend backend, uint64_t tried)
    cdef bint secure(self, Upstream connection, Backend backend) noexcept     # gives it its TlsLayer
    cdef void drop_idle_of(self, Backend backend) noexcept
