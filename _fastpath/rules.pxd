# What the parts of a head mean, and which may stand together. Used by http1.pyx only, which says what is decided how.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from _fastpath.http1 cimport SCAN_BAD, Head, Span

# What a scan has seen so far.
cdef struct Scan:
    const unsigned char* data
    const unsigned char* end      # of what may be looked at: the smaller of the input and the limit
    const unsigned char* at       # the next byte
    const char* reason
    uint32_t phase                # PHASE_...: where `at` is
    uint32_t count                # fields whose line is complete
    uint32_t max_fields
    uint32_t max_target
    uint64_t seen                 # bit FieldName: there is one
    uint64_t again                # bit FieldName: there are several
    uint32_t[32] where            # FieldName (there are fewer than 32): index of the last one seen
    bint framing_lookalike        # Content_Length or Transfer_Encoding


cdef inline int bad(Scan* scan, const char* reason) noexcept nogil:
    scan.reason = reason
    return SCAN_BAD


cdef inline bint has(const Scan* scan, uint8_t known) noexcept nogil:
    return scan.seen >> known & 1


cdef inline Span span(const Scan* scan, const unsigned char* start, const unsigned char* stop) noexcept nogil:
    cdef Span result
    result.start = <uint32_t>(start - scan.data)
    result.size = <uint32_t>(stop - start)
    return result


# 1, or negative with scan.reason.
cdef int read_target(Scan* scan, Head* head) noexcept nogil
cdef int judge_request(Scan* scan, Head* head) noexcept nogil
cdef int judge_response(Scan* scan, Head* head, uint8_t method_id) noexcept nogil
