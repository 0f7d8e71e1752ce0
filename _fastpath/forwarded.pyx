"""Whose a request is, as trusted proxies tell it. See forwarded.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.string cimport memchr, memcpy, memmove

from _fastpath.address cimport ADDRESS_SIZE, read_address, read_endpoint, write_address
from _fastpath.grammar cimport same_name
from _fastpath.http1 cimport (
    FIELD_FORWARDED, FIELD_X_FORWARDED_FOR, FIELD_X_REQUEST_ID, MAX_FIELDS, Field, Head, ScanLimits, Span, scan_request,
)
from _fastpath.networks cimport Networks

cdef enum:
    MAX_ID = 128                  # bytes of a request id that may stay
    MAX_HOPS = 32                 # of one line that are looked at, from its end

# One element of a list.
cdef struct Hop:
    uint32_t start                # of the element, without the whitespace before it
    Span node                     # the address in it; size 0: none that can be read

cdef struct Hops:
    Hop items[MAX_HOPS]
    uint32_t count
    bint cut                      # there are more before these


cdef void add(Hops* hops, Hop hop) noexcept nogil:
    if hops.count == MAX_HOPS:
        memmove(hops.items, hops.items + 1, (MAX_HOPS - 1) * sizeof(Hop))
        hops.count -= 1
        hops.cut = True
    hops.items[hops.count] = hop
    hops.count += 1


cdef inline bint is_space(unsigned char byte) noexcept nogil:
    return byte == c" " or byte == c"\t"


cdef inline Span trimmed(const unsigned char* data, uint32_t start, uint32_t stop) noexcept nogil:
    cdef Span span
    while start < stop and is_space(data[start]):
        start += 1
    while stop > start and is_space(data[stop - 1]):
        stop -= 1
    span.start = start
    span.size = stop - start
    return span


cdef void split_addresses(const unsigned char* data, Span value, Hops* hops) noexcept nogil:
    # 203.0.113.9, 10.0.0.2
    cdef uint32_t stop = value.start + value.size
    cdef uint32_t start = value.start
    cdef uint32_t at
    cdef Hop hop
    for at in range(value.start, stop + 1):
        if at == stop or data[at] == c",":
            hop.node = trimmed(data, start, at)
            hop.start = hop.node.start
            add(hops, hop)
            start = at + 1


# One "name=value" of an element; a second "for" makes the element unreadable.
cdef void read_pair(const unsigned char* data, Span pair, Hop* hop, bint* seen) noexcept nogil:
    cdef uint32_t stop = pair.start + pair.size
    cdef uint32_t at = pair.start + 4
    if pair.size < 5 or data[pair.start + 3] != c"=" or not same_name(data + pair.start, b"for", 3):
        return
    hop.node.start = at
    hop.node.size = 0 if seen[0] else stop - at
    seen[0] = True
    if data[at] == c'"' and hop.node.size > 2 and data[stop - 1] == c'"':
        hop.node.start += 1
        hop.node.size -= 2


cdef void split_forwarded(const unsigned char* data, Span value, Hops* hops) noexcept nogil:
    # for=192.0.2.43;proto=http, for="[2001:db8::17]:4711". A value with a backslash is no address: it is not unescaped.
    cdef uint32_t stop = value.start + value.size
    cdef uint32_t start = value.start
    cdef uint32_t at = value.start
    cdef bint quoted = False
    cdef bint seen = False
    cdef Hop hop
    hop.start = trimmed(data, at, stop).start
    hop.node.start = hop.node.size = 0
    while at <= stop:
        if at < stop and quoted:
            if data[at] == c"\\" and at + 1 < stop:
                at += 1
            elif data[at] == c'"':
                quoted = False
        elif at < stop and data[at] == c'"':
            quoted = True
        elif at == stop or data[at] == c"," or data[at] == c";":
            read_pair(data, trimmed(data, start, at), &hop, &seen)
            start = at + 1
            if at == stop or data[at] == c",":
                if quoted:
                    hop.node.size = 0     # it never ends
                add(hops, hop)
                hop.start = trimmed(data, start, stop).start if start < stop else start
                hop.node.size = 0
                seen = False
        at += 1


# Believes the elements of one line from its end. True: go on with the line before.
cdef bint believe(const unsigned char* data, const Hops* hops, Networks trusted, uint32_t index, Claim* claim) noexcept nogil:
    cdef unsigned char raw[ADDRESS_SIZE]
    cdef uint16_t port = 0
    cdef uint32_t at = hops.count
    cdef const Hop* hop
    while at > 0:
        at -= 1
        hop = &hops.items[at]
        if not read_endpoint(data + hop.node.start, hop.node.size, raw, &port):
            return False
        claim.field = index
        claim.start = hop.start
        memcpy(claim.raw, raw, ADDRESS_SIZE)
        if not trusted.has(raw):
            return False
    return not hops.cut


cdef void read_claim(const unsigned char* data, const Head* head, Networks trusted, const unsigned char* peer,
                     Claim* claim) noexcept nogil:
    cdef uint32_t at
    cdef Hops hops
    cdef const Field* field
    claim.known = 0
    claim.field = claim.start = 0
    memcpy(claim.raw, peer, ADDRESS_SIZE)
    for at in range(head.field_count):
        if head.fields[at].known == FIELD_X_FORWARDED_FOR:
            claim.known = FIELD_X_FORWARDED_FOR
            break
        if head.fields[at].known == FIELD_FORWARDED:
            claim.known = FIELD_FORWARDED
    claim.field = head.field_count
    at = head.field_count
    while claim.known and at > 0:
        at -= 1
        field = &head.fields[at]
        if field.known != claim.known:
            continue
        hops.count = 0
        hops.cut = False
        if claim.known == FIELD_FORWARDED:
            split_forwarded(data, field.value, &hops)
        else:
            split_addresses(data, field.value, &hops)
        if not believe(data, &hops, trusted, at, claim):
            break
    if claim.field == head.field_count:
        claim.known = 0           # nothing of it can be read
    claim.address_size = write_address(claim.raw, claim.address)


cdef bint is_scheme(const unsigned char* data, const Head* head, uint32_t index) noexcept nogil:
    cdef const Field* field = &head.fields[index]
    cdef const unsigned char* value = data + field.value.start
    cdef uint32_t at
    for at in range(head.field_count):
        if at != index and head.fields[at].known == field.known:
            return False
    return (field.value.size == 4 and same_name(value, b"http", 4)) or (field.value.size == 5 and same_name(value, b"https", 5))


cdef bint is_sane_id(const unsigned char* data, const Head* head, uint32_t index) noexcept nogil:
    cdef const Field* field = &head.fields[index]
    cdef uint32_t at
    cdef unsigned char byte
    if field.value.size == 0 or field.value.size > MAX_ID:
        return False
    for at in range(field.value.start, field.value.start + field.value.size):
        byte = data[at]
        if not (b"a" <= byte <= b"z" or b"A" <= byte <= b"Z" or b"0" <= byte <= b"9" or memchr(b"-._~:/+=@", byte, 9) != NULL):
            return False
    for at in range(head.field_count):
        if at != index and head.fields[at].known == FIELD_X_REQUEST_ID:
            return False
    return True


def client_of(const unsigned char[::1] data, Networks trusted not None, str peer not None, uint32_t limit) -> str | None:
    """Return whose request this is, which came from the trusted proxy `peer` (an address as text); None: it names nobody.

    `data` begins with the request's head, of at most `limit` bytes. Nobody: also where the head is not whole, or malformed.
    """
    cdef unsigned char raw[ADDRESS_SIZE]
    cdef Field fields[MAX_FIELDS]
    cdef ScanLimits limits
    cdef const char* reason = NULL
    cdef uint32_t resume = 0
    cdef Head head
    cdef Claim claim
    address = peer.partition("%")[0].encode()
    limits.head = limits.uri = limit
    limits.headers = MAX_FIELDS
    head.fields = fields
    if data.shape[0] == 0 or not read_address(address, len(address), raw):
        return None
    if scan_request(&data[0], data.shape[0], &limits, &resume, &head, &reason) <= 0:
        return None
    read_claim(&data[0], &head, trusted, raw, &claim)
    return claim.address[:claim.address_size].decode("ascii") if claim.known else None
