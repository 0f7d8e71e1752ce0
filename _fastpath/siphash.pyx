"""SipHash-2-4 with a result of 128 bits. See siphash.pxd."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

cdef struct State:
    uint64_t a, b, c, d


cdef inline uint64_t rotl(uint64_t x, int bits) noexcept nogil:
    return (x << bits) | (x >> (64 - bits))


cdef inline void mix(State* s, int rounds) noexcept nogil:
    cdef int i
    for i in range(rounds):
        s.a += s.b
        s.b = rotl(s.b, 13) ^ s.a
        s.a = rotl(s.a, 32)
        s.c += s.d
        s.d = rotl(s.d, 16) ^ s.c
        s.a += s.d
        s.d = rotl(s.d, 21) ^ s.a
        s.c += s.b
        s.b = rotl(s.b, 17) ^ s.c
        s.c = rotl(s.c, 32)


cdef inline void absorb(State* s, uint64_t word) noexcept nogil:
    s.d ^= word
    mix(s, 2)
    s.a ^= word


cdef void siphash(const uint64_t* key, const unsigned char* data, size_t size, uint64_t* out) noexcept nogil:
    cdef State s
    cdef uint64_t word
    cdef uint64_t last = <uint64_t>size << 56
    cdef size_t at = 0
    cdef int shift = 0
    s.a = key[0] ^ <uint64_t>0x736f6d6570736575
    s.b = key[1] ^ <uint64_t>0x646f72616e646f6d ^ 0xee
    s.c = key[0] ^ <uint64_t>0x6c7967656e657261
    s.d = key[1] ^ <uint64_t>0x7465646279746573
    while size - at >= 8:
        memcpy(&word, data + at, 8)       # the words are little-endian; on other machines it is another hash, as good
        absorb(&s, word)
        at += 8
    while at < size:
        last |= <uint64_t>data[at] << shift
        shift += 8
        at += 1
    absorb(&s, last)
    s.c ^= 0xee
    mix(&s, 4)
    out[0] = s.a ^ s.b ^ s.c ^ s.d
    s.b ^= 0xdd
    mix(&s, 4)
    out[1] = s.a ^ s.b ^ s.c ^ s.d


def keyed_hash(bytes key not None, bytes data not None) -> bytes:
    """Return the 16 bytes for a key of 16. Raises ValueError for another key."""
    cdef uint64_t words[2]
    cdef uint64_t out[2]
    if len(key) != 16:
        raise ValueError(f"a key has 16 bytes, not {len(key)}")
    memcpy(words, <char*>key, 16)
    siphash(words, data, len(data), out)
    return (<char*>out)[:16]
