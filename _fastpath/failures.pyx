"""Failed proofs by address. See failures.pxd."""

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memcpy

cimport cython
from _fastpath.address cimport ADDRESS_SIZE, is_four, read_address
from _fastpath.siphash cimport siphash

import os


@cython.final
cdef class Failures:
    """Failed proofs of many addresses, in bounded memory: ten at once, and one more for every five seconds."""

    def __cinit__(self):
        seed = os.urandom(16)
        memcpy(self.seed, <char*>seed, 16)

    cdef Debt* find(self, const unsigned char* raw, bint make) noexcept:
        cdef uint64_t hashed[2]
        cdef Debt* ways
        cdef Debt* least
        cdef int i
        siphash(self.seed, raw, ADDRESS_SIZE if is_four(raw) else 8, hashed)
        hashed[0] |= 1
        ways = &self.debts[(hashed[1] % SETS) * WAYS]
        least = ways
        for i in range(WAYS):
            if ways[i].key == hashed[0]:
                return &ways[i]
            if ways[i].until_ms < least.until_ms:
                least = &ways[i]
        if not make:
            return NULL
        least.key = hashed[0]
        least.until_ms = 0
        return least

    cdef bint charge(self, const unsigned char* raw, uint64_t now_ms) noexcept:
        cdef Debt* debt = self.find(raw, True)
        if debt.until_ms < now_ms:
            debt.until_ms = now_ms
        if debt.until_ms - now_ms + COST_MS > <uint64_t>BURST * COST_MS:
            return False
        debt.until_ms += COST_MS
        return True

    cdef void forgive(self, const unsigned char* raw) noexcept:
        cdef Debt* debt = self.find(raw, False)
        if debt != NULL and debt.until_ms >= COST_MS:
            debt.until_ms -= COST_MS

    def failed(self, str address not None, uint64_t now_ms) -> bool:
        """Count one more failure of an address; False where it has to wait before it may try. Raises ValueError for a text that is no address."""
        cdef unsigned char raw[ADDRESS_SIZE]
        text = address.encode()
        if not read_address(text, len(text), raw):
            raise ValueError(f"not an address: {address}")
        return self.charge(raw, now_ms)
