"""Limits and timeouts as compiled snapshots."""

cimport cython

from _fastpath.http1 cimport MAX_HEAD, MAX_HEADERS


@cython.final
cdef class Settings:
    """What one port or service allows: sizes in bytes, counts, and times in milliseconds.

    None means no limit where it is allowed. Raises ValueError for a value that is out of range.
    """

    def __cinit__(self, *, head, headers, uri, body, response_head, response_headers, min_rate, requests, upgrades,
                  connections, connections_per_address, waiting, in_flight, head_timeout, idle_timeout,
                  slow_timeout, upgraded_timeout, connect_timeout, first_byte_timeout, total_timeout, agent_wait,
                  stream_idle=None):
        self.scan.head = in_range("head", head, 64, MAX_HEAD)
        self.scan.headers = in_range("headers", headers, 1, MAX_HEADERS)
        self.scan.uri = in_range("uri", uri, 1, MAX_HEAD)
        self.body = <uint64_t>-1 if body is None else in_range("body", body, 0, 1 << 62)
        self.reply.head = in_range("response_head", response_head, 64, MAX_HEAD)
        self.reply.headers = in_range("response_headers", response_headers, 1, MAX_HEADERS)
        self.reply.uri = MAX_HEAD
        self.min_rate = 0 if min_rate is None else in_range("min_rate", min_rate, 1, 1 << 40)
        self.requests = <uint32_t>-1 if requests is None else in_range("requests", requests, 1, 1 << 31)
        self.upgrades = tuple([name.encode("ascii").lower() for name in upgrades])
        self.connections = in_range("connections", connections, 1, 1 << 31)
        self.connections_per_address = (
            0 if connections_per_address is None
            else in_range("connections_per_address", connections_per_address, 1, 1 << 31)
        )
        self.waiting = in_range("waiting", waiting, 0, 1 << 31)
        self.in_flight = <uint32_t>-1 if in_flight is None else in_range("in_flight", in_flight, 1, 1 << 31)
        self.head_timeout = duration("head_timeout", head_timeout)
        self.idle_timeout = duration("idle_timeout", idle_timeout)
        self.slow_timeout = duration("slow_timeout", slow_timeout)
        self.upgraded_timeout = duration("upgraded_timeout", upgraded_timeout)
        self.connect_timeout = duration("connect_timeout", connect_timeout)
        self.first_byte_timeout = duration("first_byte_timeout", first_byte_timeout)
        self.total_timeout = duration("total_timeout", total_timeout)
        self.stream_idle = duration("stream_idle", stream_idle)
        self.agent_wait = duration("agent_wait", agent_wait)


cdef object in_range(str name, object value, object low, object high):
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, not {value}")
    return value


cdef object duration(str name, object value):
    # 0 and None: no limit. Up to a year.
    return 0 if value is None else in_range(name, value, 0, 366 * 24 * 3600 * 1000)
