"""The addresses of a service and the choice among them, sans-IO. See backend.pxd."""

from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from cpython.ref cimport Py_DECREF, Py_INCREF

cimport cython
from _fastpath cimport net
from _fastpath.net cimport sockaddr_in, sockaddr_in6, sockaddr_un

import socket

cdef enum:
    MAX_WEIGHT = 1000


@cython.final
@cython.no_gc
cdef class Backend:
    """One address of a service: (AF_INET or AF_INET6, address, port[, name]) or (AF_UNIX, path).

    `name` is the host that the address was resolved from. Raises ValueError for an address that is not numeric, a path
    that is too long, and a weight that is not between 1 and 1000.
    """

    def __cinit__(self, tuple address not None, weight=1):
        if not 1 <= weight <= MAX_WEIGHT:
            raise ValueError(f"a weight must be between 1 and {MAX_WEIGHT}, not {weight}")
        self.address_size = parse_address(address, &self.address)
        self.host = address[3] if len(address) > 3 else address[1]
        if len(address) < 3:
            self.ip, self.name = "", address[1]
        else:
            self.ip, self.port = address[1], address[2]
            self.name = f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"
        self.weight = weight
        self.healthy = True

    def __dealloc__(self):
        free(self.idle)

    def set_healthy(self, bint healthy) -> None:
        """What a check found: one that is not healthy gets no exchanges."""
        self.healthy = healthy

    def admit(self) -> None:
        """It was ejected long enough: it takes its share again."""
        self.ejected = False
        self.streak = 0
        self.credit = 0

    def same(self, Backend other not None) -> bool:
        """Whether both are the same address of the same name."""
        return (
            self.address_size == other.address_size and self.host == other.host
            and memcmp(&self.address, &other.address, self.address_size) == 0
        )

    def counters(self) -> dict[str, object]:
        """Return its state and counts."""
        return {
            "address": self.name, "weight": self.weight, "healthy": self.healthy, "ejected": self.ejected,
            "active": self.active, "idle": self.idle_count, "exchanges": self.exchanges, "failures": self.failures,
            "ejections": self.ejections,
        }

    # --- idle connections -------------------------------------------------

    cdef bint keep(self, Socket connection) noexcept:
        cdef uint32_t capacity = self.idle_capacity
        cdef PyObject** memory
        if self.idle_count == capacity:
            capacity = capacity * 2 if capacity else 8
            memory = <PyObject**>realloc(self.idle, capacity * sizeof(PyObject*))
            if memory == NULL:
                return False
            self.idle = memory
            self.idle_capacity = capacity
        Py_INCREF(connection)
        self.idle[self.idle_count] = <PyObject*>connection
        self.idle_count += 1
        return True

    cdef Socket last_idle(self):
        return <Socket>self.idle[self.idle_count - 1] if self.idle_count else None

    cdef void forget(self, Socket connection) noexcept:
        # From the last one on, which is the one that is taken; one that ends is most often the first.
        cdef uint32_t i = self.idle_count
        while i > 0 and self.idle[i - 1] != <PyObject*>connection:
            i -= 1
        if i == 0:
            return
        self.idle_count -= 1
        while i <= self.idle_count:
            self.idle[i - 1] = self.idle[i]
            i += 1
        if self.idle_count == 0:
            free(self.idle)
            self.idle = NULL
            self.idle_capacity = 0
        Py_DECREF(connection)


cdef Backend choose_backend(tuple backends, uint64_t tried):
    cdef Backend candidate
    cdef Backend best = None
    cdef int64_t weights = 0
    if len(backends) == 1:
        best = <Backend>backends[0]
        return best if best.healthy and not tried & 1 else None
    for candidate in backends:
        if not candidate.healthy or tried >> candidate.place & 1:
            continue
        candidate.credit += candidate.weight
        weights += candidate.weight
        if best is None or is_better(candidate, best):
            best = candidate
    if best is not None:
        best.credit -= weights
    return best


cdef inline bint is_better(Backend one, Backend other) noexcept:
    cdef uint64_t load = <uint64_t>one.active * other.weight
    cdef uint64_t other_load = <uint64_t>other.active * one.weight
    if one.ejected != other.ejected:
        return other.ejected
    return one.credit > other.credit if load == other_load else load < other_load


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
