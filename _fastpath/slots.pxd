# The streams that one side has opened, by slot: no dictionary, no search. Sans-IO.
#
# A stream's id is its initiator's bit, its slot and the slot's generation (frame.pxd). The side that opens
# takes freed slots last in, first out; the other side keeps a table of the same form, in which it
# follows the slots that the ids name. Tables grow as slots are used, never above the announced limit.
#
# A slot's generation may only start again at 1 when no frame of the last lap can still be under way: such
# slots are retired until a PING that was sent afterwards has been answered.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum SlotState:
    SLOT_UNKNOWN = 0              # this id was never used: an error
    SLOT_CLOSED = 1               # it was, and is over: ignore the frame
    SLOT_ALIVE = 2

cdef struct Slot:
    void* stream                  # strong reference while alive, else NULL
    uint32_t next_free            # slot + 1; 0 ends the list
    uint16_t generation           # the last one used; 0: never used

cdef struct SlotTable:
    Slot* slots
    uint32_t capacity             # allocated
    uint32_t touched              # slots below this were used at least once, or are lent
    uint32_t limit                # streams at once
    uint32_t active
    uint32_t free                 # slot + 1 of the first free one; 0: none
    uint32_t retired              # the same, of slots that wait for a PING sent after their last use
    uint32_t retiring             # of slots whose PING is under way
    uint32_t initiator            # ID_ACCEPTOR or 0, part of every id

cdef void slots_clear(SlotTable* table) noexcept nogil
# For the side that opens: lends a slot. Returns the stream id, or 0: none is free, or no memory.
cdef uint32_t slots_take(SlotTable* table, void* stream) noexcept nogil
# Ends a loan. `used`: the id was seen by the peer, so the next loan has the next generation.
cdef void slots_give(SlotTable* table, uint32_t id, bint used) noexcept nogil
# The PING that was sent now covers all retired slots; it was answered.
cdef void slots_ping(SlotTable* table) noexcept nogil
cdef void slots_pong(SlotTable* table) noexcept nogil
# For the other side: 0, or a static sentence on why the peer may not open this id. The slot is
# then alive, with `stream` NULL: slots_set or slots_end follows.
cdef const char* slots_accept(SlotTable* table, uint32_t id) noexcept nogil
cdef void slots_end(SlotTable* table, uint32_t id) noexcept nogil

cdef inline uint32_t id_slot(uint32_t id) noexcept nogil:
    return id & 0xffff

cdef inline uint32_t id_generation(uint32_t id) noexcept nogil:
    return (id >> 16) & 0x7fff

# The stream of an id that passed frame_check, or NULL with *state saying what it was.
cdef inline void* slots_find(const SlotTable* table, uint32_t id, int* state) noexcept nogil:
    cdef uint32_t slot = id_slot(id)
    cdef uint32_t generation = id_generation(id)
    cdef uint32_t last
    if slot >= table.touched:
        state[0] = SLOT_UNKNOWN
        return NULL
    last = table.slots[slot].generation
    if last == generation and table.slots[slot].stream != NULL:
        state[0] = SLOT_ALIVE
        return table.slots[slot].stream
    # Generations run in a circle of 32767; the half behind the last one used is the past.
    state[0] = SLOT_CLOSED if last != 0 and (last + 32767 - generation) % 32767 < 16384 else SLOT_UNKNOWN
    return NULL
