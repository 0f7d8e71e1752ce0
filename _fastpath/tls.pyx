"""TLS over memory buffers, driven through pyOpenSSL's own OpenSSL. See tls.pxd.

The functions of the library are reached as pointers, found once at import (`direct` says whether they were).
`BROKER_TLS=methods` in the environment chooses pyOpenSSL's public methods instead.
"""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from _fastpath.memory cimport iovec, queue_append, queue_clear, queue_consume, queue_vectors
from _fastpath.reactor cimport turns

import os

from OpenSSL import SSL, _util

cdef enum:
    ERROR_SSL = 1
    ERROR_WANT_READ = 2
    ERROR_WANT_WRITE = 3
    ERROR_ZERO_RETURN = 6

ctypedef int (*SslFunction)(void* ssl) noexcept
ctypedef int (*ReadFunction)(void* ssl, void* data, int size) noexcept
ctypedef int (*WriteFunction)(void* ssl, const void* data, int size) noexcept
ctypedef int (*ErrorFunction)(const void* ssl, int result) noexcept
ctypedef void (*ClearFunction)() noexcept
ctypedef int (*PendingFunction)(const void* ssl) noexcept
ctypedef void (*SetBioFunction)(void* ssl, void* inbound, void* outbound) noexcept
ctypedef void* (*NewFunction)(const void* method) noexcept
ctypedef const void* (*MethodFunction)() noexcept
ctypedef int (*FreeFunction)(void* bio) noexcept
ctypedef long (*MemoryFunction)(void* bio, char** data) noexcept

cdef SslFunction ssl_do_handshake = NULL
cdef SslFunction ssl_shutdown = NULL
cdef SslFunction ssl_session_reused = NULL
cdef ReadFunction ssl_read = NULL
cdef WriteFunction ssl_write = NULL
cdef ErrorFunction ssl_get_error = NULL
cdef ClearFunction err_clear_error = NULL
cdef ReadFunction bio_read = NULL
cdef WriteFunction bio_write = NULL
cdef PendingFunction ssl_pending = NULL
cdef MemoryFunction bio_get_mem_data = NULL
cdef SetBioFunction ssl_set_bio = NULL
cdef NewFunction bio_new = NULL
cdef MethodFunction bio_s_mem = NULL
cdef FreeFunction bio_free = NULL
cdef uint64_t cleared = 0         # the turn in which the error queue was last seen to be empty


cdef size_t address(str name) except 0:
    # cryptography wraps cffi's library in a module; addresses are to be had from the library itself.
    library = getattr(_util.lib, "_original_lib", _util.lib)
    return <size_t>int(_util.ffi.cast("uintptr_t", _util.ffi.addressof(library, name)))


cdef bint find_functions() except -1:
    global ssl_do_handshake, ssl_shutdown, ssl_session_reused, ssl_read, ssl_write, ssl_get_error, err_clear_error, bio_read, bio_write
    global ssl_pending, bio_get_mem_data, ssl_set_bio, bio_new, bio_s_mem, bio_free
    if os.environ.get("BROKER_TLS") == "methods":
        return False
    try:
        ssl_do_handshake = <SslFunction>address("SSL_do_handshake")
        ssl_shutdown = <SslFunction>address("SSL_shutdown")
        ssl_session_reused = <SslFunction>address("SSL_session_reused")
        ssl_read = <ReadFunction>address("SSL_read")
        ssl_write = <WriteFunction>address("SSL_write")
        ssl_get_error = <ErrorFunction>address("SSL_get_error")
        err_clear_error = <ClearFunction>address("ERR_clear_error")
        bio_read = <ReadFunction>address("BIO_read")
        bio_write = <WriteFunction>address("BIO_write")
        ssl_pending = <PendingFunction>address("SSL_pending")
        bio_get_mem_data = <MemoryFunction>address("BIO_get_mem_data")
        ssl_set_bio = <SetBioFunction>address("SSL_set_bio")
        bio_new = <NewFunction>address("BIO_new")
        bio_s_mem = <MethodFunction>address("BIO_s_mem")
        bio_free = <FreeFunction>address("BIO_free")
        # The names that a Connection keeps its pointers under are its own affair: see that they are there.
        probe = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
        return all(pointer_of(each) for each in (probe._ssl, probe._into_ssl, probe._from_ssl))
    except (AttributeError, TypeError, ValueError, NotImplementedError):
        return False


def pointer_of(pointer) -> int:
    return int(_util.ffi.cast("uintptr_t", pointer))


cdef inline void forget_errors() noexcept:
    # What others have left in this thread's queue would be taken for ours. Clearing it costs as much as a tenth of a small request: within
    # a batch nobody but this file uses the library, and Python is called by the handshake and after failures only.
    global cleared
    if cleared != turns or not turns & 1:
        err_clear_error()
        cleared = turns


cdef inline void others_were_here() noexcept:
    global cleared
    cleared = 0


direct = find_functions()
cdef bint is_direct = direct


def reason_of(error, connection=None) -> str:
    """Say in words what OpenSSL complains of; rather those that a verification callback left as `app_data`."""
    words = connection.get_app_data() if connection is not None else None
    if isinstance(words, str):
        return words
    parts = error.args[0] if error.args else ()
    if isinstance(parts, (list, tuple)) and parts and isinstance(parts[-1], tuple):
        return str(parts[-1][-1]) or "TLS failure"
    return str(error) or type(error).__name__


