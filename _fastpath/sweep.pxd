# Ending streams of a session for reasons of this side: limits of its configuration, rights that were taken away.
# Called at the top level of a batch, or from Python; never from inside receive, gather or sent.

from libc.stdint cimport uint16_t
from _fastpath.session cimport Session

# Streams that the peer opened and that took too long, as a whole or without a byte.
cdef void end_late(Session session) noexcept
# Streams of our own that lead to `egress`.
cdef void end_leading_to(Session session, object egress, uint16_t code, const char* reason) noexcept
