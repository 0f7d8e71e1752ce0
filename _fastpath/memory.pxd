# Owned bytes: chunks, queues of chunks, and the budget that bounds them all.
#
# A Chunk is one malloc'd block: this header, then `capacity` bytes. Whoever
# holds the pointer owns it; linking it into a ByteQueue hands it over. Chunks
# of CHUNK_SIZE come from and go back to a small free list.
#
# A ByteQueue is a FIFO of chunks, embedded by value in its owner, who must
# call queue_clear before it goes away.
#
# `chunk_bytes` (all chunks alive, in bytes) is what limits.memory bounds: new work is
# refused with `overloaded` above the limit, running exchanges go on within
# the credit they were granted.

from libc.stdint cimport uint32_t, uint64_t

cdef extern from "<sys/uio.h>" nogil:
    struct iovec:
        void* iov_base
        size_t iov_len

cdef enum:
    CHUNK_SIZE = 65536            # data bytes of a recycled chunk
    CHUNK_RESERVE = 32            # bytes kept free in front of stream data for a frame header

cdef struct Chunk:
    Chunk* next
    uint32_t start                # first unread byte
    uint32_t stop                 # one past the last byte
    uint32_t capacity

cdef struct ByteQueue:
    Chunk* head
    Chunk* tail
    size_t size                   # unread bytes in all chunks

cdef inline unsigned char* chunk_data(Chunk* chunk) noexcept nogil:
    return <unsigned char*>chunk + sizeof(Chunk)

# NULL when memory is exhausted. `capacity` <= 2^31.
cdef Chunk* chunk_new(size_t capacity) noexcept
cdef void chunk_free(Chunk* chunk) noexcept

# 0, or -1 when memory is exhausted (the queue is then unchanged).
cdef int queue_append(ByteQueue* queue, const void* data, size_t size) noexcept
cdef void queue_push(ByteQueue* queue, Chunk* chunk) noexcept        # takes the chunk over
cdef Chunk* queue_shift(ByteQueue* queue) noexcept                   # gives the first chunk away, or NULL
cdef void queue_consume(ByteQueue* queue, size_t size) noexcept      # size <= queue.size
cdef void queue_clear(ByteQueue* queue) noexcept
# Fills up to `slots` vectors with at most `limit` bytes; returns how many.
cdef int queue_vectors(ByteQueue* queue, iovec* vectors, int slots, size_t limit) noexcept

cdef uint64_t chunk_bytes() noexcept
cdef uint64_t chunk_count() noexcept
cdef uint64_t memory_limit() noexcept
