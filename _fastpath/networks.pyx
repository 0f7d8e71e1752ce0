"""Sets of networks, and who may connect. See networks.pxd."""

from libc.stdint cimport uint16_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcmp, memcpy

cimport cython
from _fastpath.address cimport read_address

import ipaddress

cdef enum:
    MAPPED_BITS = 96


def normal(network):
    """A network as one of IPv6 addresses, IPv4 as mapped ones."""
    network = ipaddress.ip_network(network)
    if network.version == 6:
        return network
    return ipaddress.ip_network(f"::ffff:{network.network_address}/{MAPPED_BITS + network.prefixlen}")


@cython.final
cdef class Networks:
    """A set of IPv4 and IPv6 networks (texts, or networks of `ipaddress`). An IPv4-mapped IPv6 address is an IPv4 address.

    Raises ValueError for what is no network, or has bits set behind its prefix.
    """

    def __cinit__(self, networks):
        cdef uint32_t i = 0
        self.texts = tuple(str(each) for each in networks)
        merged = list(ipaddress.collapse_addresses(normal(each) for each in networks))
        self.intervals = <Interval*>malloc(max(len(merged), 1) * sizeof(Interval))
        if self.intervals == NULL:
            raise MemoryError
        for each in merged:
            low, high = each.network_address.packed, each.broadcast_address.packed
            memcpy(self.intervals[i].low, <char*><bytes>low, ADDRESS_SIZE)
            memcpy(self.intervals[i].high, <char*><bytes>high, ADDRESS_SIZE)
            i += 1
        self.count = i

    def __dealloc__(self):
        free(self.intervals)

    def __contains__(self, str address not None) -> bool:
        """Whether the address (text, with or without a zone) is in one of the networks; a text that is none is not."""
        cdef unsigned char raw[ADDRESS_SIZE]
        text = address.partition("%")[0].encode()
        return read_address(text, len(text), raw) and self.has(raw)

    cdef bint has(self, const unsigned char* raw) noexcept nogil:
        cdef uint32_t low = 0
        cdef uint32_t high = self.count
        cdef uint32_t middle
        while low < high:
            middle = (low + high) // 2
            if memcmp(raw, self.intervals[middle].high, ADDRESS_SIZE) > 0:
                low = middle + 1
            else:
                high = middle
        return low < self.count and memcmp(raw, self.intervals[low].low, ADDRESS_SIZE) >= 0


@cython.final
cdef class Admission:
    """Who may connect: addresses of `allow` (None: all), without those of `deny` (None: none)."""

    def __cinit__(self, Networks allow=None, Networks deny=None):
        self.allow = allow
        self.deny = deny

    def __contains__(self, str address not None) -> bool:
        """Whether the address (text) may connect; a text that is none may not."""
        cdef unsigned char raw[ADDRESS_SIZE]
        text = address.partition("%")[0].encode()
        return read_address(text, len(text), raw) and self.admits(raw)

    cdef bint admits(self, const unsigned char* raw) noexcept nogil:
        if self.deny is not None and self.deny.has(raw):
            return False
        return self.allow is None or self.allow.has(raw)
