"""Ending streams of a session for reasons of this side. See sweep.pxd."""

from libc.stdint cimport uint16_t, uint32_t

from _fastpath.end cimport CODE_UPSTREAM_TIMEOUT
from _fastpath.frame cimport KIND_TCP
from _fastpath.guard cimport guard_late
from _fastpath.stream cimport END_COMMITTED, END_RECEIVED, HEAD_ACCEPTED, Stream


cdef bint is_flowing(Stream stream) noexcept:
    # Between the end of a request and the head of its response nothing moves: the upstream's own deadline counts.
    if stream.kind == KIND_TCP or not stream.state & END_RECEIVED:
        return True
    return stream.state & HEAD_ACCEPTED and not stream.state & END_COMMITTED


cdef void end_late(Session session) noexcept:
    cdef uint32_t slot = 0
    cdef Stream stream
    while slot < session.remotes.touched:     # the callbacks may end others, or the session
        if session.remotes.slots[slot].stream != NULL:
            stream = <Stream>session.remotes.slots[slot].stream
            if guard_late(&stream.guard, session.now_us, is_flowing(stream)):
                stream.fail(CODE_UPSTREAM_TIMEOUT, b"the agent's own time limit is over")
        slot += 1


cdef void end_leading_to(Session session, object egress, uint16_t code, const char* reason) noexcept:
    cdef uint32_t slot = 0
    cdef Stream stream
    while slot < session.locals.touched:
        if session.locals.slots[slot].stream != NULL:
            stream = <Stream>session.locals.slots[slot].stream
            if stream.egress is egress:
                stream.fail(code, reason)
        slot += 1
