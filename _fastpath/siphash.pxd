# SipHash-2-4 (Aumasson, Bernstein): a keyed hash of short inputs, which nobody without the key can aim. Sans-IO.

from libc.stdint cimport uint64_t

# 128 bits of `size` bytes into out[0], out[1].
cdef void siphash(const uint64_t* key, const unsigned char* data, size_t size, uint64_t* out) noexcept nogil
