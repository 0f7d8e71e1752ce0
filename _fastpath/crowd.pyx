"""How many connections each address has, over all workers of a node. See crowd.pxd."""

from libc.stdint cimport int32_t, uint32_t, uint64_t
from libc.string cimport memcpy

cimport cython
from _fastpath.siphash cimport siphash

import os

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t broker_load64(const uint64_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline uint32_t broker_load32(const uint32_t *at) { return __atomic_load_n(at, __ATOMIC_SEQ_CST); }
    static inline void broker_add32(uint32_t *at, uint32_t more) { __atomic_fetch_add(at, more, __ATOMIC_SEQ_CST); }
    static inline int broker_swap64(uint64_t *at, uint64_t was, uint64_t is) {
        return __atomic_compare_exchange_n(at, &was, is, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    uint64_t load64 "broker_load64" (const uint64_t* at) noexcept nogil
    uint32_t load32 "broker_load32" (const uint32_t* at) noexcept nogil
    void add32 "broker_add32" (uint32_t* at, uint32_t more) noexcept nogil
    bint swap64 "broker_swap64" (uint64_t* at, uint64_t was, uint64_t is_) noexcept nogil

cdef enum:
    NEAR = 32                     # places that an address may have
    TRIES = 8                     # two workers that meet at a place go on

KEY_SIZE = 16
PLACES = 1 << 17


def crowd_size(workers: int) -> int:
    """Bytes of memory that so many workers share."""
    return PLACES * (8 + 4 * workers)


def clear_row(memory, workers: int, worker: int) -> None:
    """The connections of a worker that is no more."""
    cdef size_t start = PLACES * (8 + 4 * worker)
    view = memoryview(memory).cast("B")
    view[start:start + 4 * PLACES] = bytes(4 * PLACES)


@cython.final
cdef class Crowd:
    """The connections at one port, by address.

    `memory` is writable, crowd_size(workers) bytes, all zero at first, and with more than one worker shared; `key` are KEY_SIZE
    random bytes, the same for all of them. Raises ValueError where these do not fit.
    """

    def __init__(self, memory not None, bytes key not None, uint32_t workers=1, uint32_t mine=0, uint64_t port=0):
        cdef unsigned char[::1] view = memoryview(memory).cast("B")
        if workers == 0 or mine >= workers or len(key) != KEY_SIZE or <size_t>view.shape[0] < <size_t>crowd_size(workers):
            raise ValueError("the memory or the key does not fit that many workers")
        self.memory = view
        self.places = PLACES
        self.workers = workers
        self.port = port
        self.tags = <uint64_t*>&view[0]
        self.cells = <uint32_t*>(&view[0] + <size_t>self.places * 8)
        self.mine = self.cells + <size_t>self.places * mine
        memcpy(self.key, <const char*>key, KEY_SIZE)

    cdef uint32_t count(self, int32_t place) noexcept:
        cdef uint32_t total = 0
        cdef uint32_t worker
        for worker in range(self.workers):
            total += load32(self.cells + <size_t>worker * self.places + place)
        return total

    cdef int32_t find(self, uint64_t tag) noexcept:
        # The place of this tag, else the first that could be taken for it.
        cdef int32_t free = CROWD_NOWHERE
        cdef int32_t place
        cdef int step
        cdef uint64_t seen
        for step in range(NEAR):
            place = <int32_t>((tag + step) & (self.places - 1))
            seen = load64(self.tags + place)
            if seen == tag:
                return place
            if free == CROWD_NOWHERE and (seen == 0 or self.count(place) == 0):
                free = place
            if seen == 0:
                break
        return free

    cdef int32_t enter(self, const char* address, size_t size) noexcept:
        cdef uint64_t key[2]
        cdef uint64_t out[2]
        cdef uint64_t was
        cdef int32_t place
        cdef int attempt
        key[0] = self.key[0] ^ self.port
        key[1] = self.key[1]
        siphash(key, <const unsigned char*>address, size, out)
        out[0] |= 1               # never the mark of a place that was never taken
        for attempt in range(TRIES):
            place = self.find(out[0])
            if place == CROWD_NOWHERE:
                return place
            # Held first and looked at then: whoever takes a place over sees that somebody holds it, and leaves it to him.
            add32(self.mine + place, 1)
            was = load64(self.tags + place)
            if was == out[0] or (self.count(place) == 1 and swap64(self.tags + place, was, out[0])):
                return place
            add32(self.mine + place, <uint32_t>-1)
        return CROWD_NOWHERE

    cdef void leave(self, int32_t place) noexcept:
        add32(self.mine + place, <uint32_t>-1)

    # --- for tests ------------------------------------------------------------

    def come(self, address: bytes) -> int:
        """One more connection of an address: its place, or -1."""
        return self.enter(address, len(address))

    def go(self, place: int) -> None:
        """A connection that came has gone."""
        self.leave(place)

    def total(self, place: int) -> int:
        """Connections that hold a place."""
        return self.count(place)


cdef Crowd own_crowd():
    return Crowd(bytearray(crowd_size(1)), os.urandom(KEY_SIZE))
