"""The records of an OPEN frame that say who the ingress is. See meta.pxd."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memset

from _fastpath.address cimport read_endpoint, write_endpoint

cdef enum:
    RECORD_HEAD = 2


cdef uint32_t put_record(unsigned char kind, const char* address, uint32_t size, uint16_t port, unsigned char* out) noexcept nogil:
    cdef uint32_t written = write_endpoint(address, size, port, <char*>out + RECORD_HEAD)
    out[0] = kind
    out[1] = <unsigned char>written
    return RECORD_HEAD + written


cdef uint32_t write_meta(const char* client, uint32_t client_size, uint16_t client_port,
                         const char* target, uint32_t target_size, uint16_t target_port, unsigned char* out) noexcept nogil:
    cdef uint32_t used = put_record(META_CLIENT, client, client_size, client_port, out)
    if target_size:
        used += put_record(META_TARGET, target, target_size, target_port, out + used)
    return used


cdef void read_meta(const unsigned char* meta, size_t size, ProxyHeader* header) noexcept nogil:
    cdef size_t at = 0
    cdef size_t length
    memset(header, 0, sizeof(ProxyHeader))
    while size - at >= RECORD_HEAD:
        length = meta[at + 1]
        if length > size - at - RECORD_HEAD:
            header.known = False
            return
        if meta[at] == META_CLIENT:
            header.known = read_endpoint(meta + at + RECORD_HEAD, length, header.source, &header.source_port)
        elif meta[at] == META_TARGET and not read_endpoint(meta + at + RECORD_HEAD, length, header.target, &header.target_port):
            memset(header.target, 0, sizeof(header.target))
            header.target_port = 0
        at += RECORD_HEAD + length


# --- for tests ------------------------------------------------------------------

def make_meta(bytes client not None, uint16_t client_port, bytes target not None, uint16_t target_port) -> bytes:
    """Return the records for two addresses (text, without ports); `target` may be empty."""
    cdef unsigned char out[META_SIZE]
    return (<bytes>out[:write_meta(client, <uint32_t>len(client), client_port, target, <uint32_t>len(target), target_port, out)])


def understand_meta(const unsigned char[::1] data) -> tuple | None:
    """Return (source, source port, target, target port) of records, addresses as 16 bytes; None where the client is unknown."""
    cdef ProxyHeader header
    read_meta(&data[0] if data.shape[0] else NULL, data.shape[0], &header)
    if not header.known:
        return None
    return <bytes>header.source[:16], header.source_port, <bytes>header.target[:16], header.target_port
