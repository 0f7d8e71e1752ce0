# Whose a request is, as trusted proxies tell it: X-Forwarded-For, or Forwarded (RFC 7239). Sans-IO; owns nothing.

from libc.stdint cimport uint8_t, uint32_t
from _fastpath.address cimport ADDRESS_SIZE
from _fastpath.http1 cimport Head
from _fastpath.networks cimport Networks

# What of a head is believed. `data` is what was scanned.
cdef struct Claim:
    uint8_t known                 # the field that is believed: FIELD_X_FORWARDED_FOR, FIELD_FORWARDED, or 0: neither is there
    uint32_t field                # its first line that is believed, as an index ...
    uint32_t start                # ... and the first byte of that line's value
    unsigned char raw[ADDRESS_SIZE]       # the client
    char address[48]              # the same as text
    uint32_t address_size

# The head came from a trusted proxy at `peer`. The client is the last address that is not a trusted proxy's; what cannot be
# read, and all before it, is not believed. Without anything to believe the client is the proxy itself.
cdef void read_claim(const unsigned char* data, const Head* head, Networks trusted, const unsigned char* peer,
                     Claim* claim) noexcept nogil
# Whether the field is the only one of its kind, and its value http or https.
cdef bint is_scheme(const unsigned char* data, const Head* head, uint32_t index) noexcept nogil
# Whether this X-Request-Id may stay, whoever sent it: the only one, and no text that would do harm in a log.
cdef bint is_sane_id(const unsigned char* data, const Head* head, uint32_t index) noexcept nogil
