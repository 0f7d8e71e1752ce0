"""Slots and generations of stream ids. See slots.pxd."""

from libc.stdlib cimport free, realloc
from libc.string cimport memset

from _fastpath.frame cimport MAX_GENERATION

cdef enum:
    FIRST_SLOTS = 16


cdef inline uint16_t next_generation(uint16_t generation) noexcept nogil:
    return <uint16_t>(generation + 1 if generation < MAX_GENERATION else 1)


cdef void slots_clear(SlotTable* table) noexcept nogil:
    free(table.slots)
    table.slots = NULL
    table.capacity = table.touched = table.active = 0
    table.free = table.retired = table.retiring = 0


cdef int reach(SlotTable* table, uint32_t slot) noexcept nogil:
    # Makes room for `slot`, which is below the limit. 0, or -1: no memory.
    cdef uint32_t capacity = table.capacity if table.capacity else FIRST_SLOTS
    cdef Slot* slots
    while capacity <= slot:
        capacity *= 2
    if capacity > table.capacity:
        slots = <Slot*>realloc(table.slots, capacity * sizeof(Slot))
        if slots == NULL:
            return -1
        memset(slots + table.capacity, 0, (capacity - table.capacity) * sizeof(Slot))
        table.slots = slots
        table.capacity = capacity
    if slot >= table.touched:
        table.touched = slot + 1
    return 0


cdef uint32_t slots_take(SlotTable* table, void* stream) noexcept nogil:
    cdef uint32_t slot
    cdef Slot* entry
    if table.active >= table.limit:
        return 0
    if table.free:
        slot = table.free - 1
        table.free = table.slots[slot].next_free
    else:
        slot = table.touched
        if slot >= table.limit or reach(table, slot) != 0:
            return 0
    entry = &table.slots[slot]
    entry.stream = stream
    entry.generation = next_generation(entry.generation)
    table.active += 1
    return table.initiator | (<uint32_t>entry.generation << 16) | slot


cdef void slots_give(SlotTable* table, uint32_t id, bint used) noexcept nogil:
    cdef uint32_t slot = id_slot(id)
    cdef Slot* entry = &table.slots[slot]
    entry.stream = NULL
    table.active -= 1
    if used and entry.generation == MAX_GENERATION:
        entry.next_free = table.retired
        table.retired = slot + 1
        return
    if not used:
        entry.generation -= 1     # 0 after the first: the next loan has 1, as it has after MAX_GENERATION
    entry.next_free = table.free
    table.free = slot + 1


cdef void slots_ping(SlotTable* table) noexcept nogil:
    if table.retiring == 0:
        table.retiring = table.retired
        table.retired = 0


cdef void slots_pong(SlotTable* table) noexcept nogil:
    cdef uint32_t slot
    while table.retiring:
        slot = table.retiring - 1
        table.retiring = table.slots[slot].next_free
        table.slots[slot].next_free = table.free
        table.free = slot + 1


cdef const char* slots_accept(SlotTable* table, uint32_t id) noexcept nogil:
    cdef uint32_t slot = id_slot(id)
    cdef Slot* entry
    if slot >= table.limit:
        return b"OPEN names a slot above the limit of streams"
    if slot >= table.touched and reach(table, slot) != 0:
        return b"no memory for another stream"
    entry = &table.slots[slot]
    if entry.stream != NULL:
        return b"OPEN names a slot whose stream is alive"
    if id_generation(id) != next_generation(entry.generation):
        return b"OPEN does not name the next generation of its slot"
    entry.generation = <uint16_t>id_generation(id)
    table.active += 1
    return NULL


cdef void slots_end(SlotTable* table, uint32_t id) noexcept nogil:
    table.slots[id_slot(id)].stream = NULL
    table.active -= 1
