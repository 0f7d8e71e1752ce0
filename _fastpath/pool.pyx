"""The idle connections of a service, and how its addresses do. See pool.pxd; service.pyx adds the dialling."""

from _fastpath.backend cimport choose_backend


cdef class Pool(Egress):
    """Addresses and idle upstream connections. Only the compiled Service is useful."""

    cdef Socket dial(self, Backend first, uint64_t tried):
        return None

    cdef Backend choose(self, uint64_t tried):
        return choose_backend(self.backends, tried)

    # --- idle connections -------------------------------------------------

    cdef bint put_idle(self, Socket connection, Backend backend) noexcept:
        if self.idle_count == MAX_IDLE or backend.gone or not backend.keep(connection):
            return False
        self.idle_count += 1
        return True

    cdef void forget_idle(self, Socket connection, Backend backend) noexcept:
        cdef uint32_t before = backend.idle_count
        backend.forget(connection)
        self.idle_count -= before - backend.idle_count

    # --- how the addresses do ---------------------------------------------

    cdef void begun(self, Backend backend) noexcept:
        self.tally.active += 1
        backend.active += 1
        backend.exchanges += 1

    cdef void over(self, Backend backend) noexcept:
        self.tally.active -= 1
        backend.active -= 1

    cdef void succeeded(self, Backend backend) noexcept:
        backend.streak = 0

    cdef void unreachable(self, Backend backend) noexcept:
        # Where there are others nobody has lost anything yet; but the next one shall not try in vain.
        self.connect_failures += 1
        backend.failures += 1
        backend.streak += 1
        self.eject(backend)

    cdef void failed(self, Backend backend) noexcept:
        backend.failures += 1
        backend.streak += 1
        if backend.streak >= EJECT_AFTER:
            self.eject(backend)

    cdef void eject(self, Backend backend) noexcept:
        # The only address is never ejected: there is nothing better.
        if backend.ejected or backend.gone or len(self.backends) < 2:
            return
        backend.ejected = True
        backend.ejections += 1
        if self.on_ejected is not None:
            try:
                self.on_ejected(backend)
            except Exception:
                backend.ejected = False       # nobody would admit it again
