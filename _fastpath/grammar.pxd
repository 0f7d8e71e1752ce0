# The characters and names of HTTP/1.x, inline: the scanner, the chunked decoder
# and the writer compile them in. There is no grammar.pyx.
#
# The table is C, so that it is constant and in the binary; tests compare it
# with RFC 9110's definitions for every byte. The `skip_` functions look at 16 bytes at a time
# where the processor can (SSE2 is part of every x86-64) and never read at or beyond `end`.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from _fastpath.http1 cimport (
    FIELD_AUTHORIZATION, FIELD_BROKER, FIELD_CLIENT_CERT, FIELD_CONNECTION, FIELD_CONTENT_LENGTH,
    FIELD_DATE, FIELD_EXPECT, FIELD_FORWARDED, FIELD_HOST, FIELD_HTTP2_SETTINGS, FIELD_KEEP_ALIVE,
    FIELD_LOOKALIKE, FIELD_OTHER, FIELD_PROXY_AUTHENTICATE, FIELD_PROXY_AUTHORIZATION,
    FIELD_PROXY_CONNECTION, FIELD_SET_COOKIE, FIELD_TE, FIELD_TRACEPARENT, FIELD_TRAILER,
    FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, FIELD_VIA, FIELD_X_FORWARDED_FOR,
    FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_OTHER, FIELD_X_FORWARDED_PROTO, FIELD_X_REQUEST_ID,
)

cdef extern from *:
    """
    #include <stddef.h>
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif

    #define BROKER_TOKEN 1    /* tchar: methods, field names */
    #define BROKER_TARGET 2   /* visible ASCII without '#': request targets */
    #define BROKER_VALUE 4    /* field-vchar, SP, HTAB, obs-text: field values, reason phrases */
    #define BROKER_HOST 8     /* letters, digits, '.', '-', '_', '~': registered names, IPv4 */
    #define BROKER_HEX 16

    static const unsigned char broker_class[256] = {
         0,  0,  0,  0,  0,  0,  0,  0,  0,  4,  0,  0,  0,  0,  0,  0, /* 00 */
         0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0, /* 10 */
         4,  7,  6,  5,  7,  7,  7,  7,  6,  6,  7,  7,  6, 15, 15,  6, /* 20 */
        31, 31, 31, 31, 31, 31, 31, 31, 31, 31,  6,  6,  6,  6,  6,  6, /* 30 */
         6, 31, 31, 31, 31, 31, 31, 15, 15, 15, 15, 15, 15, 15, 15, 15, /* 40 */
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  6,  6,  7, 15, /* 50 */
         7, 31, 31, 31, 31, 31, 31, 15, 15, 15, 15, 15, 15, 15, 15, 15, /* 60 */
        15, 15, 15, 15, 15, 15, 15, 15, 15, 15, 15,  6,  7,  6, 15,  0, /* 70 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* 80 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* 90 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* a0 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* b0 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* c0 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* d0 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* e0 */
         4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4,  4, /* f0 */    };

    /* The first byte in [p, end) that can't be in a field value, or end. */
    static inline const unsigned char *broker_skip_value(const unsigned char *p, const unsigned char *end) {
    #ifdef __SSE2__
        while (end - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)p);
            __m128i control = _mm_cmpeq_epi8(_mm_min_epu8(v, _mm_set1_epi8(0x1f)), v);
            __m128i bad = _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(9)), control),
                                       _mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)));
            int mask = _mm_movemask_epi8(bad);
            if (mask)
                return p + __builtin_ctz((unsigned)mask);
            p += 16;
        }
    #endif
        while (p < end && (broker_class[*p] & BROKER_VALUE))
            p++;
        return p;
    }

    /* The first byte in [p, end) that can't be in a request target, or end. */
    static inline const unsigned char *broker_skip_target(const unsigned char *p, const unsigned char *end) {
    #ifdef __SSE2__
        while (end - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)p);
            __m128i bad = _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8(0x7f)),
                                       _mm_cmpeq_epi8(v, _mm_set1_epi8('#')));
            /* signed: 0x21 to 0x7f are greater than 0x20, obs-text is negative */
            __m128i good = _mm_andnot_si128(bad, _mm_cmpgt_epi8(v, _mm_set1_epi8(0x20)));
            int mask = _mm_movemask_epi8(good) ^ 0xffff;
            if (mask)
                return p + __builtin_ctz((unsigned)mask);
            p += 16;
        }
    #endif
        while (p < end && (broker_class[*p] & BROKER_TARGET))
            p++;
        return p;
    }

    /* The first byte in [p, end) that can't be in a token, or end. *odd is set
       where one of the others than letters, digits and '-' was passed. */
    static inline const unsigned char *broker_skip_token(const unsigned char *p, const unsigned char *end,
                                                         int *odd) {
    #ifdef __SSE2__
        if (end - p >= 16) {
            __m128i v = _mm_loadu_si128((const __m128i *)p);
            __m128i letter = _mm_sub_epi8(_mm_or_si128(v, _mm_set1_epi8(0x20)), _mm_set1_epi8('a'));
            __m128i digit = _mm_sub_epi8(v, _mm_set1_epi8('0'));
            __m128i good = _mm_or_si128(
                _mm_cmpeq_epi8(_mm_min_epu8(letter, _mm_set1_epi8(25)), letter),
                _mm_or_si128(_mm_cmpeq_epi8(_mm_min_epu8(digit, _mm_set1_epi8(9)), digit),
                             _mm_cmpeq_epi8(v, _mm_set1_epi8('-'))));
            int mask = _mm_movemask_epi8(good) ^ 0xffff;
            p += mask ? __builtin_ctz((unsigned)mask) : 16;
            if (mask && *p == ':')
                return p;
        }
    #endif
        while (p < end && (broker_class[*p] & BROKER_TOKEN)) {
            unsigned char c = *p++;
            unsigned char lower = c | 0x20;
            if (!((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '-'))
                *odd = 1;
        }
        return p;
    }

    /* Whether the token at `name` is `lower`, of the same size, in any case. Only for tokens: among their
       characters setting bit 5 makes no other pair equal to a letter, a digit or '-'. */
    static inline int broker_same(const unsigned char *name, const char *lower, size_t size) {
        const uint64_t bit5 = UINT64_C(0x2020202020202020);
        uint64_t a, b;
        if (size >= 8) {
            size_t at = 0;
            for (; at + 8 <= size; at += 8) {
                memcpy(&a, name + at, 8);
                memcpy(&b, lower + at, 8);
                if ((a | bit5) != b)
                    return 0;
            }
            memcpy(&a, name + size - 8, 8);
            memcpy(&b, lower + size - 8, 8);
            return (a | bit5) == b;
        }
        for (size_t at = 0; at < size; at++)
            if ((name[at] | 0x20) != (unsigned char)lower[at])
                return 0;
        return 1;
    }
    """
    enum:
        CLASS_TOKEN "BROKER_TOKEN"
        CLASS_TARGET "BROKER_TARGET"
        CLASS_VALUE "BROKER_VALUE"
        CLASS_HOST "BROKER_HOST"
        CLASS_HEX "BROKER_HEX"
    const unsigned char byte_class "broker_class" [256]
    const unsigned char* skip_value "broker_skip_value" (const unsigned char* p, const unsigned char* end) noexcept nogil
    const unsigned char* skip_target "broker_skip_target" (const unsigned char* p, const unsigned char* end) noexcept nogil
    const unsigned char* skip_token "broker_skip_token" (const unsigned char* p, const unsigned char* end,
                                                         int* odd) noexcept nogil
    bint same_name "broker_same" (const unsigned char* name, const char* lower, size_t size) noexcept nogil


