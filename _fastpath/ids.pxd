# Identifiers of requests: 128 random bits as 32 hexadecimal digits. No state is kept across processes: the first identifier
# of a process fetches its own random bytes, so that nodes that fork make none before.

cdef enum:
    ID_SIZE = 32

cdef void make_id(unsigned char* out) noexcept nogil
