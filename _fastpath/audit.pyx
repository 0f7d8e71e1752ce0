"""Invariants of a session, for the debug build. See audit.pxd."""

from libc.stdint cimport uint32_t, uint64_t

from _fastpath.frame cimport FRAME_HEADER
from _fastpath.memory cimport ByteQueue, Chunk, chunk_data
from _fastpath.output cimport Link, output_invariants
from _fastpath.slots cimport SlotTable, id_generation, id_slot
from _fastpath.stream cimport END_ACCEPTED, WANTS_ROOM, Sender, Stream
from _fastpath.wire cimport get_u32, invariant
from _fastpath.window cimport credit_invariants

cdef enum:
    AUDIT_SLOTS = 512             # larger tables are checked for one call of this many


cdef uint32_t ring_length(const Link* ring) noexcept:
    cdef const Link* link = ring.next
    cdef uint32_t count = 0
    while link != ring:
        invariant(link.next.prev == link and link.prev.next == link, b"A ring's links point at each other.")
        count += 1
        link = link.next
    return count


cdef void audit_queue(const ByteQueue* queue, bint frames) noexcept:
    cdef Chunk* chunk = queue.head
    cdef size_t total = 0
    while chunk != NULL:
        invariant(chunk.start <= chunk.stop <= chunk.capacity, b"A chunk's bytes lie inside the chunk.")
        if frames:
            invariant(
                chunk.stop - chunk.start == FRAME_HEADER + get_u32(chunk_data(chunk) + chunk.start),
                b"A chunk that a stream has queued is one whole frame.",
            )
        invariant(chunk.next != NULL or chunk == queue.tail, b"A queue's tail is its last chunk.")
        total += chunk.stop - chunk.start
        chunk = chunk.next
    invariant(total == queue.size, b"A queue's size is the sum of its chunks.")


cdef void audit_stream(Sender session, const SlotTable* table, uint32_t slot) noexcept:
    cdef Stream stream = <Stream>table.slots[slot].stream
    invariant(stream.session is session, b"A stream in the table belongs to this session.")
    invariant(id_slot(stream.id) == slot, b"A stream stands in the slot that its id names.")
    invariant(id_generation(stream.id) == table.slots[slot].generation, b"A stream has its slot's generation.")
    invariant((stream.lane.turn.next != NULL) == (stream.lane.queue.head != NULL),
              b"A stream takes turns exactly while it has frames queued.")
    invariant((stream.grant_link.next != NULL) == (stream.grant != 0), b"A stream that owes credit is in the ring.")
    invariant(stream.lane.ended == 0 or stream.state & END_ACCEPTED, b"Only an accepted end is committed.")
    invariant(not stream.state & WANTS_ROOM or stream.wake_link.next == NULL,
              b"A stream that is to be woken does not wait for room any more.")
    audit_queue(&stream.lane.queue, True)
    credit_invariants(&stream.credit, &session.budget)


cdef void audit_free(const SlotTable* table, uint32_t first, uint32_t* count) noexcept:
    while first:
        invariant(first <= table.touched, b"A free slot was used before.")
        invariant(table.slots[first - 1].stream == NULL, b"A free slot has no stream.")
        count[0] += 1
        invariant(count[0] <= table.touched, b"No slot is free twice.")
        first = table.slots[first - 1].next_free


cdef void audit_table(Sender session, const SlotTable* table, uint64_t* promised, uint32_t* turns) noexcept:
    cdef uint32_t alive = 0
    cdef uint32_t unused = 0
    cdef uint32_t slot
    cdef Stream stream
    for slot in range(table.touched):
        if table.slots[slot].stream == NULL:
            continue
        alive += 1
        audit_stream(session, table, slot)
        stream = <Stream>table.slots[slot].stream
        promised[0] += stream.credit.promised
        if stream.lane.turn.next != NULL:
            turns[0] += 1
    invariant(alive == table.active, b"The count of active streams is the count of occupied slots.")
    invariant(alive <= table.limit, b"No more streams are alive than were announced.")
    if table == &session.locals:
        audit_free(table, table.free, &unused)
        audit_free(table, table.retired, &unused)
        audit_free(table, table.retiring, &unused)
        invariant(alive + unused == table.touched, b"Every slot that was used is occupied or free.")


cdef void audit(Sender session) noexcept:
    cdef uint64_t promised = 0
    cdef uint32_t turns = 0
    if session.locals.touched + session.remotes.touched > AUDIT_SLOTS and session.frames_in % AUDIT_SLOTS:
        return
    output_invariants(&session.output)
    audit_queue(&session.output.committed, False)
    audit_queue(&session.output.control, False)
    audit_queue(&session.output.messages, True)
    audit_table(session, &session.locals, &promised, &turns)
    audit_table(session, &session.remotes, &promised, &turns)
    invariant(promised == session.budget.promised, b"A tunnel's promise is the sum of its streams' promises.")
    invariant(session.active == session.locals.active + session.remotes.active,
              b"Active streams are those of both tables.")
    invariant(ring_length(&session.output.fresh) + ring_length(&session.output.turns) == turns,
              b"Exactly the streams with frames take turns.")
    ring_length(&session.grants)
    ring_length(&session.wakes)