# The field that a name stands for. size > 0. Length first, then the first letter: most names end there.
cdef inline uint8_t field_lookup(const unsigned char* name, size_t size) noexcept nogil:
    cdef unsigned char first = name[0] | 0x20
    if first == b"x":
        return lookup_x(name, size)
    if first == b"b":
        return FIELD_BROKER if size >= 7 and same_name(name, b"broker-", 7) else FIELD_OTHER
    if size == 4:
        if first == b"h" and same_name(name, b"host", 4):
            return FIELD_HOST
        if first == b"d" and same_name(name, b"date", 4):
            return FIELD_DATE
    elif size == 10:
        if first == b"c" and same_name(name, b"connection", 10):
            return FIELD_CONNECTION
        if first == b"k" and same_name(name, b"keep-alive", 10):
            return FIELD_KEEP_ALIVE
        if first == b"s" and same_name(name, b"set-cookie", 10):
            return FIELD_SET_COOKIE
    elif size == 14:
        if first == b"c" and same_name(name, b"content-length", 14):
            return FIELD_CONTENT_LENGTH
        if first == b"h" and same_name(name, b"http2-settings", 14):
            return FIELD_HTTP2_SETTINGS
    elif size == 17:
        if first == b"t" and same_name(name, b"transfer-encoding", 17):
            return FIELD_TRANSFER_ENCODING
        if first == b"c" and same_name(name, b"client-cert-chain", 17):
            return FIELD_CLIENT_CERT
    elif size < 10:
        return lookup_short(name, size, first)
    else:
        return lookup_long(name, size, first)
    return FIELD_OTHER


