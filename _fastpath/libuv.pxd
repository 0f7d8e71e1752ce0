# A turn in uvloop's loop, by libuv's public functions: whoever holds it is called each time before the loop would
# sleep, and may sleep in its place. libuv is in uvloop's extension module, or a library that it is linked to; its
# functions are looked up there once, when this module is imported, and have been the same in all of libuv 1.x.
#
# A Turn keeps its loop alive, but not its holder, who calls `end` in time. The memory of libuv's two handles is
# libuv's from `begin` until it has called back after `end`.

ctypedef void (*BeforeSleep)(void* holder) noexcept nogil

cdef class Turn:
    cdef object loop
    cdef void* uv_loop
    cdef void* prepare            # NULL: not begun, or ended
    cdef void* idle

    # False where it is not uvloop's loop, or another one holds its turn.
    cdef bint begin(self, BeforeSleep call, void* holder) except -1
    cdef void end(self) noexcept
    cdef int backend_fd(self) noexcept    # readable where something is ready in the loop
    # How long the loop would sleep at most. 0: it has something to do; -1: until something is ready; or milliseconds.
    cdef int may_sleep_ms(self) noexcept
    # The end of this turn: the loop looks for what is ready there, without sleeping.
    cdef void give_back(self) noexcept
