# HTTP/1.x heads and body framing, sans-IO (RFC 9110, 9112). Strict: what two
# parsers could read in two ways is refused, never repaired.
#
# A Head owns nothing but its `fields` array, which the caller provides; its
# spans are offsets into the bytes that were scanned and are valid as long as
# those bytes are. Decoders and scanners are plain structs: zero them to start.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
# The chunked body is chunked.pyx; named here too, so that users of HTTP/1.x need one cimport.
from _fastpath.chunked cimport (
    CHUNKED_DATA, CHUNKED_END, CHUNKED_ERROR, CHUNKED_MORE, MAX_TRAILERS, ChunkedDecoder,
    chunk_size_line, chunked_clear, chunked_next, trailers_canonical,
)

cdef enum:
    MAX_HEADERS = 1000            # limits.headers of what comes from outside is at most this
    MAX_FIELDS = 1016             # size of a field array: canonical heads have a few that nodes added
    MAX_HEAD = 1048576            # limits.head of what comes from outside is at most this
    MAX_CANONICAL_HEAD = 1064960  # limits.head of canonical heads
    MAX_INTERIM = 262144          # bytes of all interim responses (1xx) to one request
    MAX_METHOD = 32               # bytes of a method
    MAX_HOST = 261                # bytes of a host with its port
    MAX_OPTIONS = 32              # fields that Connection may name, beside those it always may

cdef struct Span:
    uint32_t start
    uint32_t size

# Fields that this program acts on; all others are FIELD_OTHER.
cdef enum FieldName:
    FIELD_OTHER = 0
    FIELD_HOST
    FIELD_CONNECTION
    FIELD_KEEP_ALIVE
    FIELD_PROXY_CONNECTION
    FIELD_TE
    FIELD_TRAILER
    FIELD_TRANSFER_ENCODING
    FIELD_CONTENT_LENGTH
    FIELD_UPGRADE
    FIELD_EXPECT
    FIELD_X_FORWARDED_FOR
    FIELD_X_FORWARDED_PROTO
    FIELD_X_FORWARDED_HOST
    FIELD_FORWARDED
    FIELD_VIA
    FIELD_X_REQUEST_ID
    FIELD_AUTHORIZATION
    FIELD_PROXY_AUTHORIZATION
    FIELD_PROXY_AUTHENTICATE
    FIELD_TRACEPARENT
    FIELD_CLIENT_CERT             # Client-Cert, Client-Cert-Chain, X-Forwarded-Client-Cert
    FIELD_BROKER                  # any name that starts with broker-
    FIELD_DATE
    FIELD_SET_COOKIE
    FIELD_HTTP2_SETTINGS
    FIELD_X_FORWARDED_OTHER       # any other X-Forwarded- name, and X-Real-IP
    FIELD_LOOKALIKE               # a name that CGI reads as one that only nodes may set: Broker_User, X.Request.Id
    FIELD_COUNT

cdef struct Field:
    Span name
    Span value                    # without surrounding whitespace
    uint8_t known                 # FieldName
    uint8_t hop                   # hop-by-hop: by its name, or named by Connection

cdef enum Framing:
    BODY_NONE = 0
    BODY_LENGTH = 1               # content_length bytes follow
    BODY_CHUNKED = 2
    BODY_UNTIL_CLOSE = 3          # responses only

cdef enum Method:
    METHOD_OTHER = 0
    METHOD_GET
    METHOD_HEAD
    METHOD_POST
    METHOD_PUT
    METHOD_DELETE
    METHOD_OPTIONS
    METHOD_TRACE
    METHOD_CONNECT
    METHOD_PATCH

cdef struct Head:
    uint32_t size                 # bytes of the head, the empty line included
    uint32_t field_count
    Field* fields                 # caller's array of MAX_FIELDS
    Span method                   # request
    Span target                   # request: as sent
    Span path                     # request: the path inside target ("/" for an absolute form
                                  # without one, "*" for OPTIONS *), without the query
    Span path_and_query           # request: what an origin-form request line would carry; empty or
                                  # without its "/" where the target had no path (see write_request)
    Span host                     # request: the effective authority: of an absolute-form target, else of
                                  # Host; with its port. Empty: HTTP/1.0 without Host
    Span reason                   # response
    uint16_t status               # response
    uint8_t method_id             # Method
    uint8_t minor                 # HTTP/1.minor: 0 or 1
    uint8_t framing               # Framing of the body that follows
    uint8_t keep_alive            # the sender wants to keep the connection
    uint8_t expect_continue
    uint8_t upgrade               # Connection: upgrade together with an Upgrade field, in HTTP/1.1, no body
    uint8_t absolute_form
    uint8_t has_content_length    # also true where framing is not BODY_LENGTH (HEAD, 304)
    uint8_t idempotent            # method: GET HEAD OPTIONS TRACE PUT DELETE (RFC 9110 9.2.2)
    uint64_t content_length

# What a scan returns: > 0 the head's size, 0 more bytes needed, < 0 one of these.
cdef enum ScanError:
    SCAN_BAD = -1                 # 400
    SCAN_HEAD_TOO_LARGE = -2      # 431
    SCAN_URI_TOO_LONG = -3        # 414
    SCAN_VERSION = -4             # 505
    SCAN_CODING = -5              # 501: a transfer coding that is not implemented

cdef struct ScanLimits:
    uint32_t head                 # bytes, the empty line included
    uint32_t headers              # fields, <= MAX_FIELDS
    uint32_t uri                  # bytes of the target

# `resume` is the caller's memory between calls on a growing prefix of the same
# bytes: 0 at first; it makes byte-at-a-time input linear. `reason` is set to a
# static English sentence (no full stop) when the result is negative.
cdef int scan_request(const unsigned char* data, size_t size, const ScanLimits* limits,
                      uint32_t* resume, Head* head, const char** reason) noexcept nogil
# `method_id`: of the request that is answered (HEAD and CONNECT change the framing).
cdef int scan_response(const unsigned char* data, size_t size, const ScanLimits* limits, uint8_t method_id,
                       uint32_t* resume, Head* head, const char** reason) noexcept nogil
