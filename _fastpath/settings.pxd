# Limits and timeouts of one port or service: an immutable snapshot. Running exchanges keep theirs.

from libc.stdint cimport uint32_t, uint64_t
from _fastpath.http1 cimport ScanLimits

cdef class Settings:
    cdef ScanLimits scan
    cdef readonly uint64_t body                       # bytes; UINT64_MAX: no limit
    cdef ScanLimits reply                             # of an upstream's responses
    cdef readonly uint64_t min_rate                   # bytes per second of a body; 0: any
    cdef readonly uint32_t requests                   # of one client connection
    cdef readonly tuple upgrades                      # protocols, bytes in lower case
    cdef readonly uint32_t connections
    cdef readonly uint32_t connections_per_address    # 0: no limit
    cdef readonly uint32_t waiting
    cdef readonly uint32_t in_flight                  # exchanges of one service at once; UINT32_MAX: no limit
    cdef readonly uint64_t head_timeout               # all in milliseconds; 0: none
    cdef readonly uint64_t idle_timeout
    cdef readonly uint64_t slow_timeout               # for how long a body may be slower than min_rate
    cdef readonly uint64_t upgraded_timeout
    cdef readonly uint64_t connect_timeout
    cdef readonly uint64_t first_byte_timeout
    cdef readonly uint64_t total_timeout
    cdef readonly uint64_t stream_idle    # of streams from a tunnel
    cdef readonly uint64_t agent_wait
