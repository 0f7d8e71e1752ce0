"""The idle connections and addresses of a service. See pool.pxd; service.pyx adds the dialling."""

from cpython.ref cimport Py_DECREF, Py_INCREF


cdef class Pool(Egress):
    """Idle upstream connections. Only the compiled Service is useful."""

    cdef Socket dial(self, uint8_t first, uint8_t tried):
        return None

    cdef bint put_idle(self, Socket connection) noexcept:
        if self.idle_count == MAX_IDLE:
            return False
        Py_INCREF(connection)
        self.idle[self.idle_count] = <PyObject*>connection
        self.idle_count += 1
        return True

    cdef void forget_idle(self, Socket connection) noexcept:
        # Looks from the oldest on: it is the one that most often ends. Not per request.
        cdef uint32_t i = 0
        while i < self.idle_count and self.idle[i] != <PyObject*>connection:
            i += 1
        if i == self.idle_count:
            return
        self.idle_count -= 1
        while i < self.idle_count:
            self.idle[i] = self.idle[i + 1]
            i += 1
        Py_DECREF(connection)
