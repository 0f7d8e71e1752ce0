# IP addresses as 16 bytes in network order. IPv4 is kept as its mapped form (::ffff:192.0.2.1, RFC 4291 2.5.5.2), so
# that each address has one spelling here, whichever family it came in.
#
# Sans-IO; owns nothing. `raw` is always 16 bytes of the caller's.

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    ADDRESS_SIZE = 16
    ADDRESS_TEXT = 46             # bytes of the longest text, with the NUL that inet_ntop writes
    ENDPOINT_TEXT = 56            # "[...]:65535"

cdef bint is_four(const unsigned char* raw) noexcept nogil
# An address and nothing else: no port, brackets or zone. False: it is none.
cdef bint read_address(const unsigned char* text, size_t size, unsigned char* raw) noexcept nogil
# ADDRESS, ADDRESS:PORT (IPv4), [ADDRESS] or [ADDRESS]:PORT. *port: 0 where there is none.
cdef bint read_endpoint(const unsigned char* text, size_t size, unsigned char* raw, uint16_t* port) noexcept nogil
# Both return the length; `out` has room for ADDRESS_TEXT or ENDPOINT_TEXT bytes. IPv6 as in RFC 5952.
cdef uint32_t write_address(const unsigned char* raw, char* out) noexcept nogil
cdef uint32_t write_endpoint(const char* address, uint32_t size, uint16_t port, char* out) noexcept nogil
cdef uint32_t write_number(uint32_t value, char* out) noexcept nogil
