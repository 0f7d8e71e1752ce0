"""The PROXY protocol, read and written. See proxy.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcmp, memcpy, memset

from _fastpath.address cimport ADDRESS_TEXT, is_four, read_address, write_address, write_number

cdef enum:
    SIGNATURE_SIZE = 12
    BINARY_HEAD = 16
    TEXT_PREFIX = 6
    MAX_TEXT = 107                # of version 1, its CRLF included
    COMMAND_LOCAL = 0x20          # version 2 in the high half
    COMMAND_PROXY = 0x21
    FAMILY_TCP4 = 0x11
    FAMILY_TCP6 = 0x21
    SIZE_TCP4 = 12
    SIZE_TCP6 = 36
    MAX_WORDS = 6

cdef const unsigned char* SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
cdef const unsigned char* PREFIX = b"PROXY "
cdef const unsigned char* FOUR = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"

cdef struct Word:
    const unsigned char* at
    size_t size


cdef inline uint16_t number16(const unsigned char* at) noexcept nogil:
    return <uint16_t>((at[0] << 8) | at[1])


cdef bint looks_proxied(const unsigned char* data, size_t size) noexcept nogil:
    if size >= SIGNATURE_SIZE:
        return memcmp(data, SIGNATURE, SIGNATURE_SIZE) == 0 or memcmp(data, PREFIX, TEXT_PREFIX) == 0
    return size >= TEXT_PREFIX and memcmp(data, PREFIX, TEXT_PREFIX) == 0


# --- version 1 ------------------------------------------------------------------

cdef bint read_number(Word word, uint16_t* value) noexcept nogil:
    cdef uint32_t total = 0
    cdef size_t i
    if word.size == 0 or word.size > 5 or (word.at[0] == c"0" and word.size > 1):
        return False
    for i in range(word.size):
        if word.at[i] < c"0" or word.at[i] > c"9":
            return False
        total = total * 10 + (word.at[i] - c"0")
    value[0] = <uint16_t>total
    return total <= 65535


# The words of a line, one space between two. Their number, or -1.
cdef int split(const unsigned char* at, size_t size, Word* words) noexcept nogil:
    cdef const unsigned char* space
    cdef int count = 0
    while count < MAX_WORDS:
        space = <const unsigned char*>memchr(at, c" ", size)
        words[count].at = at
        words[count].size = size if space == NULL else <size_t>(space - at)
        if words[count].size == 0:
            return -1
        count += 1
        if space == NULL:
            return count
        size -= words[count - 1].size + 1
        at = space + 1
    return -1


cdef int read_text(const unsigned char* data, size_t size, ProxyHeader* header) noexcept nogil:
    cdef Word words[MAX_WORDS]
    cdef const unsigned char* stop
    cdef size_t line
    cdef bint four
    if size > MAX_TEXT:
        size = MAX_TEXT
    stop = <const unsigned char*>memchr(data, c"\r", size)
    if stop == NULL:
        return PROXY_MORE if size < MAX_TEXT else PROXY_BAD
    line = stop - data
    if line + 1 == size:
        return PROXY_MORE if size < MAX_TEXT else PROXY_BAD
    if data[line + 1] != c"\n":
        return PROXY_BAD
    if line >= 13 and memcmp(data + TEXT_PREFIX, b"UNKNOWN", 7) == 0 and (line == 13 or data[13] == c" "):
        return <int>line + 2      # whatever it says behind that
    if split(data, line, words) != 6 or words[1].size != 4:
        return PROXY_BAD
    four = memcmp(words[1].at, b"TCP4", 4) == 0
    if not four and memcmp(words[1].at, b"TCP6", 4) != 0:
        return PROXY_BAD
    if (memchr(words[2].at, c":", words[2].size) == NULL) != four or (memchr(words[3].at, c":", words[3].size) == NULL) != four:
        return PROXY_BAD
    if not read_address(words[2].at, words[2].size, header.source) or not read_address(words[3].at, words[3].size, header.target):
        return PROXY_BAD
    if not read_number(words[4], &header.source_port) or not read_number(words[5], &header.target_port):
        return PROXY_BAD
    header.known = True
    return <int>line + 2


# --- version 2 ------------------------------------------------------------------

cdef int read_binary(const unsigned char* data, size_t size, ProxyHeader* header) noexcept nogil:
    cdef const unsigned char* block = data + BINARY_HEAD
    cdef size_t length
    if size > 12 and data[12] != COMMAND_LOCAL and data[12] != COMMAND_PROXY:
        return PROXY_BAD
    if size < BINARY_HEAD:
        return PROXY_MORE
    length = number16(data + 14)
    if length > MAX_PROXY - BINARY_HEAD:
        return PROXY_BAD
    if size - BINARY_HEAD < length:
        return PROXY_MORE
    # LOCAL: the proxy speaks for itself, its addresses are to be ignored. Other families say nothing of use here.
    if data[12] == COMMAND_PROXY and data[13] == FAMILY_TCP4:
        if length < SIZE_TCP4:
            return PROXY_BAD
        memcpy(header.source, FOUR, 12)
        memcpy(header.source + 12, block, 4)
        memcpy(header.target, FOUR, 12)
        memcpy(header.target + 12, block + 4, 4)
        header.source_port = number16(block + 8)
        header.target_port = number16(block + 10)
        header.known = True
    elif data[12] == COMMAND_PROXY and data[13] == FAMILY_TCP6:
        if length < SIZE_TCP6:
            return PROXY_BAD
        memcpy(header.source, block, 16)
        memcpy(header.target, block + 16, 16)
        header.source_port = number16(block + 32)
        header.target_port = number16(block + 34)
        header.known = True
    return <int>(BINARY_HEAD + length)


cdef int scan_proxy(const unsigned char* data, size_t size, ProxyHeader* header) noexcept nogil:
    memset(header, 0, sizeof(ProxyHeader))
    if size == 0:
        return PROXY_MORE
    if data[0] == PREFIX[0]:
        if memcmp(data, PREFIX, size if size < TEXT_PREFIX else TEXT_PREFIX) != 0:
            return PROXY_BAD
        return read_text(data, size, header)
    if memcmp(data, SIGNATURE, size if size < SIGNATURE_SIZE else SIGNATURE_SIZE) != 0:
        return PROXY_BAD
    return read_binary(data, size, header)


# --- writing --------------------------------------------------------------------

cdef uint32_t put(unsigned char* out, uint32_t used, const char* text, uint32_t size) noexcept nogil:
    memcpy(out + used, text, size)
    return used + size


cdef uint32_t write_text(const ProxyHeader* header, bint four, unsigned char* out) noexcept nogil:
    cdef char text[ADDRESS_TEXT]
    cdef uint32_t used = put(out, 0, b"PROXY TCP4 " if four else b"PROXY TCP6 ", 11)
    used = put(out, used, text, write_address(header.source, text))
    used = put(out, used, b" ", 1)
    used = put(out, used, text, write_address(header.target, text))
    used = put(out, used, b" ", 1)
    used = put(out, used, text, write_number(header.source_port, text))
    used = put(out, used, b" ", 1)
    used = put(out, used, text, write_number(header.target_port, text))
    return put(out, used, b"\r\n", 2)


cdef uint32_t write_binary(const ProxyHeader* header, bint four, unsigned char* out) noexcept nogil:
    cdef uint32_t skip = 12 if four else 0
    cdef uint32_t each = 4 if four else 16
    cdef unsigned char* at = out + BINARY_HEAD
    memcpy(out, SIGNATURE, SIGNATURE_SIZE)
    out[12] = COMMAND_PROXY
    out[13] = 0
    out[14] = out[15] = 0
    if not header.known:
        return BINARY_HEAD        # AF_UNSPEC: a connection that was passed on, nobody knows whose
    out[13] = FAMILY_TCP4 if four else FAMILY_TCP6
    out[15] = <unsigned char>(2 * each + 4)
    memcpy(at, header.source + skip, each)
    memcpy(at + each, header.target + skip, each)
    at += 2 * each
    at[0] = <unsigned char>(header.source_port >> 8)
    at[1] = <unsigned char>(header.source_port & 255)
    at[2] = <unsigned char>(header.target_port >> 8)
    at[3] = <unsigned char>(header.target_port & 255)
    return BINARY_HEAD + 2 * each + 4


cdef uint32_t write_proxy(int version, const ProxyHeader* header, unsigned char* out) noexcept nogil:
    cdef ProxyHeader told = header[0]
    cdef bint four = is_four(told.source)
    if is_four(told.target) != four:
        memset(told.target, 0, ADDRESS_SIZE)
        if four:
            memcpy(told.target, FOUR, 12)
    if version == 2:
        return write_binary(&told, four, out)
    if not told.known:
        return put(out, 0, b"PROXY UNKNOWN\r\n", 15)
    return write_text(&told, four, out)


# --- for tests ------------------------------------------------------------------

def read_proxy(const unsigned char[::1] data) -> tuple | None:
    """Return (size, source, source port, target, target port); None where it is not whole yet; addresses None where unknown.

    Addresses are 16 bytes. Raises ValueError for what is no PROXY header.
    """
    cdef ProxyHeader header
    cdef int size = scan_proxy(&data[0] if data.shape[0] else NULL, data.shape[0], &header)
    if size == PROXY_MORE:
        return None
    if size < 0:
        raise ValueError("no PROXY header, or a malformed one")
    if not header.known:
        return size, None, 0, None, 0
    return (
        size, <bytes>header.source[:ADDRESS_SIZE], header.source_port, <bytes>header.target[:ADDRESS_SIZE], header.target_port
    )


def make_proxy(int version, bytes source, uint16_t source_port, bytes target, uint16_t target_port) -> bytes:
    """Return a PROXY header; `source` and `target` are 16 bytes, or None: unknown."""
    cdef ProxyHeader header
    cdef unsigned char out[PROXY_WRITTEN]
    memset(&header, 0, sizeof(header))
    if source is not None and target is not None:
        if len(source) != ADDRESS_SIZE or len(target) != ADDRESS_SIZE:
            raise ValueError(f"an address has {ADDRESS_SIZE} bytes")
        header.known = True
        memcpy(header.source, <char*>source, ADDRESS_SIZE)
        memcpy(header.target, <char*>target, ADDRESS_SIZE)
        header.source_port = source_port
        header.target_port = target_port
    return out[:write_proxy(version, &header, out)]
