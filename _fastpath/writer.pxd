# Writing a head from one that was scanned: what stays is copied in whole ranges of lines. Inline; there is no writer.pyx.
#
# A Writer owns nothing: it reads from the scanned head's bytes and writes into the caller's memory.

from libc.stdint cimport uint32_t
from libc.string cimport memcpy, strlen
from _fastpath.http1 cimport Head, Span

cdef struct Writer:
    const unsigned char* data     # the scanned head
    const Head* head
    unsigned char* out
    unsigned char* at
    unsigned char* end
    uint32_t run                  # first byte of `data` that is neither written nor passed over
    bint full                     # something did not fit: all that follows is dropped


cdef inline void put(Writer* writer, const void* bytes, size_t size) noexcept nogil:
    if <size_t>(writer.end - writer.at) < size:
        writer.full = True
        writer.end = writer.at
        return
    memcpy(writer.at, bytes, size)
    writer.at += size


cdef inline void text(Writer* writer, const char* bytes) noexcept nogil:
    put(writer, bytes, strlen(bytes))


cdef inline void part(Writer* writer, Span span) noexcept nogil:
    put(writer, writer.data + span.start, span.size)


# Writes what was passed unchanged so far, up to `stop`; goes on at `next`.
cdef inline void flush(Writer* writer, uint32_t stop, uint32_t next) noexcept nogil:
    if stop > writer.run:
        put(writer, writer.data + writer.run, stop - writer.run)
    writer.run = next


cdef inline void open_writer(Writer* writer, const unsigned char* data, const Head* head,
                             unsigned char* out, size_t capacity) noexcept nogil:
    writer.data = data
    writer.head = head
    writer.out = writer.at = out
    writer.end = out + capacity
    writer.full = False
    writer.run = 0


cdef inline Py_ssize_t close_writer(Writer* writer, const unsigned char* out) noexcept nogil:
    text(writer, b"\r\n")
    return -1 if writer.full else writer.at - out
