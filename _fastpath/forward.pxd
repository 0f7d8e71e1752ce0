# Which fields cross a hop, and what a node adds: writes canonical heads, sans-IO.
#
# A canonical head is what travels in a tunnel and what an upstream or client
# receives: start line in origin form (asterisk form for OPTIONS *), the
# sender's fields in their order and spelling ("Name: value"), hop-by-hop fields removed, the
# framing fields as below. It can be scanned by scan_request / scan_response again.
#
# Framing of a canonical head: "Content-Length: n" exactly once where the length
# is known; "Transfer-Encoding: chunked" where it is not (the bytes in a tunnel
# are never chunk-encoded: frames delimit them, the far end encodes).
#
# Borrowed memory only; nothing is kept.

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from _fastpath.forwarded cimport Claim
from _fastpath.http1 cimport Head, Span

cdef struct Origin:               # what the node knows about who asks; all borrowed, sizes may be 0
    const unsigned char* address          # text of the client's address, no port: 192.0.2.1, 2001:db8::1
    uint32_t address_size
    const unsigned char* scheme           # "http" or "https"
    uint32_t scheme_size
    const unsigned char* via              # pseudonym of this node, e.g. "broker"
    uint32_t via_size
    const unsigned char* extra            # complete field lines that the node adds ("Broker-User: x\r\n"...)
    uint32_t extra_size
    Span upgrade                          # the protocol that may be upgraded to, in the scanned head; size 0: none
    uint8_t trust_forwarded               # keep X-Forwarded-* and Forwarded, and append to them; else they are removed and
                                          # written anew
    uint8_t drop_authorization            # it was meant for this node
    const Claim* claim                    # the peer is a trusted proxy: what of them is believed. NULL: all of it
    const unsigned char* new_id           # ID_SIZE bytes for X-Request-Id where there is none that may stay. NULL: it is left alone
    Span* request_id                      # is told where it stands in what was written

# How the connection to a client must end or go on after this response.
cdef struct Reply:
    uint8_t minor                 # of the client's request: an HTTP/1.0 client gets no chunked
    uint8_t close                 # add "Connection: close"
    uint8_t keep_alive_10         # add "Connection: keep-alive" (HTTP/1.0 client that asked for it)
    uint8_t upgrade               # status 101 that the client asked for
    const unsigned char* via
    uint32_t via_size

# All return the bytes written to out, or -1 where `capacity` is too small.
# Room for the scanned head + 1 KiB + the sizes in Origin is always enough.

# The canonical request head from what a client sent.
cdef Py_ssize_t write_request(const unsigned char* data, const Head* head, const Origin* origin,
                              unsigned char* out, size_t capacity) noexcept nogil
# A canonical request head without its upgrade, or without the fields that only nodes write (Broker-User and kin), or both.
cdef Py_ssize_t without_fields(const unsigned char* data, const Head* head, bint upgrade, bint identity,
                               unsigned char* out, size_t capacity) noexcept nogil
# The canonical response head from what an upstream sent.
cdef Py_ssize_t write_response(const unsigned char* data, const Head* head,
                               unsigned char* out, size_t capacity) noexcept nogil
# A canonical response head as the client gets it: framing for its version, Connection, Via.
cdef Py_ssize_t write_reply(const unsigned char* data, const Head* head, const Reply* reply,
                            unsigned char* out, size_t capacity) noexcept nogil