cdef class TlsLayer:
    """One TLS connection. `connection`: a pyOpenSSL Connection without a socket, its state (accept or connect) set."""

    def __cinit__(self, connection not None):
        self.connection = connection
        self.reason = ""
        others_were_here()
        if is_direct:
            self.ssl = <void*><size_t>pointer_of(connection._ssl)
            self.inbound = <void*><size_t>pointer_of(connection._into_ssl)
            self.outbound = <void*><size_t>pointer_of(connection._from_ssl)

    def __dealloc__(self):
        queue_clear(&self.early)

    cdef int fail(self, str reason) noexcept:
        self.failed = True
        if not self.reason:
            self.reason = reason
        return TLS_FAILED

    cdef int understand(self, int result) noexcept:
        # What a call that returned `result` <= 0 has come to.
        cdef int error = ssl_get_error(self.ssl, result)
        if error == ERROR_WANT_READ or error == ERROR_WANT_WRITE:
            return TLS_MORE
        if error == ERROR_ZERO_RETURN:
            return TLS_END
        others_were_here()
        try:
            self.connection._raise_ssl_error(self.connection._ssl, result)
        except Exception as problem:      # also what a callback has raised
            return self.fail(reason_of(problem, self.connection))
        return self.fail("TLS failure")

    cdef int feed(self, const unsigned char* data, size_t size) noexcept:
        if is_direct:
            if self.wake() < 0:
                return TLS_FAILED
            return 0 if bio_write(self.inbound, data, <int>size) == <int>size else self.fail("out of memory")
        try:
            self.connection.bio_write(data[:size])
        except Exception as problem:
            return self.fail(reason_of(problem))
        return 0

    cdef size_t drain(self, unsigned char* out, size_t size) noexcept:
        cdef int count
        if is_direct:
            if self.outbound == NULL:
                return 0
            count = bio_read(self.outbound, out, <int>size)
            return <size_t>count if count > 0 else 0
        try:
            data = self.connection.bio_read(size)
            memcpy(out, <const char*><bytes>data, len(data))
            return len(data)
        except SSL.WantReadError:
            return 0
        except Exception as problem:
            self.fail(reason_of(problem))
            return 0

    cdef int handshake(self) noexcept:
        cdef int result
        if is_direct:
            err_clear_error()
            result = ssl_do_handshake(self.ssl)
            others_were_here()    # callbacks
            if result != 1:
                result = self.understand(result)
                return result if result != TLS_END else self.fail("the peer ended the connection during the handshake")
        else:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                return TLS_MORE
            except Exception as problem:
                return self.fail(reason_of(problem, self.connection))
        self.established = True
        return 1

    cdef bint resumed(self) noexcept:
        return is_direct and ssl_session_reused(self.ssl) == 1

    cdef int write_early(self) noexcept:
        cdef iovec piece
        while self.early.size > 0:
            queue_vectors(&self.early, &piece, 1, self.early.size)
            if self.write(piece.iov_base, piece.iov_len) < 0:
                return TLS_FAILED
            queue_consume(&self.early, piece.iov_len)
        return 0

    cdef Py_ssize_t read(self, void* data, size_t size) noexcept:
        cdef int count
        if self.failed:
            return TLS_FAILED
        if is_direct:
            if self.inbound == NULL:
                return TLS_MORE
            forget_errors()
            count = ssl_read(self.ssl, data, <int>size)
            return count if count > 0 else self.understand(count)
        try:
            return <Py_ssize_t>self.connection.recv_into(<unsigned char[:size]>data)
        except SSL.WantReadError:
            return TLS_MORE
        except SSL.ZeroReturnError:
            return TLS_END
        except Exception as problem:
            return self.fail(reason_of(problem))

    cdef bint emptied(self) noexcept:
        return is_direct and ssl_pending(self.ssl) == 0 and bio_get_mem_data(self.inbound, NULL) == 0

    cdef bint rest(self) noexcept:
        if not self.established or self.failed or self.inbound == NULL or not self.emptied():
            return False
        if bio_get_mem_data(self.outbound, NULL) != 0:
            return False
        ssl_set_bio(self.ssl, NULL, NULL)
        self.inbound = self.outbound = NULL
        return True

    cdef int wake(self) noexcept:
        cdef void* inbound
        cdef void* outbound
        if not is_direct or self.inbound != NULL:
            return 0
        inbound = bio_new(bio_s_mem())
        outbound = bio_new(bio_s_mem())
        if inbound == NULL or outbound == NULL:
            bio_free(inbound)
            bio_free(outbound)
            return self.fail("out of memory")
        ssl_set_bio(self.ssl, inbound, outbound)
        self.inbound = inbound
        self.outbound = outbound
        return 0

    cdef int write(self, const void* data, size_t size) noexcept:
        # Memory takes everything: a record is written whole or not at all.
        cdef const unsigned char* at = <const unsigned char*>data
        cdef size_t part
        cdef int count
        if self.failed or self.ended:
            return TLS_FAILED
        if not self.established:
            return 0 if queue_append(&self.early, data, size) == 0 else self.fail("out of memory")
        if self.wake() < 0:
            return TLS_FAILED
        while size > 0:
            part = size if size < TLS_RECORD else <size_t>TLS_RECORD
            if is_direct:
                forget_errors()
                count = ssl_write(self.ssl, at, <int>part)
                if count <= 0:
                    self.understand(count)
                    return self.fail("a record could not be written")
            else:
                try:
                    count = self.connection.send(at[:part])
                except Exception as problem:
                    return self.fail(reason_of(problem))
            at += count
            size -= <size_t>count
        return 0

    cdef void end(self) noexcept:
        if self.ended or self.failed or not self.established:
            return
        self.ended = True
        if self.wake() < 0:
            return
        if is_direct:
            err_clear_error()
            ssl_shutdown(self.ssl)
            err_clear_error()
            return
        try:
            self.connection.shutdown()
        except Exception as problem:
            self.fail(reason_of(problem))
