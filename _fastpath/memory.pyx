"""Chunks, queues and the memory budget. See memory.pxd for who owns what."""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef enum:
    FREE_LIST_LENGTH = 64         # 4 MiB kept warm; more goes back to the allocator

cdef Chunk* free_chunks = NULL
cdef uint32_t free_count = 0
cdef uint64_t live_bytes = 0
cdef uint64_t live_count = 0
cdef uint64_t limit_bytes = 1 << 30


cdef Chunk* chunk_new(size_t capacity) noexcept:
    global free_chunks, free_count, live_bytes, live_count
    cdef Chunk* chunk
    if capacity == CHUNK_SIZE and free_chunks != NULL:
        chunk = free_chunks
        free_chunks = chunk.next
        free_count -= 1
    else:
        if capacity > (<size_t>1 << 31):
            return NULL
        chunk = <Chunk*>malloc(sizeof(Chunk) + capacity)
        if chunk == NULL:
            return NULL
        chunk.capacity = <uint32_t>capacity
    chunk.next = NULL
    chunk.start = 0
    chunk.stop = 0
    live_bytes += sizeof(Chunk) + capacity
    live_count += 1
    return chunk


cdef void chunk_free(Chunk* chunk) noexcept:
    global free_chunks, free_count, live_bytes, live_count
    live_bytes -= sizeof(Chunk) + chunk.capacity
    live_count -= 1
    if chunk.capacity == CHUNK_SIZE and free_count < FREE_LIST_LENGTH:
        chunk.next = free_chunks
        free_chunks = chunk
        free_count += 1
    else:
        free(chunk)


cdef inline size_t grown(size_t have, size_t need) noexcept nogil:
    # Small first (an idle connection keeps nothing), then doubling up to a recycled chunk.
    cdef size_t capacity = 512
    while capacity < need or capacity < have:
        if capacity >= CHUNK_SIZE:
            return CHUNK_SIZE
        capacity *= 2
    return capacity


cdef int queue_append(ByteQueue* queue, const void* data, size_t size) noexcept:
    cdef const unsigned char* source = <const unsigned char*>data
    cdef Chunk* chunk
    cdef Chunk* first = NULL
    cdef Chunk* last = NULL
    cdef size_t space = 0
    cdef size_t rest = size
    cdef size_t part
    if size == 0:
        return 0
    if queue.tail != NULL:
        space = queue.tail.capacity - queue.tail.stop
    # Take all memory before the first byte is copied: failure changes nothing.
    while rest > space:
        chunk = chunk_new(grown(queue.size, rest - space))
        if chunk == NULL:
            while first != NULL:
                chunk = first.next
                chunk_free(first)
                first = chunk
            return -1
        if first == NULL:
            first = chunk
        else:
            last.next = chunk
        last = chunk
        space += chunk.capacity
    if queue.tail != NULL:
        part = queue.tail.capacity - queue.tail.stop
        if part > rest:
            part = rest
        memcpy(chunk_data(queue.tail) + queue.tail.stop, source, part)
        queue.tail.stop += <uint32_t>part
        source += part
        rest -= part
    chunk = first
    while chunk != NULL:
        part = chunk.capacity if chunk.capacity < rest else rest
        memcpy(chunk_data(chunk), source, part)
        chunk.stop = <uint32_t>part
        source += part
        rest -= part
        chunk = chunk.next
    if first != NULL:
        if queue.tail == NULL:
            queue.head = first
        else:
            queue.tail.next = first
        queue.tail = last
    queue.size += size
    return 0


cdef void queue_push(ByteQueue* queue, Chunk* chunk) noexcept:
    chunk.next = NULL
    if queue.tail == NULL:
        queue.head = chunk
    else:
        queue.tail.next = chunk
    queue.tail = chunk
    queue.size += chunk.stop - chunk.start


cdef Chunk* queue_shift(ByteQueue* queue) noexcept:
    cdef Chunk* chunk = queue.head
    if chunk == NULL:
        return NULL
    queue.head = chunk.next
    if queue.head == NULL:
        queue.tail = NULL
    chunk.next = NULL
    queue.size -= chunk.stop - chunk.start
    return chunk


cdef void queue_consume(ByteQueue* queue, size_t size) noexcept:
    cdef Chunk* chunk
    cdef size_t part
    queue.size -= size
    while queue.head != NULL:
        chunk = queue.head
        part = chunk.stop - chunk.start
        if part > size:
            chunk.start += <uint32_t>size
            return
        size -= part
        queue.head = chunk.next
        if queue.head == NULL:
            queue.tail = NULL
        chunk_free(chunk)


cdef void queue_clear(ByteQueue* queue) noexcept:
    queue_consume(queue, queue.size)


cdef int queue_vectors(ByteQueue* queue, iovec* vectors, int slots, size_t limit) noexcept:
    cdef Chunk* chunk = queue.head
    cdef int count = 0
    cdef size_t part
    while chunk != NULL and count < slots and limit > 0:
        part = chunk.stop - chunk.start
        if part > limit:
            part = limit
        if part > 0:
            vectors[count].iov_base = chunk_data(chunk) + chunk.start
            vectors[count].iov_len = part
            count += 1
            limit -= part
        chunk = chunk.next
    return count


cdef uint64_t chunk_bytes() noexcept:
    return live_bytes


cdef uint64_t chunk_count() noexcept:
    return live_count


cdef uint64_t memory_limit() noexcept:
    return limit_bytes


def set_memory_limit(uint64_t limit) -> None:
    """Set the budget for all buffers of this process, in bytes."""
    global limit_bytes
    limit_bytes = limit


def memory_usage() -> tuple[int, int]:
    """Return (bytes, chunks) of all buffers that are alive in this process."""
    return live_bytes, live_count
