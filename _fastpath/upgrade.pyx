"""Changes of protocol: what is asked for, allowed and answered. See upgrade.pxd."""

from libc.stdint cimport uint32_t

from _fastpath.http1 cimport (
    FIELD_CONNECTION, FIELD_TRANSFER_ENCODING, FIELD_UPGRADE, MAX_CANONICAL_HEAD, MAX_FIELDS, Field, Head, ScanLimits, Span,
    scan_request,
)

cdef Field own_fields[MAX_FIELDS]
cdef ScanLimits canonical_limits
canonical_limits.head = MAX_CANONICAL_HEAD
canonical_limits.headers = MAX_FIELDS
canonical_limits.uri = MAX_CANONICAL_HEAD


cdef bint same_name(const unsigned char* data, Span name, bytes other) noexcept:
    # `other` is in lower case.
    cdef const unsigned char* text = other
    cdef unsigned char byte
    cdef uint32_t i
    if name.size != <uint32_t>len(other):
        return False
    for i in range(name.size):
        byte = data[name.start + i]
        if byte >= b"A" and byte <= b"Z":
            byte += 32
        if byte != text[i]:
            return False
    return True


# The only Upgrade field; NULL where there is none or more than one.
cdef const Field* only_upgrade(const Head* head) noexcept:
    cdef const Field* found = NULL
    cdef uint32_t i
    for i in range(head.field_count):
        if head.fields[i].known == FIELD_UPGRADE:
            if found != NULL:
                return NULL
            found = &head.fields[i]
    return found


# The next element of a list, without the whitespace around it; False at its end.
cdef bint next_element(const unsigned char* data, uint32_t* at, uint32_t end, Span* element) noexcept:
    cdef uint32_t start = at[0]
    cdef uint32_t stop
    if start >= end:
        return False
    stop = start
    while stop < end and data[stop] != b",":
        stop += 1
    at[0] = stop + 1
    while start < stop and (data[start] == b" " or data[start] == b"\t"):
        start += 1
    while stop > start and (data[stop - 1] == b" " or data[stop - 1] == b"\t"):
        stop -= 1
    element.start = start
    element.size = stop - start
    return True


cdef Span offered(const unsigned char* data, const Head* head, tuple allowed) noexcept:
    cdef const Field* field = only_upgrade(head) if head.upgrade else NULL
    cdef Span element
    cdef uint32_t at, end
    if field != NULL:
        at = field.value.start
        end = at + field.value.size
        while next_element(data, &at, end, &element):
            for name in allowed:
                if same_name(data, element, <bytes>name):
                    return element
    element.start = element.size = 0
    return element


cdef bint switches_to(const unsigned char* data, const Head* head, bytes asked) noexcept:
    cdef const Field* field = only_upgrade(head)
    return (
        asked is not None and head.status == 101 and head.upgrade and field != NULL
        and same_name(data, field.value, asked)
    )


cdef bint canonical_hops(const unsigned char* data, const Head* head) noexcept:
    cdef const Field* field
    cdef int connections = 0
    cdef uint32_t i
    for i in range(head.field_count):
        field = &head.fields[i]
        if not field.hop or field.known == FIELD_TRANSFER_ENCODING:
            continue
        if not head.upgrade:
            return False
        if field.known == FIELD_CONNECTION:
            connections += 1
            if connections > 1 or not same_name(data, field.value, b"upgrade"):
                return False
        elif field.known != FIELD_UPGRADE:
            return False
    if not head.upgrade:
        return True
    field = only_upgrade(head)
    if field == NULL:
        return False
    for i in range(field.value.start, field.value.start + field.value.size):
        if data[i] == b",":
            return False
    return True


cdef bytes asked_in(const unsigned char* data, size_t size):
    cdef const char* reason = NULL
    cdef const Field* field
    cdef uint32_t resume = 0
    cdef Head head
    head.fields = own_fields
    if scan_request(data, size, &canonical_limits, &resume, &head, &reason) <= 0 or not head.upgrade:
        return None
    field = only_upgrade(&head)
    if field == NULL:
        return None
    return data[field.value.start:field.value.start + field.value.size].lower()


# --- for tests ---------------------------------------------------------------------------


def offered_protocol(data: bytes, allowed: list[bytes]) -> bytes:
    """What of a request's Upgrade is allowed; b"" where nothing is. Raises ValueError for a head that is refused."""
    cdef const char* reason = b"more bytes are needed"
    cdef uint32_t resume = 0
    cdef Head head
    cdef Span found
    head.fields = own_fields
    if scan_request(data, len(data), &canonical_limits, &resume, &head, &reason) <= 0:
        raise ValueError(reason.decode())
    found = offered(data, &head, tuple(allowed))
    return data[found.start:found.start + found.size]
