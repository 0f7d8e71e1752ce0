# How often proving who they are failed, by address (IPv6: by /64): a bounded table, so that guessing is slow and costs no memory. Sans-IO.
#
# Each failure is a debt of COST_MS that time pays off; with BURST of them open, an address has to wait. The table forgets
# those that owe least when it is full. Owns its array.

from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    WAYS = 4
    SETS = 1024
    COST_MS = 5000
    BURST = 10

cdef struct Debt:
    uint64_t key                  # 0: empty
    uint64_t until_ms


cdef class Failures:
    cdef Debt debts[SETS * WAYS]
    cdef uint64_t seed[2]

    # Whether this address may try now; then it owes for the try, until `forgive`.
    cdef bint charge(self, const unsigned char* raw, uint64_t now_ms) noexcept
    cdef void forgive(self, const unsigned char* raw) noexcept
    cdef Debt* find(self, const unsigned char* raw, bint make) noexcept
