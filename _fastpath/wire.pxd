# Big-endian integers in memory, and the debug build's invariants. Inline: nothing to link.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t


cdef inline void put_u16(unsigned char* out, uint16_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 8)
    out[1] = <uint8_t>(value & 0xff)


cdef inline void put_u32(unsigned char* out, uint32_t value) noexcept nogil:
    out[0] = <uint8_t>(value >> 24)
    out[1] = <uint8_t>((value >> 16) & 0xff)
    out[2] = <uint8_t>((value >> 8) & 0xff)
    out[3] = <uint8_t>(value & 0xff)


cdef inline void put_u64(unsigned char* out, uint64_t value) noexcept nogil:
    put_u32(out, <uint32_t>(value >> 32))
    put_u32(out + 4, <uint32_t>value)


cdef inline uint16_t get_u16(const unsigned char* data) noexcept nogil:
    return <uint16_t>((<uint32_t>data[0] << 8) | data[1])


cdef inline uint32_t get_u32(const unsigned char* data) noexcept nogil:
    return (<uint32_t>data[0] << 24) | (<uint32_t>data[1] << 16) | (<uint32_t>data[2] << 8) | data[3]


cdef inline uint64_t get_u64(const unsigned char* data) noexcept nogil:
    return (<uint64_t>get_u32(data) << 32) | get_u32(data + 4)


# BROKER_DEBUG is 0 or 1: the C compiler drops what stands under `if BROKER_DEBUG` in a release build.
# `invariant` says its sentence and aborts where `holds` is false.
cdef extern from *:
    """
    #ifndef BROKER_DEBUG
    #define BROKER_DEBUG 0
    #endif
    #include <stdio.h>
    #include <stdlib.h>
    static inline void broker_invariant(int holds, const char *sentence) {
        if (!holds) {
            fprintf(stderr, "Invariant broken: %s\\n", sentence);
            abort();
        }
    }
    """
    const bint BROKER_DEBUG
    void invariant "broker_invariant" (bint holds, const char* sentence) noexcept nogil
