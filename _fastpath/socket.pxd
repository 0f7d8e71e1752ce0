# A connected stream socket: reading into borrowed memory, writing without a copy where the kernel takes it.
#
# Writes of borrowed bytes are corked: pieces for the same Socket are gathered and go out in one
# system call when another Socket writes, or at `uncork`. The bytes must stay valid until then: whoever
# owns them (a reader of the scratch buffer, a user of the arena) calls uncork before it
# reuses them. What the kernel refuses is copied into `out`, which the Socket owns.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.memory cimport ByteQueue, Chunk, iovec
from _fastpath.net cimport sockaddr, sockaddr_storage, socklen_t
from _fastpath.reactor cimport Pollable, Reactor
from _fastpath.tls cimport TlsLayer

cdef enum:
    RECV_AGAIN = -1               # nothing there now
    RECV_FAILED = -2              # the connection is gone
    OUT_HIGH = 262144             # a sink offers no room above this many unsent bytes
    OUT_LOW = 65536               # ... and offers it again below this


cdef class Socket(Pollable):
    cdef TlsLayer tls             # None: plain. Then `out` holds ciphertext, and `readable` means that there may be plaintext
    cdef ByteQueue out            # accepted, not yet taken by the kernel
    cdef uint8_t closing          # close when `out` is empty
    cdef uint8_t shut             # SHUT_WR was sent
    cdef uint8_t shut_wanted      # SHUT_WR when `out` is empty
    cdef uint8_t starved          # our source found no room: tell it when there is some
    cdef size_t unreported        # body bytes passed to us and not yet reported by peer.consumed
    cdef uint64_t bytes_in, bytes_out

    # >= 0: bytes read (0: the peer ended); RECV_AGAIN, RECV_FAILED.
    cdef Py_ssize_t receive(self, void* data, size_t size) noexcept
    # Borrowed bytes, valid until uncork. Never fails: a broken connection shows up as `broken`.
    cdef void write(self, const void* data, size_t size) noexcept
    # The same for bytes that are gone when this returns.
    cdef void write_copy(self, const void* data, size_t size) noexcept
    cdef void flush(self) noexcept            # `out` to the kernel
    cdef void end_writing(self) noexcept      # SHUT_WR once everything is out
    cdef void close_gracefully(self) noexcept # remove once everything is out
    cdef void reset_hard(self) noexcept       # remove now, the peer sees a reset
    cdef size_t sink_room(self) noexcept
    cdef void report(self, size_t sent) noexcept      # bytes that left: tell the source
    # Bytes that the other end's host has taken: what the kernel has of them moves in large steps, this does not.
    cdef uint64_t acknowledged(self) noexcept
    cdef void on_sent(self) noexcept          # hook: `out` became empty, or shorter
    cdef void on_blocked(self) noexcept       # hook: the kernel has not taken all of a write
    cdef void on_closed(self) noexcept        # hook: removed by flush, close_gracefully or a failure of writing
    cdef void write_failed(self) noexcept
    # TLS: ciphertext from the kernel (as `receive`), plaintext from it, and what it has to send to the kernel or `out`.
    cdef Py_ssize_t feed_tls(self) noexcept
    cdef Py_ssize_t receive_tls(self, unsigned char* data, size_t size) noexcept
    cdef size_t send_tls(self) noexcept
    # Encrypts plaintext and sends it: bytes that the kernel took, the rest is in `out`; -1: `write_failed` was called.
    cdef Py_ssize_t encrypt(self, iovec* parts, int count, size_t size) noexcept
    cdef size_t send_cipher(self, size_t size) noexcept
    # Steps of the handshake as far as the bytes go that have come: 1 (done), TLS_MORE, or TLS_FAILED (also: `broken`).
    cdef int shake_tls(self) noexcept
    cdef void say_end(self) noexcept          # close_notify
    cdef void finish_send(self, size_t taken) noexcept
    cdef void finish_writing(self) noexcept

# Sends what is corked, if anything.
cdef void uncork() noexcept
# Options of a connection whose other end is `peer`.
cdef void set_stream_options(int fd, const sockaddr_storage* peer) noexcept
cdef void set_lowat(int fd) noexcept      # a tunnel's kernel queue is kept short: priority needs it
# A non-blocking connect; the descriptor, or -1.
cdef int start_connect(const sockaddr_storage* address, socklen_t size) noexcept
cdef int connect_error(int fd) noexcept
cdef bint peek_alive(int fd) noexcept
# The address as address.pxd has it; False: of another family than IP.
cdef bint raw_address(const sockaddr_storage* address, unsigned char* raw, uint16_t* port) noexcept
# "192.0.2.1", "2001:db8::1" or "unix" into out (>= 64 bytes), the port into *port; returns the length.
cdef uint32_t address_text(const sockaddr_storage* address, char* out, uint16_t* port) noexcept
