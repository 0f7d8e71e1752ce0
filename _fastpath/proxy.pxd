# The PROXY protocol, versions 1 and 2 (haproxy.org, proxy-protocol.txt): what stands in front of a connection that a
# proxy passes on, and says whose it is. Sans-IO; owns nothing.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from _fastpath.address cimport ADDRESS_SIZE

cdef enum:
    PROXY_MORE = 0                # not whole yet
    PROXY_BAD = -1                # no PROXY header, or a malformed one
    MAX_PROXY = 4096              # bytes that are read of one, with its TLVs

cdef struct ProxyHeader:
    bint known                    # else the addresses say nothing: UNKNOWN, LOCAL, or of a family without IP addresses
    unsigned char source[ADDRESS_SIZE]
    unsigned char target[ADDRESS_SIZE]
    uint16_t source_port
    uint16_t target_port

cdef enum:
    PROXY_WRITTEN = 108           # room that write_proxy needs

# > 0: the bytes of the header. What stands behind it is the connection's.
cdef int scan_proxy(const unsigned char* data, size_t size, ProxyHeader* header) noexcept nogil
# Whether a header begins here, as far as the bytes go: of a second one that says enough.
cdef bint looks_proxied(const unsigned char* data, size_t size) noexcept nogil
# A header of version 1 or 2; the number of bytes. Where the families differ, the target is told as unspecified.
cdef uint32_t write_proxy(int version, const ProxyHeader* header, unsigned char* out) noexcept nogil
