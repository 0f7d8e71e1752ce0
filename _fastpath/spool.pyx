"""Blocks of lines on their way to a file. See spool.pxd."""

from cpython.buffer cimport PyBuffer_FillInfo
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memset

cimport cython

import os

cdef extern from "<pthread.h>" nogil:
    int pthread_mutex_init(pthread_mutex_t* mutex, const void* attributes)
    int pthread_mutex_destroy(pthread_mutex_t* mutex)
    int pthread_mutex_lock(pthread_mutex_t* mutex)
    int pthread_mutex_unlock(pthread_mutex_t* mutex)
    int pthread_cond_init(pthread_cond_t* condition, const void* attributes)
    int pthread_cond_destroy(pthread_cond_t* condition)
    int pthread_cond_wait(pthread_cond_t* condition, pthread_mutex_t* mutex)
    int pthread_cond_signal(pthread_cond_t* condition)

cdef extern from "<unistd.h>" nogil:
    ssize_t write_to "write" (int fd, const void* data, size_t size)
    int close(int fd)

cdef extern from "<fcntl.h>" nogil:
    struct flock:
        short l_type
    int fcntl(int fd, int command, flock* lock)
    int F_SETLKW, F_WRLCK, F_UNLCK

cdef extern from "<sys/stat.h>" nogil:
    struct stat_of "stat":
        unsigned int st_mode
    int fstat(int fd, stat_of* found)
    bint S_ISREG(unsigned int mode)


cdef class Home:
    """Where blocks come from."""


@cython.final
cdef class Lines:
    """A block of whole lines; its memory is that of a buffer object."""

    def __dealloc__(self):
        free(self.data)
        if self.home is not None:
            self.home.out -= 1

    def __getbuffer__(self, Py_buffer* buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, <Py_ssize_t>self.size, 1, flags)

    def __len__(self):
        return self.size


@cython.final
cdef class Spool:
    """Takes blocks of lines for a descriptor, which becomes its own. One thread lends itself to `write` them."""

    def __cinit__(self, int fd):
        pthread_mutex_init(&self.mutex, NULL)
        pthread_cond_init(&self.more, NULL)
        self.use(fd)

    def __dealloc__(self):
        self.next = NULL
        self.reap()
        if self.fd >= 0:
            close(self.fd)
        pthread_cond_destroy(&self.more)
        pthread_mutex_destroy(&self.mutex)

    def reopen(self, int fd) -> None:
        """Go on with this descriptor after what was put before: the file has been moved away."""
        self.put(KIND_REOPEN, None, fd)

    def stop(self) -> None:
        """End `write` after what was put before."""
        self.put(KIND_STOP, None, -1)

    def write(self) -> None:
        """Write until `stop`. OSError: the rest of a block is lost, and counted; call again."""
        cdef int problem
        with nogil:
            problem = self.work()
        if problem:
            raise OSError(problem, os.strerror(problem))

    cdef int put(self, Kind kind, Lines lines, int fd) except -1:
        cdef Item* item = <Item*>malloc(sizeof(Item))
        if item == NULL:
            raise MemoryError
        item.kind = kind
        item.lines = NULL
        item.fd = fd
        item.after = NULL
        if lines is not None:
            Py_INCREF(lines)
            item.lines = <PyObject*>lines
            item.data = lines.data
            item.size = lines.size
        self.reap()
        pthread_mutex_lock(&self.mutex)
        if self.first == NULL:
            self.first = item
        else:
            self.last.after = item
        self.last = item
        if self.next == NULL:
            self.next = item
            pthread_cond_signal(&self.more)
        pthread_mutex_unlock(&self.mutex)
        return 0

    cdef void reap(self) noexcept:
        cdef Item* item
        cdef Item* after
        cdef Item* end
        pthread_mutex_lock(&self.mutex)
        item = self.first
        end = self.next
        self.first = end
        pthread_mutex_unlock(&self.mutex)
        while item != end:
            after = item.after
            if item.lines != NULL:
                Py_DECREF(<object>item.lines)
            free(item)
            item = after

    cdef void use(self, int fd) noexcept nogil:
        cdef stat_of found
        self.fd = fd
        self.torn = False
        self.shared = fstat(fd, &found) != 0 or not S_ISREG(found.st_mode)

    cdef int work(self) noexcept nogil:
        cdef Item* item
        cdef Kind kind
        cdef int problem = 0
        while True:
            pthread_mutex_lock(&self.mutex)
            while self.next == NULL:
                pthread_cond_wait(&self.more, &self.mutex)
            item = self.next
            pthread_mutex_unlock(&self.mutex)
            kind = item.kind
            if kind == KIND_LINES:
                self.problem = problem = self.append(item.data, item.size)
            else:
                close(self.fd)
                self.use(item.fd)
            pthread_mutex_lock(&self.mutex)
            self.next = item.after        # from here on it may be reaped
            pthread_mutex_unlock(&self.mutex)
            if problem or kind == KIND_STOP:
                return problem

    cdef int append(self, const unsigned char* data, size_t size) noexcept nogil:
        # errno of what went wrong, or 0. What a full disk took of a line is ended before the next.
        cdef size_t i
        cdef ssize_t taken
        cdef int problem = 0
        take_turn(self.fd, self.shared, F_WRLCK)
        if self.torn and write_to(self.fd, b"\n", 1) == 1:
            self.torn = False
        while size:
            taken = write_to(self.fd, data, size)
            if taken < 0 and errno == EINTR:
                continue
            if taken < 0:
                problem = errno
                break
            if taken:
                self.torn = data[taken - 1] != c"\n"
            data += taken
            size -= <size_t>taken
        take_turn(self.fd, self.shared, F_UNLCK)
        for i in range(size):
            self.lost += data[i] == c"\n"
        return problem


cdef void take_turn(int fd, bint shared, short kind) noexcept nogil:
    # Of all the processes of a node; a lock is its process's, and gone with it.
    cdef flock lock
    if shared:
        memset(&lock, 0, sizeof(flock))       # from the beginning, as long as it gets
        lock.l_type = kind
        while fcntl(fd, F_SETLKW, &lock) < 0 and errno == EINTR:
            pass
