# One TLS connection, sans-IO: ciphertext in and out, plaintext in and out.
#
# pyOpenSSL makes the connection (a context says which certificates, versions, ciphers); the bytes are
# driven here, by the very OpenSSL functions that pyOpenSSL has loaded, or by its public methods where those can't be reached.
#
# What is written before the handshake is done waits in `early`, unencrypted, which the TlsLayer owns, until `write_early`
# is called: whoever it is meant for has to be verified first.
#
# A TlsLayer holds a strong reference to the pyOpenSSL Connection, which owns the SSL object and its two
# memory BIOs. Between two calls the BIOs hold what was fed and not yet read, and what was written and not yet drained.

from libc.stdint cimport uint8_t
from _fastpath.memory cimport ByteQueue

cdef enum:
    TLS_END = 0                   # the peer has said close_notify
    TLS_MORE = -1                 # it needs more ciphertext first
    TLS_FAILED = -2               # the connection is of no use any more; `reason` says why
    TLS_RECORD = 16384            # plaintext bytes of one record, at most (RFC 8446 5.1)


cdef class TlsLayer:
    cdef object connection        # OpenSSL.SSL.Connection
    cdef void* ssl
    cdef void* inbound            # BIOs; borrowed from the SSL; NULL while it rests
    cdef void* outbound
    cdef ByteQueue early          # plaintext
    cdef readonly bint established
    cdef readonly bint failed
    cdef bint ended               # our close_notify was written
    cdef readonly str reason      # why it failed, for people

    # Ciphertext that came from the peer. 0, or TLS_FAILED (no memory).
    cdef int feed(self, const unsigned char* data, size_t size) noexcept
    # Ciphertext for the peer: how many bytes were put into `out`, 0: none left.
    cdef size_t drain(self, unsigned char* out, size_t size) noexcept
    # 1: done, TLS_MORE or TLS_FAILED. Drain after each call, whatever it returns.
    cdef int handshake(self) noexcept
    # After the handshake: whether it went on with an earlier session. False where only the public methods are reachable.
    cdef bint resumed(self) noexcept
    # After the handshake: encrypts what was written before. 0, or TLS_FAILED.
    cdef int write_early(self) noexcept
    # > 0: plaintext bytes; TLS_END, TLS_MORE or TLS_FAILED. It may write, too (key updates): drain.
    cdef Py_ssize_t read(self, void* data, size_t size) noexcept
    # Whether `read` would find nothing: all that was fed has been read. False where that is not known.
    cdef bint emptied(self) noexcept
    # Gives the memory BIOs back until there is something to read or write again. False: not now.
    cdef bint rest(self) noexcept
    # Encrypts all of it. 0, or TLS_FAILED.
    cdef int write(self, const void* data, size_t size) noexcept
    cdef void end(self) noexcept  # writes close_notify, once

    # --- inside only ---
    cdef int wake(self) noexcept  # 0, or TLS_FAILED
    cdef int understand(self, int result) noexcept
    cdef int fail(self, str reason) noexcept
