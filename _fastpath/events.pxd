# Sessions and Ends that record what happens to them, for tests: Python drives them and reads the events.

from libc.stdint cimport uint32_t
from _fastpath.end cimport End
from _fastpath.stream cimport SessionOwner, Stream
from _fastpath.session cimport Session
from _fastpath.window cimport Budget, Credit


cdef class EventSession(SessionOwner):
    cdef Session session
    cdef list recorded
    cdef object failure           # raised by on_event inside a callback; passed on when the call returns
    cdef public object on_event   # called with every event, inside the callback

    cdef void note(self, tuple event) noexcept
    cdef void check(self) except *


cdef class EventStream(End):
    cdef EventSession home
    cdef Stream stream            # kept after its release: stale references must be harmless
    cdef readonly uint32_t id


cdef class EventCredit:
    cdef Credit credit
    cdef Budget budget
