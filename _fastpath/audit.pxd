# What must hold between any two calls on a session: the debug build checks it on entry and exit.

from _fastpath.stream cimport Sender

# Prints one sentence and aborts where something does not hold.
cdef void audit(Sender session) noexcept
