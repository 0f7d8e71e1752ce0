# What both sides of an exchange offer each other, and nothing else.
#
# An exchange joins two Ends: an ingress (client connection or tunnel stream,
# where the request comes in) and an egress (upstream connection or tunnel
# stream, where it goes out). Each holds a strong reference to the other in
# `peer`; the pair is a reference cycle that `detach` breaks from both sides.
# Ends are outside the cyclic garbage collector: whoever joins must detach.
#
# Bytes that are passed in are borrowed for the duration of the call only: the
# callee hands them to the kernel or copies them before it returns. The one
# exception is `socket.pxd`'s cork, which says so itself.
#
# All calls are synchronous, never block, never raise, and may detach the pair:
# after any call on `peer`, check `self.peer` again before the next one.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

# Flags of take_head.
cdef enum:
    HEAD_END = 1          # the message has no body, or `body` is all of it
    HEAD_INTERIM = 2      # a 1xx response: another head follows
    HEAD_TCP = 4          # not HTTP: the head names a tcp service, bytes follow

# Whether the service can have seen the request (contract: Broker-Delivery).
cdef enum Delivery:
    NEVER_SENT = 0
    MAYBE_SENT = 1
    SENT = 2

# Why an exchange ended early. The same numbers travel in RESET frames
# (docs/protocol.md); the ingress turns them into the contract's answers.
cdef enum Code:
    CODE_CANCEL = 0               # the other side lost interest: no failure
    CODE_PROTOCOL = 1             # frames or states that the protocol forbids
    CODE_FLOW_CONTROL = 2         # more bytes than credit, or credit overflow
    CODE_INTERNAL = 3
    CODE_REFUSED = 4              # going away; never sent, try another tunnel
    CODE_OVERLOADED = 5           # contract: overloaded
    CODE_NO_SERVICE = 6           # contract: no-service
    CODE_NO_AGENT = 7             # contract: no-agent
    CODE_FORBIDDEN = 8            # contract: forbidden
    CODE_UNAUTHENTICATED = 9      # contract: unauthenticated
    CODE_BAD_REQUEST = 10         # contract: bad-request
    CODE_REQUEST_TIMEOUT = 11     # contract: request-timeout
    CODE_BODY_TOO_LARGE = 12      # contract: body-too-large
    CODE_URI_TOO_LONG = 13        # contract: head-too-large, 414
    CODE_HEAD_TOO_LARGE = 14      # contract: head-too-large, 431
    CODE_RATE_LIMITED = 15        # contract: rate-limited
    CODE_UNREACHABLE = 16         # contract: upstream-unreachable
    CODE_UPSTREAM_PROTOCOL = 17   # contract: upstream-protocol
    CODE_TUNNEL_LOST = 18         # contract: tunnel-lost
    CODE_UPSTREAM_TIMEOUT = 19    # contract: upstream-timeout
    CODE_BAD_VERSION = 20         # contract: unsupported, 505
    CODE_BAD_CODING = 21          # contract: unsupported, 501
    CODE_COUNT = 22

# Inside a node only: refused by another worker, whose agents have just gone. Look again.
cdef enum:
    CODE_MOVED = CODE_COUNT


@cython.no_gc
cdef class End:
    cdef End peer                 # the other side while joined, else None

    # --- called by the peer, which is the source of a message -------------
    # How many body bytes this end takes now. 0: the source stops reading and
    # waits for on_room. A source never passes more body bytes than room().
    cdef size_t room(self) noexcept
    # Memory to receive body bytes straight into, *capacity bytes long (at most
    # room()), or NULL where this end has none to offer: use take_data. Must be
    # followed by commit, in the same call chain.
    cdef unsigned char* reserve(self, size_t* capacity) noexcept
    # `size` bytes (0 allowed: nothing came) lie in the reserved memory.
    # `end`: they are the last of the message.
    cdef void commit(self, size_t size, bint end) noexcept
    # Who the ingress is, as the records of an OPEN frame (docs/protocol.md 2). Before take_head, and borrowed until it
    # has returned.
    cdef void take_meta(self, const unsigned char* meta, size_t size) noexcept
    # A message begins: its canonical head, and the first body bytes if any.
    cdef void take_head(self, const unsigned char* head, size_t head_size,
                        const unsigned char* body, size_t body_size, uint32_t flags) noexcept
    cdef void take_data(self, const unsigned char* data, size_t size, bint end) noexcept
    # The message ended with these trailer lines (canonical, each with CRLF, no
    # empty line), possibly none.
    cdef void take_end(self, const unsigned char* trailers, size_t size) noexcept
    # The source gave up: `code` and `delivery` say why and how far it came,
    # `reason` is for people (UTF-8, not NUL-terminated). The pair is over:
    # both sides detach.
    cdef void take_reset(self, uint16_t code, uint8_t delivery,
                         const unsigned char* reason, size_t reason_size) noexcept

    # --- called by the peer, which is the sink of our message -------------
    # `size` body bytes that we passed have left its memory (a stream grants
    # credit for them).
    cdef void consumed(self, size_t size) noexcept
    # room() was 0 and is not any more: read again.
    cdef void on_room(self) noexcept
    # What we are joined to goes away soon: what would run for ever is to be brought to its end.
    cdef void on_parting(self) noexcept


# The pair is over.
cdef inline void detach(End end) noexcept:
    cdef End peer = end.peer
    if peer is not None:
        end.peer = None
        if peer.peer is end:
            peer.peer = None
