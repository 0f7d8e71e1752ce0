"""The base of everything that can be one side of an exchange. See end.pxd."""

cimport cython


@cython.no_gc
cdef class End:
    """One side of an exchange. Only compiled subclasses are useful."""

    cdef size_t room(self) noexcept:
        return 0

    cdef unsigned char* reserve(self, size_t* capacity) noexcept:
        capacity[0] = 0
        return NULL

    cdef void commit(self, size_t size, bint end) noexcept:
        pass

    cdef void take_meta(self, const unsigned char* meta, size_t size) noexcept:
        pass

    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept:
        pass

    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept:
        pass

    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept:
        pass

    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept:
        pass

    cdef void consumed(self, size_t size) noexcept:
        pass

    cdef void on_room(self) noexcept:
        pass

    cdef void on_parting(self) noexcept:
        pass
