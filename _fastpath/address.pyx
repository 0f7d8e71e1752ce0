"""IP addresses: text to 16 bytes and back. See address.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset, strlen

cdef extern from "<arpa/inet.h>" nogil:
    int AF_INET, AF_INET6
    const char* inet_ntop(int family, const void* source, char* out, uint32_t size)
    int inet_pton(int family, const char* source, void* out)

cdef const unsigned char* MAPPED = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

cdef enum:
    MAPPED_SIZE = 12


cdef bint is_four(const unsigned char* raw) noexcept nogil:
    return memcmp(raw, MAPPED, MAPPED_SIZE) == 0


cdef bint read_address(const unsigned char* text, size_t size, unsigned char* raw) noexcept nogil:
    cdef char copy[ADDRESS_TEXT]
    if size == 0 or size >= ADDRESS_TEXT or memchr(text, 0, size) != NULL:
        return False
    memcpy(copy, text, size)
    copy[size] = 0
    if memchr(copy, c":", size) != NULL:
        return inet_pton(AF_INET6, copy, raw) == 1
    memcpy(raw, MAPPED, MAPPED_SIZE)
    return inet_pton(AF_INET, copy, raw + MAPPED_SIZE) == 1


cdef bint read_port(const unsigned char* text, size_t size, uint16_t* port) noexcept nogil:
    cdef uint32_t value = 0
    cdef size_t i
    if size == 0 or size > 5 or (text[0] == c"0" and size > 1):
        return False
    for i in range(size):
        if text[i] < c"0" or text[i] > c"9":
            return False
        value = value * 10 + (text[i] - c"0")
    port[0] = <uint16_t>value
    return value <= 65535


cdef bint read_endpoint(const unsigned char* text, size_t size, unsigned char* raw, uint16_t* port) noexcept nogil:
    cdef const unsigned char* mark
    cdef size_t inner
    port[0] = 0
    if size and text[0] == c"[":
        mark = <const unsigned char*>memchr(text, c"]", size)
        if mark == NULL:
            return False
        inner = mark - text - 1
        if memchr(text + 1, c":", inner) == NULL or not read_address(text + 1, inner, raw):
            return False
        inner += 2
        if inner == size:
            return True
        return text[inner] == c":" and read_port(text + inner + 1, size - inner - 1, port)
    mark = <const unsigned char*>memchr(text, c":", size)
    if mark == NULL or memchr(mark + 1, c":", size - (mark - text) - 1) != NULL:
        return read_address(text, size, raw)
    return read_address(text, mark - text, raw) and read_port(mark + 1, size - (mark - text) - 1, port)


cdef uint32_t write_number(uint32_t value, char* out) noexcept nogil:
    cdef char digits[10]
    cdef uint32_t count = 0
    cdef uint32_t i
    while True:
        digits[count] = <char>(48 + value % 10)
        count += 1
        value //= 10
        if value == 0:
            break
    for i in range(count):
        out[i] = digits[count - 1 - i]
    return count


cdef uint32_t write_address(const unsigned char* raw, char* out) noexcept nogil:
    cdef uint32_t used = 0
    cdef int i
    if not is_four(raw):
        inet_ntop(AF_INET6, raw, out, ADDRESS_TEXT)
        return <uint32_t>strlen(out)
    # The usual case by hand: inet_ntop goes through sprintf.
    for i in range(4):
        used += write_number(raw[MAPPED_SIZE + i], out + used)
        if i < 3:
            out[used] = c"."
            used += 1
    out[used] = 0
    return used


cdef uint32_t write_endpoint(const char* address, uint32_t size, uint16_t port, char* out) noexcept nogil:
    cdef bint brackets = memchr(address, c":", size) != NULL
    cdef uint32_t used = 0
    if size >= ADDRESS_TEXT:
        return 0
    if brackets:
        out[0] = c"["
        used = 1
    memcpy(out + used, address, size)
    used += size
    if brackets:
        out[used] = c"]"
        used += 1
    out[used] = c":"
    return used + 1 + write_number(port, out + used + 1)


def parse_endpoint(bytes text not None) -> tuple[bytes, int] | None:
    """Return the 16 bytes and the port (0: none) of ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT; None for anything else."""
    cdef unsigned char raw[ADDRESS_SIZE]
    cdef uint16_t port = 0
    if not read_endpoint(text, len(text), raw, &port):
        return None
    return (<bytes>raw[:ADDRESS_SIZE]), port


def format_endpoint(bytes raw not None, uint16_t port) -> str:
    """Return "192.0.2.1:80" or "[2001:db8::1]:80" for 16 bytes. Raises ValueError for another size."""
    cdef char address[ADDRESS_TEXT]
    cdef char out[ENDPOINT_TEXT]
    cdef uint32_t size
    if len(raw) != ADDRESS_SIZE:
        raise ValueError(f"an address has {ADDRESS_SIZE} bytes, not {len(raw)}")
    size = write_address(raw, address)
    return (<bytes>out[:write_endpoint(address, size, port, out)]).decode("ascii")
