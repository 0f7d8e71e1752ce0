# The wire format of a tunnel: docs/protocol.md is the specification, this file its table.
# All integers are big-endian and unsigned. Every frame starts with FRAME_HEADER bytes:
#
#     0       4      5       6          8          12
#     | length | type | flags | reserved | stream id | payload: length bytes
#
# reserved: sent as 0, ignored when received.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

cdef enum:
    FRAME_HEADER = 12
    MAX_DATA = 65536              # payload of a DATA frame
    MAX_HEAD_FRAME = 1179648      # payload of OPEN and REPLY: the largest head and its first bytes
    MAX_CONTROL = 262144          # payload of CONTROL
    MAX_TRAILER_FRAME = 8192
    MAX_REASON = 256              # text in RESET and GOAWAY
    MAX_WINDOW = 2147483647       # credit of a stream never exceeds this
    OPEN_PREFIX = 8               # fixed part of the payload of OPEN
    REPLY_PREFIX = 4              # and of REPLY
    KIND_HTTP = 1
    KIND_TCP = 2

cdef enum FrameType:
    FRAME_OPEN = 1                # a stream begins: kind, head, first bytes
    FRAME_REPLY = 2               # the response's head, first bytes
    FRAME_DATA = 3
    FRAME_TRAILERS = 4            # trailer lines; ends the direction
    FRAME_WINDOW = 5              # u32: credit added
    FRAME_RESET = 6               # u16 code, u8 delivery, u8 0, text: both directions are over
    FRAME_PING = 7                # 8 opaque bytes
    FRAME_GOAWAY = 8              # u16 code, u16 0, text: no new streams; with a code other than 0 the tunnel ends
    FRAME_CONTROL = 9             # msgpack map, between the two Pythons; stream id 0

cdef enum FrameFlag:
    FLAG_END = 1                  # OPEN, REPLY, DATA: the sender's direction ends with this frame
    FLAG_INTERIM = 2              # REPLY: a 1xx head, another REPLY follows
    FLAG_ACK = 4                  # PING: the answer
# OPEN payload:  u8 kind (1 http, 2 tcp), u8 0, u16 meta size, u32 head size, meta, head, first bytes
# REPLY payload: u32 head size, head, first bytes
# meta: records of u8 type, u8 size, bytes; unknown types are skipped.
#     1  client address as text "192.0.2.1:1234", "[2001:db8::1]:1234"

cdef struct FrameHeader:
    uint32_t length
    uint8_t type
    uint8_t flags
    uint32_t stream

# Stream ids: bit 31 tells who opened it (0: the side that dialled, 1: the side that
# accepted); bits 16-30 are the slot's generation; bits 0-15 the slot. 0xffffffff and, for frames that
# belong to the tunnel (PING, GOAWAY, CONTROL), 0 are no streams: slot 0 of
# generation 0 is never used, generations start at 1 and wrap from 32767 to 1.
cdef enum:
    ID_ACCEPTOR = 0x80000000
    MAX_SLOTS = 65535
    MAX_GENERATION = 32767

cdef void frame_write(unsigned char* out, uint32_t length, uint8_t type, uint8_t flags, uint32_t stream) noexcept nogil
cdef void frame_read(const unsigned char* data, FrameHeader* header) noexcept nogil
# 0, or a Code (end.pxd) with a static reason: type, length for the type, stream id form.
cdef int frame_check(const FrameHeader* header, const char** reason) noexcept nogil
