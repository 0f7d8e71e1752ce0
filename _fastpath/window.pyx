"""Credit of a stream, both directions. See window.pxd for the rules."""

from libc.string cimport memset

from _fastpath.frame cimport MAX_WINDOW
from _fastpath.memory cimport chunk_bytes, memory_limit
from _fastpath.wire cimport invariant

cdef uint64_t process_promised = 0


cdef void credit_start(Credit* credit, Budget* budget, uint32_t local, uint32_t peer, uint64_t now_us) noexcept nogil:
    global process_promised
    memset(credit, 0, sizeof(Credit))
    credit.send = peer if peer <= MAX_WINDOW else <uint32_t>MAX_WINDOW
    credit.receive = credit.window = credit.base = credit.promised = local
    credit.grant_us = now_us
    budget.promised += local
    process_promised += local


cdef void credit_stop(Credit* credit, Budget* budget) noexcept nogil:
    global process_promised
    budget.promised -= credit.promised
    process_promised -= credit.promised
    memset(credit, 0, sizeof(Credit))


cdef int credit_spend(Credit* credit, size_t size) noexcept nogil:
    if size > credit.send:
        return -1
    credit.send -= <uint32_t>size
    return 0


cdef int credit_add(Credit* credit, uint32_t size) noexcept nogil:
    if size > <uint32_t>MAX_WINDOW - credit.send:
        return -1
    credit.send += size
    return 0


cdef int credit_arrive(Credit* credit, uint32_t size, uint64_t now_us) noexcept nogil:
    if size > credit.receive:
        return -1
    credit.receive -= size
    credit.held += size
    if credit.mark_us == 0:
        credit.mark_us = now_us
    return 0


cdef inline void set_promise(Credit* credit, Budget* budget) noexcept nogil:
    global process_promised
    cdef uint32_t out = credit.receive + credit.held
    cdef uint32_t promise = credit.window if credit.window > out else out
    budget.promised += promise
    budget.promised -= credit.promised
    process_promised += promise
    process_promised -= credit.promised
    credit.promised = promise


cdef inline void shrink(Credit* credit, Budget* budget, uint64_t now_us) noexcept nogil:
    credit.window = credit.window >> 1 if credit.window >> 1 > credit.base else credit.base
    credit.grant_us = now_us
    budget.shrinks += 1


cdef inline bint may_grow(const Budget* budget, uint64_t more) noexcept:
    # Half of the process's memory may be promised to grown windows, and only while half is free.
    cdef uint64_t half = memory_limit() >> 1
    return (
        budget.promised + more <= budget.limit
        and process_promised + more <= half
        and chunk_bytes() <= half
    )


cdef inline uint64_t wanted_near(const Credit* credit, const Budget* budget, uint64_t taken, uint64_t rtt_us) noexcept:
    cdef uint64_t fast = 2 * rtt_us
    if budget.promised <= BUSY_WINDOW and fast < BUSY_US:
        fast = BUSY_US
    return 2 * <uint64_t>credit.window if taken <= fast else 0


cdef inline uint64_t wanted_far(const Credit* credit, uint64_t taken, uint64_t rtt_us) noexcept:
    # Where only the window is the limit, a window takes one round trip. What it takes longer it stands in queues.
    if credit.window < LEAP_BELOW:
        return (4 if 2 * taken <= 3 * rtt_us else 2) * <uint64_t>credit.window if taken <= 2 * rtt_us else 0
    return 15 * <uint64_t>credit.window * rtt_us // (8 * taken)


cdef inline void measure(Credit* credit, Budget* budget, uint64_t now_us, uint64_t rtt_us) noexcept:
    # A whole window was consumed: was it the window that limited the stream, or do its updates come too often?
    cdef uint64_t taken = now_us - credit.mark_us if now_us > credit.mark_us else 1
    cdef uint64_t wanted = 0
    if chunk_bytes() > memory_limit() - (memory_limit() >> 2):
        if credit.window > credit.base:
            shrink(credit, budget, now_us)
    elif rtt_us > NEAR_US:
        wanted = wanted_far(credit, taken, rtt_us)
    elif rtt_us:
        wanted = wanted_near(credit, budget, taken, rtt_us)
    if wanted > MAX_STREAM_WINDOW:
        wanted = MAX_STREAM_WINDOW
    if wanted > credit.window + (credit.window >> 3) and may_grow(budget, wanted - credit.window):
        credit.window = <uint32_t>wanted
        budget.growths += 1
    credit.mark_us = now_us
    credit.used = 0


cdef inline uint32_t least_grant(const Credit* credit) noexcept nogil:
    # Of a large window a smaller part: what may be granted and is not yet is idle for a round trip.
    return credit.window >> 3 if credit.window > BUSY_WINDOW else (credit.window + 1) >> 1


cdef uint32_t credit_consume(Credit* credit, Budget* budget, size_t size, uint64_t now_us, uint64_t rtt_us) noexcept:
    cdef uint32_t out
    cdef uint32_t grant
    cdef uint64_t slow = 16 * rtt_us
    # A reader that reports more than it was given has a bug: clamp, so that credit stays sound.
    if size > credit.held:
        size = credit.held
    credit.held -= <uint32_t>size
    credit.used += <uint32_t>size
    if credit.used >= credit.window:
        measure(credit, budget, now_us, rtt_us)
    out = credit.receive + credit.held
    grant = credit.window - out if credit.window > out else 0
    if grant < least_grant(credit):
        if credit.window > credit.base and now_us - credit.grant_us > (slow if slow > SLOW_US else <uint64_t>SLOW_US):
            shrink(credit, budget, now_us)
            set_promise(credit, budget)
        return 0
    credit.receive += grant
    credit.grant_us = now_us
    set_promise(credit, budget)
    return grant


cdef void credit_invariants(const Credit* credit, const Budget* budget) noexcept nogil:
    invariant(credit.send <= <uint32_t>MAX_WINDOW, b"send credit is at most MAX_WINDOW.")
    invariant(credit.window >= credit.base, b"A window never shrinks below the announced one.")
    invariant(credit.window <= MAX_STREAM_WINDOW or credit.window == credit.base,
              b"A window never grows above MAX_STREAM_WINDOW.")
    invariant(<uint64_t>credit.receive + credit.held <= credit.promised,
              b"What the peer may send and what is held was promised to the stream.")
    invariant(credit.promised <= budget.promised, b"A stream's promise is part of its tunnel's sum.")


cdef uint64_t promised_bytes() noexcept:
    return process_promised
