"""Signs of life, and round trips. See liveness.pxd."""

cdef enum:
    LOW_US = 10000000             # how long a least round trip is remembered, at least
    STOPPED_US = 1000000          # between two looks: it was this process that stood still


cdef uint8_t life_check(Life* life, uint64_t now_us) noexcept nogil:
    cdef uint64_t quarter = life.silence_us // 4
    cdef uint8_t due = 0
    if life.heard_us == 0:
        life.heard_us = life.spoke_us = life.ticked_us = now_us
    if now_us - life.ticked_us > STOPPED_US and now_us - life.heard_us > 3 * quarter:
        # What the peer sent meanwhile is still to be read.
        life.heard_us = now_us - 3 * quarter
    life.ticked_us = now_us
    if now_us - life.heard_us >= life.silence_us:
        return LIFE_DEAD
    if now_us - life.heard_us >= quarter:
        due |= LIFE_LISTEN
    if now_us - life.spoke_us >= quarter:
        due |= LIFE_SPEAK
    return due


cdef void life_measured(Life* life, uint64_t sample, uint64_t now_us) noexcept nogil:
    if sample == 0:
        sample = 1
    life.rtt_us = sample if life.rtt_us == 0 else (7 * life.rtt_us + sample) // 8
    if life.low_us == 0 or now_us - life.low_us > LOW_US:
        life.low[0] = life.low[1] if life.low[1] else sample
        life.low[1] = sample
        life.low_us = now_us
    elif sample < life.low[1]:
        life.low[1] = sample
    life.rtt_min_us = life.low[0] if life.low[0] < life.low[1] else life.low[1]
