# Which protocol a request may change to, and whether a 101 says that it was changed to (RFC 9110 7.8, 15.2.2).
# Sans-IO, borrowed memory only.

from _fastpath.http1 cimport Head, Span

# The first protocol in a request's Upgrade that is among `allowed` (bytes in lower case). Size 0: none is, or the
# request asks for no change. Where Upgrade stands more than once, nobody knows which one is meant: none.
cdef Span offered(const unsigned char* data, const Head* head, tuple allowed) noexcept
# Whether a response is a 101 to `asked` and to nothing else. None was never asked for.
cdef bint switches_to(const unsigned char* data, const Head* head, bytes asked) noexcept
# Whether the hop-by-hop fields are those of a canonical request (docs/protocol.md, 3): the framing, and of a request that asks
# for another protocol "Connection: Upgrade" and one Upgrade with one protocol.
cdef bint canonical_hops(const unsigned char* data, const Head* head) noexcept
# The protocol that a canonical request asks for, or None.
cdef bytes asked_in(const unsigned char* data, size_t size)
