# The responses of one upstream connection: heads that are read and made canonical, and bodies that are passed on by room.
#
# Owns `stash` (response bytes read too early) and `decoder`, each malloc'd when needed. upstream.pyx adds the connection and
# the requests.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.backend cimport Backend
from _fastpath.http1 cimport ChunkedDecoder, Head
from _fastpath.pool cimport Pool
from _fastpath.socket cimport Socket


cdef class ReplyReader(Socket):
    cdef Pool service
    cdef Backend backend          # the address that this is a connection to
    cdef unsigned char* stash     # a partial response head, or body bytes that nobody had room for
    cdef uint32_t stash_size, scan_resume
    cdef ChunkedDecoder* decoder
    cdef uint64_t reply_left
    cdef uint32_t interim_size    # bytes of the interim responses so far
    cdef uint64_t reply_seen      # body bytes passed on
    cdef uint64_t replied_us      # the response's head came; 0: not yet
    cdef uint16_t status
    cdef uint8_t method_id        # of the request
    cdef uint8_t reply_framing, reply_begun, keep_alive
    cdef uint8_t touched          # bytes of the current response were seen
    cdef uint8_t upgraded         # a 101 that was asked for: bytes of any kind go both ways
    cdef uint8_t read_over        # of those, all were read
    cdef bytes upgrade            # the protocol that the request asks for; None: none

    # hooks
    cdef void reply_complete(self, bint clean) noexcept       # `clean`: nothing came behind it
    cdef void upgrade_begun(self) noexcept    # the 101 is there, and not passed on yet
    cdef void lost(self) noexcept             # the upstream ended the connection in the middle of it
    cdef void fail(self, uint16_t code, uint8_t delivery, const char* reason) noexcept
    cdef void drop(self) noexcept
    cdef void watch(self, uint64_t delay_ms) noexcept         # the next deadline; 0: none but that of the whole exchange

    # One step of reading; True where another may follow at once.
    cdef bint read_some(self) noexcept
    cdef void clear_reply(self) noexcept      # forgets what is left of a response

    # --- inside only ---
    cdef void drop_decoder(self) noexcept
    cdef bint read_head(self) noexcept
    cdef bint parse(self, const unsigned char* data, size_t size) noexcept
    cdef bint keep(self, const unsigned char* data, size_t size) noexcept
    cdef bint keep_rest(self, const unsigned char* data, size_t used, size_t size) noexcept
    cdef void interim(self, const unsigned char* data, const Head* head) noexcept
    cdef bint begin_reply(self, const unsigned char* data, const Head* head, size_t rest) noexcept
    cdef bint begin_upgrade(self, const unsigned char* data, const Head* head, size_t rest) noexcept
    cdef bint read_plain(self, size_t room) noexcept
    cdef bint read_last(self, size_t left) noexcept
    cdef bint read_chunked(self, size_t room) noexcept
    cdef bint feed_chunked(self, const unsigned char* data, size_t size) noexcept
    cdef bint feed_rest(self, const unsigned char* data, size_t size) noexcept
    cdef bint pass_body(self, const unsigned char* data, size_t size, bint more) noexcept
