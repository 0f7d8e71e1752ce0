# An external port that accepts: owns the bound, listening socket.

from _fastpath.connection cimport Connection, Port


cdef class Listener(Port):
    cdef bint paused              # out of descriptors: accepting waits for a timer

    cdef void receive_guest(self, Connection connection) noexcept     # a new connection
    cdef void accept_some(self) noexcept
