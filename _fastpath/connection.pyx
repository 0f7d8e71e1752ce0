"""External ports and their connections: shared snapshots, limits, the list of who is there. See connection.pxd."""

cimport cython


cdef class Port(Pollable):
    """What the connections of one external port share. Only the compiled Listener is useful."""

    cdef bint admit(self, Connection connection) noexcept:
        cdef bint room = self.connections < self.settings.connections
        connection.previous_connection = self.last
        connection.next_connection = NULL
        if self.last != NULL:
            (<Connection>self.last).next_connection = <PyObject*>connection
        else:
            self.first = <PyObject*>connection
        self.last = <PyObject*>connection
        self.connections += 1
        connection.admitted = True
        if self.settings.connections_per_address:
            return self.admit_address(connection) and room
        return room

    cdef bint admit_address(self, Connection connection) noexcept:
        # Only where the limit is set: a Python dict at accept time.
        key = connection.address[:connection.address_size]
        count = self.per_address.get(key, 0)
        self.per_address[key] = count + 1
        return count < self.settings.connections_per_address

    cdef void forget(self, Connection connection) noexcept:
        if not connection.admitted:
            return
        connection.admitted = False
        if connection.previous_connection != NULL:
            (<Connection>connection.previous_connection).next_connection = connection.next_connection
        else:
            self.first = connection.next_connection
        if connection.next_connection != NULL:
            (<Connection>connection.next_connection).previous_connection = connection.previous_connection
        else:
            self.last = connection.previous_connection
        self.connections -= 1
        if self.per_address:
            self.forget_address(connection)

    cdef void forget_address(self, Connection connection) noexcept:
        key = connection.address[:connection.address_size]
        count = self.per_address.get(key, 0)
        if count <= 1:
            self.per_address.pop(key, None)
        else:
            self.per_address[key] = count - 1


@cython.no_gc
cdef class Connection(Ingress):
    """An accepted connection. Only compiled subclasses are useful."""

    cdef void accepted(self) noexcept:
        pass

    cdef void refuse(self) noexcept:
        pass

    cdef void drain(self) noexcept:
        pass

    cdef void left(self) noexcept:
        if self.listener is not None:
            self.listener.forget(self)
