"""The order of output: control, lanes in turns, committed bytes. See output.pxd."""

from libc.string cimport memcpy, memset

from _fastpath.frame cimport FLAG_END, FRAME_HEADER, FRAME_TRAILERS
from _fastpath.memory cimport (
    CHUNK_SIZE, chunk_data, chunk_free, chunk_new, queue_clear, queue_consume, queue_push, queue_shift,
)
from _fastpath.wire cimport BROKER_DEBUG, get_u32, invariant


cdef void ring_start(Link* ring) noexcept nogil:
    ring.next = ring.prev = ring
    ring.owner = NULL


cdef void ring_append(Link* ring, Link* link) noexcept nogil:
    link.next = ring
    link.prev = ring.prev
    ring.prev.next = link
    ring.prev = link


cdef void ring_remove(Link* link) noexcept nogil:
    if link.next == NULL:
        return
    link.next.prev = link.prev
    link.prev.next = link.next
    link.next = link.prev = NULL


cdef void output_start(Output* output) noexcept nogil:
    memset(output, 0, sizeof(Output))
    ring_start(&output.fresh)
    ring_start(&output.turns)


cdef void output_clear(Output* output) noexcept:
    queue_clear(&output.committed)
    queue_clear(&output.control)
    queue_clear(&output.messages)
    output.front = 0


cdef void lane_start(Lane* lane, void* owner) noexcept nogil:
    memset(lane, 0, sizeof(Lane))
    lane.turn.owner = owner
    lane.first = NOT_COMMITTED


cdef void lane_clear(Output* output, Lane* lane) noexcept:
    ring_remove(&lane.turn)
    queue_clear(&lane.queue)


cdef unsigned char* queue_frame(ByteQueue* queue, size_t size, size_t capacity) noexcept:
    cdef Chunk* tail = queue.tail
    cdef unsigned char* frame
    if tail == NULL or tail.capacity - tail.stop < size:
        tail = chunk_new(size if size > capacity else capacity)
        if tail == NULL:
            return NULL
        queue_push(queue, tail)
    frame = chunk_data(tail) + tail.stop
    tail.stop += <uint32_t>size
    queue.size += size
    return frame


cdef bint output_direct(const Output* output, const Lane* lane, size_t size) noexcept nogil:
    return (
        size <= DIRECT_FRAME
        and lane.queue.size == 0
        and output.committed.size < (<size_t>COMMIT_TARGET if output.blocked else <size_t>BATCH_TARGET)
        and ring_empty(&output.fresh)
        and (output.ahead < AHEAD_LIMIT or ring_empty(&output.turns))
    )


cdef unsigned char* output_frame(Output* output, Lane* lane, size_t size) noexcept:
    cdef unsigned char* frame = queue_frame(&output.committed, size, CHUNK_SIZE)
    if frame == NULL:
        return NULL
    if lane.first == NOT_COMMITTED:
        lane.first = output.position
    output.position += size
    output.ahead += <uint32_t>size
    output.frames += 1
    return frame


cdef void output_activate(Output* output, Lane* lane, size_t size) noexcept nogil:
    if size <= DIRECT_FRAME:
        lane.deficit = 0
        ring_append(&output.fresh, &lane.turn)
    else:
        ring_append(&output.turns, &lane.turn)


cdef void commit_chunk(Output* output, Chunk* chunk) noexcept:
    # Small pieces are copied together: one vector for the kernel, and no chunk kept for a few bytes.
    cdef size_t size = chunk.stop - chunk.start
    cdef unsigned char* frame
    output.position += size
    if size <= COPY_FRAME:
        frame = queue_frame(&output.committed, size, CHUNK_SIZE)
        if frame != NULL:
            memcpy(frame, chunk_data(chunk) + chunk.start, size)
            chunk_free(chunk)
            return
    queue_push(&output.committed, chunk)


cdef bint output_commit_queue(Output* output, ByteQueue* queue) noexcept:
    while queue.head != NULL and output.committed.size < COMMIT_TARGET:
        commit_chunk(output, queue_shift(queue))
    return queue.head == NULL


cdef Lane* output_turn(Output* output) noexcept:
    cdef bint fresh = not ring_empty(&output.fresh) and (
        output.ahead < AHEAD_LIMIT or ring_empty(&output.turns)
    )
    cdef Link* link = output.fresh.next if fresh else output.turns.next
    cdef Lane* lane
    cdef Chunk* chunk
    cdef const unsigned char* frame
    if not fresh:
        output.ahead = 0
        if link == &output.turns:
            return NULL
    lane = <Lane*>link            # `turn` is its first field
    lane.deficit += QUANTUM
    while lane.queue.head != NULL and lane.deficit > 0:
        chunk = queue_shift(&lane.queue)
        frame = chunk_data(chunk) + chunk.start
        lane.deficit -= <int32_t>(chunk.stop - chunk.start)
        if fresh:
            output.ahead += chunk.stop - chunk.start
        if lane.first == NOT_COMMITTED:
            lane.first = output.position
        if frame[5] & FLAG_END or frame[4] == FRAME_TRAILERS:
            lane.ended = True
        output.frames += 1
        commit_chunk(output, chunk)
    ring_remove(link)
    if lane.queue.head != NULL:
        ring_append(&output.turns, link)
    elif lane.deficit > 0:
        lane.deficit = 0
    return lane


cdef void output_sent(Output* output, size_t size) noexcept:
    cdef size_t left = size
    cdef size_t frame
    cdef size_t chunk_left
    cdef Chunk* chunk
    output.sent += size
    if BROKER_DEBUG:
        invariant(size <= output.committed.size, b"The kernel takes no more than was offered.")
        # Follow the frames, so that the rest can be walked from a frame's start.
        chunk = output.committed.head
        while left > 0:
            chunk_left = chunk.stop - chunk.start
            frame = chunk_left if chunk_left < left else left
            output.front = front_after(chunk_data(chunk) + chunk.start, output.front, frame)
            left -= frame
            chunk = chunk.next
    queue_consume(&output.committed, size)
    output.blocked = output.committed.size > 0


cdef uint32_t front_after(const unsigned char* data, uint32_t front, size_t size) noexcept:
    # `size` bytes at `data` go; the first `front` of what is there belong to a frame that is partly sent.
    cdef size_t at = front
    while at < size:
        at += FRAME_HEADER + get_u32(data + at)
    return <uint32_t>(at - size)


cdef void output_invariants(const Output* output) noexcept:
    cdef const Chunk* chunk = output.committed.head
    cdef const unsigned char* data
    cdef size_t at = output.front
    cdef size_t total = 0
    cdef size_t size
    while chunk != NULL:
        size = chunk.stop - chunk.start
        data = <const unsigned char*>chunk + sizeof(Chunk) + chunk.start
        total += size
        while at < size:
            invariant(size - at >= FRAME_HEADER, b"Committed output consists of whole frames.")
            at += FRAME_HEADER + get_u32(data + at)
        invariant(at == size, b"Every committed chunk ends where a frame ends.")
        at = 0
        chunk = chunk.next
    invariant(total == output.committed.size, b"The committed size is the sum of its chunks.")
    invariant(output.position == output.sent + total, b"What was committed is either sent or still there.")
