"""Random identifiers, fetched from the kernel many at a time. See ids.pxd."""

from libc.stddef cimport size_t

cdef extern from "<sys/random.h>" nogil:
    ssize_t getrandom(void* out, size_t size, unsigned int flags)

cdef enum:
    RAW_SIZE = 16
    STOCK = 4096

cdef unsigned char stock[STOCK]
cdef size_t used = STOCK
cdef const char* HEX = b"0123456789abcdef"


cdef void make_id(unsigned char* out) noexcept nogil:
    global used
    cdef ssize_t got
    cdef int i
    if used + RAW_SIZE > STOCK:
        used = 0
        while used < STOCK:       # a signal may have cut it short; it fails only on kernels without it
            got = getrandom(stock + used, STOCK - used, 0)
            if got > 0:
                used += <size_t>got
        used = 0
    for i in range(RAW_SIZE):
        out[2 * i] = HEX[stock[used + i] >> 4]
        out[2 * i + 1] = HEX[stock[used + i] & 15]
    used += RAW_SIZE


def new_id() -> str:
    """Return 128 random bits as 32 hexadecimal digits."""
    cdef unsigned char out[ID_SIZE]
    make_id(out)
    return (<bytes>out[:ID_SIZE]).decode("ascii")
