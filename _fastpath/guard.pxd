# What a stream is held to beside the protocol: limits of this side's configuration, and whose budget it counts in.
#
# A Guard owns nothing and lives in its Stream. A Quota is made by Python and shared by sessions and streams.

from libc.stdint cimport uint64_t

cdef enum:
    GUARD_SLACK_US = 250000       # clocks of sessions are that old at most: nothing ends too early


# Streams at once of one user, over all of his tunnels.
cdef class Quota:
    cdef uint64_t limit           # UINT64_MAX: none
    cdef readonly uint64_t active


# Limits on one stream that the peer opened: those of the service that it leads to.
cdef struct Guard:
    uint64_t body_left            # bytes that may still come; UINT64_MAX: any number
    uint64_t late_us              # when it is over; 0: never
    uint64_t idle_us              # how long it may stand still; 0: for ever
    uint64_t moved_us             # when bytes of it moved last


cdef inline void guard_start(Guard* guard, uint64_t now_us) noexcept nogil:
    guard.body_left = <uint64_t>-1
    guard.late_us = guard.idle_us = 0
    guard.moved_us = now_us


# False: more has come than may.
cdef inline bint guard_take(Guard* guard, size_t size, uint64_t now_us) noexcept nogil:
    guard.moved_us = now_us
    if size > guard.body_left:
        return False
    if guard.body_left != <uint64_t>-1:
        guard.body_left -= size
    return True


# `flowing`: something of it should be moving, in whichever direction.
cdef inline bint guard_late(const Guard* guard, uint64_t now_us, bint flowing) noexcept nogil:
    if guard.late_us and now_us >= guard.late_us:
        return True
    return flowing and guard.idle_us and now_us > guard.moved_us + guard.idle_us + GUARD_SLACK_US


cdef inline bint quota_full(Quota quota) noexcept:
    return quota is not None and quota.active >= quota.limit


# Count one more, or one less; None is nobody's.
cdef inline void quota_take(Quota quota) noexcept:
    if quota is not None:
        quota.active += 1


cdef inline void quota_give(Quota quota) noexcept:
    if quota is not None:
        quota.active -= 1
