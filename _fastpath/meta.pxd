# The records in front of the head of an OPEN frame (docs/protocol.md 2): who the ingress is. Sans-IO; owns nothing.

from libc.stdint cimport uint16_t, uint32_t
from _fastpath.proxy cimport ProxyHeader

cdef enum:
    META_CLIENT = 1               # the client's address, as text with its port
    META_TARGET = 2               # the address that it connected to
    META_SIZE = 116               # room for what write_meta writes

# Both records, from addresses as text; `target` of size 0: only the client's. Returns the bytes written.
cdef uint32_t write_meta(const char* client, uint32_t client_size, uint16_t client_port,
                         const char* target, uint32_t target_size, uint16_t target_port, unsigned char* out) noexcept nogil
# What records of a peer, which may be any bytes, say as a PROXY header does. `known` where the client's address is one.
cdef void read_meta(const unsigned char* meta, size_t size, ProxyHeader* header) noexcept nogil