cdef inline uint8_t lookup_short(const unsigned char* name, size_t size, unsigned char first) noexcept nogil:
    if size == 2:
        if first == b"t" and same_name(name, b"te", 2):
            return FIELD_TE
    elif size == 3:
        if first == b"v" and same_name(name, b"via", 3):
            return FIELD_VIA
    elif size == 6:
        if first == b"e" and same_name(name, b"expect", 6):
            return FIELD_EXPECT
    elif size == 7:
        if first == b"u" and same_name(name, b"upgrade", 7):
            return FIELD_UPGRADE
        if first == b"t" and same_name(name, b"trailer", 7):
            return FIELD_TRAILER
    elif size == 9:
        if first == b"f" and same_name(name, b"forwarded", 9):
            return FIELD_FORWARDED
    return FIELD_OTHER


cdef inline uint8_t lookup_long(const unsigned char* name, size_t size, unsigned char first) noexcept nogil:
    if size == 11:
        if first == b"c" and same_name(name, b"client-cert", 11):
            return FIELD_CLIENT_CERT
        if first == b"t" and same_name(name, b"traceparent", 11):
            return FIELD_TRACEPARENT
    elif size == 13:
        if first == b"a" and same_name(name, b"authorization", 13):
            return FIELD_AUTHORIZATION
    elif first == b"p":
        if size == 16 and same_name(name, b"proxy-connection", 16):
            return FIELD_PROXY_CONNECTION
        if size == 18 and same_name(name, b"proxy-authenticate", 18):
            return FIELD_PROXY_AUTHENTICATE
        if size == 19 and same_name(name, b"proxy-authorization", 19):
            return FIELD_PROXY_AUTHORIZATION
    return FIELD_OTHER


cdef inline uint8_t lookup_x(const unsigned char* name, size_t size) noexcept nogil:
    if size > 12 and same_name(name, b"x-forwarded-", 12):
        if size == 15 and same_name(name + 12, b"for", 3):
            return FIELD_X_FORWARDED_FOR
        if size == 17 and same_name(name + 12, b"proto", 5):
            return FIELD_X_FORWARDED_PROTO
        if size == 16 and same_name(name + 12, b"host", 4):
            return FIELD_X_FORWARDED_HOST
        if size == 23 and same_name(name + 12, b"client-cert", 11):
            return FIELD_CLIENT_CERT
        return FIELD_X_FORWARDED_OTHER
    if size == 12 and same_name(name, b"x-request-id", 12):
        return FIELD_X_REQUEST_ID
    if size == 9 and same_name(name, b"x-real-ip", 9):
        return FIELD_X_FORWARDED_OTHER
    return FIELD_OTHER


# CGI and its heirs turn '-' into '_', some of them (lighttpd) all that is neither letter nor digit, so that
# "Broker_User", "Broker.User" and "Broker-User" become one variable there (RFC 3875 4.1.18). Such a byte of a name as '-'.
cdef inline unsigned char as_cgi(unsigned char byte) noexcept nogil:
    return byte if <unsigned char>((byte | 32) - 97) < 26 or <unsigned char>(byte - 48) < 10 else b"-"


# A name that CGI reads as one that only nodes may set, or as one that frames the message.
cdef inline uint8_t lookalike_of(const unsigned char* name, size_t size) noexcept nogil:
    cdef unsigned char[32] copy
    cdef size_t at
    cdef uint8_t known
    cdef bint found = False
    if size > 32:
        size = 32                 # longer than every whole name: only prefixes can match
    for at in range(size):
        copy[at] = as_cgi(name[at])
        found |= copy[at] != name[at]
    if not found:
        return FIELD_OTHER
    known = field_lookup(copy, size)
    if known == FIELD_CONTENT_LENGTH or known == FIELD_TRANSFER_ENCODING:
        return known
    if known >= FIELD_X_FORWARDED_FOR and known <= FIELD_FORWARDED:
        return FIELD_LOOKALIKE
    if known == FIELD_X_FORWARDED_OTHER or known == FIELD_CLIENT_CERT or known == FIELD_BROKER or known == FIELD_X_REQUEST_ID:
        return FIELD_LOOKALIKE
    return FIELD_OTHER


# The next element of a comma-separated list of tokens. *at moves behind it; the element is [*start, *stop).
# 1: found, 0: the list has ended, -1: something that is not a token. Empty elements are passed over.
cdef inline int next_token(const unsigned char* data, uint32_t* at, uint32_t end,
                           uint32_t* start, uint32_t* stop) noexcept nogil:
    cdef uint32_t p = at[0]
    while p < end and (data[p] == b" " or data[p] == b"\t" or data[p] == b","):
        p += 1
    if p == end:
        at[0] = p
        return 0
    start[0] = p
    while p < end and byte_class[data[p]] & CLASS_TOKEN:
        p += 1
    stop[0] = p
    while p < end and (data[p] == b" " or data[p] == b"\t"):
        p += 1
    if stop[0] == start[0] or (p < end and data[p] != b","):
        return -1
    at[0] = p
    return 1
