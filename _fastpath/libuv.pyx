"""A turn in uvloop's loop. See libuv.pxd.

A prepare handle is called before the loop polls; `uv_backend_timeout` says how long it would sleep then, and is 0 where
there is something to do first; an active idle handle keeps it from sleeping. Source: the documentation of libuv 1.x,
"uv_loop_t", "uv_prepare_t", "uv_idle_t".
"""

from libc.stdlib cimport free, malloc

import os

from uvloop import loop as uvloop

cdef enum:
    UV_IDLE = 6
    UV_PREPARE = 9

ctypedef void (*Callback)(void* handle) noexcept nogil
ctypedef size_t (*SizeFunction)(int kind) noexcept nogil
ctypedef int (*InitFunction)(void* loop, void* handle) noexcept
ctypedef int (*StartFunction)(void* handle, Callback call) noexcept
ctypedef int (*StopFunction)(void* handle) noexcept nogil
ctypedef void (*CloseFunction)(void* handle, Callback call) noexcept
ctypedef void (*TimeFunction)(void* loop) noexcept
ctypedef int (*LookFunction)(const void* loop) noexcept

cdef extern from "<dlfcn.h>":
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    int RTLD_LAZY, RTLD_NOLOAD

cdef extern from "Python.h":
    void* PyCapsule_GetPointer(object capsule, const char* name) except NULL

cdef struct Holder:               # directly in front of the prepare handle
    BeforeSleep call
    void* who
    void* idle

cdef SizeFunction uv_handle_size = NULL
cdef InitFunction uv_prepare_init = NULL
cdef InitFunction uv_idle_init = NULL
cdef StartFunction uv_prepare_start = NULL
cdef StartFunction uv_idle_start = NULL
cdef StopFunction uv_idle_stop = NULL
cdef CloseFunction uv_close = NULL
cdef TimeFunction uv_update_time = NULL
cdef LookFunction uv_backend_timeout = NULL
cdef LookFunction uv_backend_fd = NULL


cdef void* find(void* library, const char* name) except NULL:
    cdef void* function = dlsym(library, name)
    if function == NULL:
        raise LookupError(name)
    return function


cdef bint find_functions() except -1:
    global uv_handle_size, uv_prepare_init, uv_idle_init, uv_prepare_start, uv_idle_start, uv_idle_stop, uv_close
    global uv_update_time, uv_backend_timeout, uv_backend_fd
    cdef void* library = dlopen(os.fsencode(uvloop.__file__), RTLD_LAZY | RTLD_NOLOAD)
    if library == NULL or not hasattr(uvloop, "libuv_get_loop_t_ptr"):
        return False
    try:
        uv_handle_size = <SizeFunction>find(library, b"uv_handle_size")
        uv_prepare_init = <InitFunction>find(library, b"uv_prepare_init")
        uv_idle_init = <InitFunction>find(library, b"uv_idle_init")
        uv_prepare_start = <StartFunction>find(library, b"uv_prepare_start")
        uv_idle_start = <StartFunction>find(library, b"uv_idle_start")
        uv_idle_stop = <StopFunction>find(library, b"uv_idle_stop")
        uv_close = <CloseFunction>find(library, b"uv_close")
        uv_update_time = <TimeFunction>find(library, b"uv_update_time")
        uv_backend_timeout = <LookFunction>find(library, b"uv_backend_timeout")
        uv_backend_fd = <LookFunction>find(library, b"uv_backend_fd")
    except LookupError:
        return False
    return True


direct = find_functions()
held = set()                      # the loops whose turn somebody holds


cdef void on_prepare(void* handle) noexcept nogil:
    cdef Holder* holder = <Holder*>handle - 1
    uv_idle_stop(holder.idle)
    holder.call(holder.who)


cdef void on_idle(void* handle) noexcept nogil:
    pass


cdef void on_prepare_closed(void* handle) noexcept nogil:
    free(<Holder*>handle - 1)


cdef void on_idle_closed(void* handle) noexcept nogil:
    free(handle)


cdef class Turn:
    """The turn in one loop."""

    def __cinit__(self, loop):
        self.loop = loop

    cdef bint begin(self, BeforeSleep call, void* holder) except -1:
        cdef Holder* memory
        cdef void* uv_loop
        if not direct or not isinstance(self.loop, uvloop.Loop):
            return False
        uv_loop = PyCapsule_GetPointer(uvloop.libuv_get_loop_t_ptr(self.loop), NULL)
        if <size_t>uv_loop in held:
            return False
        memory = <Holder*>malloc(sizeof(Holder) + uv_handle_size(UV_PREPARE))
        self.idle = malloc(uv_handle_size(UV_IDLE))
        if memory == NULL or self.idle == NULL:
            free(memory)
            free(self.idle)
            raise MemoryError
        self.uv_loop = uv_loop
        self.prepare = memory + 1
        # None of these four can fail.
        uv_prepare_init(uv_loop, self.prepare)
        uv_idle_init(uv_loop, self.idle)
        # What uvloop finds in a handle's data, which is its first word, it takes for an object of its own.
        (<void**>self.prepare)[0] = (<void**>self.idle)[0] = NULL
        memory.call = call
        memory.who = holder
        memory.idle = self.idle
        uv_prepare_start(self.prepare, on_prepare)
        held.add(<size_t>uv_loop)
        return True

    cdef void end(self) noexcept:
        if self.prepare == NULL:
            return
        held.discard(<size_t>self.uv_loop)
        uv_close(self.prepare, on_prepare_closed)
        uv_close(self.idle, on_idle_closed)
        self.prepare = self.idle = NULL

    cdef int backend_fd(self) noexcept:
        return uv_backend_fd(self.uv_loop)

    cdef int may_sleep_ms(self) noexcept:
        uv_update_time(self.uv_loop)
        return uv_backend_timeout(self.uv_loop)

    cdef void give_back(self) noexcept:
        uv_idle_start(self.idle, on_idle)
