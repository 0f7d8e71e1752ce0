# A local service: a Pool that dials.

from libc.stdint cimport uint8_t
from _fastpath.end cimport End
from _fastpath.pool cimport Pool
from _fastpath.upstream cimport Upstream


cdef class Service(Pool):
    cdef Upstream take_idle(self, bint idempotent)
    cdef int join_tcp(self, End ingress) noexcept
    cdef bint secure(self, Upstream connection, uint8_t index) noexcept    # gives it its TlsLayer
