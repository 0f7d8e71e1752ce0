"""What a port or a service asks of those who call it. See gate.pxd."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

cimport cython
from _fastpath.answers cimport Challenge
from _fastpath.end cimport CODE_BAD_REQUEST, CODE_COUNT, CODE_FORBIDDEN, CODE_INTERNAL, CODE_RATE_LIMITED, CODE_UNAUTHENTICATED
from _fastpath.failures cimport Failures
from _fastpath.grammar cimport same_name
from _fastpath.http1 cimport FIELD_AUTHORIZATION, MAX_FIELDS, Field, Head, ScanLimits, Span, scan_request
from _fastpath.siphash cimport siphash

import os

cdef enum:
    LONGEST = 4096                # bytes of a credential; longer ones prove nobody

PROOFS = {"token": PROOF_TOKEN, "basic": PROOF_PASSWORD, "certificate": PROOF_CERTIFICATE}
# Of the process: who guesses at one port is slow at all of them.
cdef Failures failures = Failures()


cdef inline bytes tag_bytes(const uint64_t* tag):
    return (<const char*>tag)[:16]


@cython.final
cdef class Caller:
    """A user by one of his credentials, which `key` stands for: what runs by it ends where a reload takes it away.

    `key` None: by any of his certificates, which are looked at again. `lines` are what a service is told of him, `may` (None:
    everything) the hosts and paths that he may call.
    """

    def __cinit__(self, str name not None, bytes lines not None, RouteTable may=None, key=None):
        self.name = name
        self.key = name if key is None else key
        self.certified = key is None
        self.name_bytes = name.encode()
        self.lines = lines
        self.may = may


@cython.final
cdef class ClientCertificate:
    """A verified chain (DER, the client's own first). `render(chain, kinds)` makes header lines of it."""

    def __cinit__(self, tuple chain not None, render not None):
        self.chain = chain
        self.render = render
        self.lines_kinds = -1
        self.callers = {}

    cdef bytes lines_for(self, int kinds):
        if self.lines_kinds != kinds:
            try:
                self.lines = self.render(self.chain, kinds)
            except Exception:
                self.lines = b""
            self.lines_kinds = kinds
        return self.lines


@cython.final
cdef class Pending:
    """A credential that is being proven elsewhere. Call `settle` once, from the event loop's thread."""

    def settle(self, result) -> None:
        """Tell what came of it: the key of a caller, or None."""
        cdef PyObject* caller = NULL
        known = self.gate.callers.get(result)
        if known is not None:
            caller = <PyObject*>known
            if self.charged:
                failures.forgive(self.address)
        self.gate.waiting.discard(tag_bytes(self.tag))
        self.gate.remember(self.tag, caller)
        self.asker.proved()
        self.asker = None


@cython.final
cdef class Gate:
    """What is asked: `proofs` of "token", "basic" and "certificate", any of which will do.

    `callers` are all that may be, by key. `verify(proof, credential, pending)` says whose credential it is: a key, None for nobody, a failure
    code, or ... where `pending.settle` will say so later. `keeps`: the service gets the credential too. `challenges`: values of WWW-Authenticate.
    """

    def __cinit__(self, proofs, dict callers not None, verify not None, *, bint keeps=False, challenges=()):
        for proof in proofs:
            self.proofs |= <uint8_t>PROOFS[proof]
        self.callers = dict(callers)
        self.waiting = set()
        self.verify = verify
        self.keeps = keeps
        self.challenge = Challenge(challenges)
        key = os.urandom(16)
        memcpy(self.key, <char*>key, 16)

    # --- the cache --------------------------------------------------------

    cdef Known* find(self, const uint64_t* tag) noexcept:
        cdef Known* ways = &self.known[(tag[0] % CACHE_SETS) * CACHE_WAYS]
        cdef int i
        for i in range(CACHE_WAYS):
            if ways[i].tag[0] == tag[0] and ways[i].tag[1] == tag[1]:
                self.turn += 1
                ways[i].used = self.turn
                return &ways[i]
        return NULL

    cdef void remember(self, const uint64_t* tag, PyObject* caller) noexcept:
        cdef Known* ways = &self.known[(tag[0] % CACHE_SETS) * CACHE_WAYS]
        cdef Known* place = &ways[CACHE_WAYS - 1]
        cdef int i
        if caller != NULL:
            place = ways
            for i in range(CACHE_WAYS - 1):
                if ways[i].used < place.used:
                    place = &ways[i]
        self.turn += 1
        place.tag[0] = tag[0]
        place.tag[1] = tag[1]
        place.caller = caller
        place.used = self.turn

    # --- proofs -----------------------------------------------------------

    cdef int prove(self, uint8_t proof, const unsigned char* text, size_t size, const unsigned char* address,
                   Ingress asker, uint64_t now_ms, PyObject** caller) noexcept:
        cdef uint64_t key[2]
        cdef uint64_t tag[2]
        cdef Known* known
        if size == 0 or size > LONGEST:
            return CODE_UNAUTHENTICATED
        key[0] = self.key[0] ^ proof
        key[1] = self.key[1]
        siphash(key, text, size, tag)
        tag[0] |= 1               # never the mark of an empty place
        if self.waiting and tag_bytes(tag) in self.waiting:
            return self.ask(proof, text, size, tag, address, asker, False)      # no other try than the one that is paid for
        known = self.find(tag)
        if known != NULL and known.caller != NULL:
            caller[0] = known.caller
            return GATE_OPEN
        if not failures.charge(address, now_ms):
            return CODE_RATE_LIMITED
        if known != NULL:
            return CODE_UNAUTHENTICATED
        self.asked += 1
        return self.ask(proof, text, size, tag, address, asker, True)

    cdef int ask(self, uint8_t proof, const unsigned char* text, size_t size, const uint64_t* tag,
                 const unsigned char* address, Ingress asker, bint charged) noexcept:
        cdef Pending pending = Pending.__new__(Pending)
        pending.gate = self
        pending.asker = asker
        pending.charged = charged
        memcpy(pending.tag, tag, sizeof(pending.tag))
        memcpy(pending.address, address, sizeof(pending.address))
        try:
            result = self.verify(proof, text[:size], pending)
        except Exception:
            return CODE_INTERNAL
        if result is ...:
            self.waiting.add(tag_bytes(tag))
            return GATE_WAIT
        if isinstance(result, int):
            if charged:
                failures.forgive(address) # it was not looked at
            return <int>result if 0 < result < CODE_COUNT else <int>CODE_INTERNAL
        known = self.callers.get(result)
        if known is None:
            self.remember(tag, NULL)
            return CODE_UNAUTHENTICATED
        if charged:
            failures.forgive(address)
        self.remember(tag, <PyObject*>known)
        return GATE_OPEN

    cdef PyObject* owner(self, ClientCertificate certificate) noexcept:
        try:
            if self not in certificate.callers:
                if len(certificate.callers) >= 4:         # gates of before the last reloads
                    certificate.callers.clear()
                certificate.callers[self] = self.callers.get(self.verify(PROOF_CERTIFICATE, certificate.chain, None))
            known = certificate.callers[self]
        except Exception:
            return NULL
        return <PyObject*>known if known is not None else NULL

    cdef bint still_admits(self, Caller caller, ClientCertificate certificate, const unsigned char* data, size_t size) noexcept:
        cdef Field fields[MAX_FIELDS]
        cdef ScanLimits limits
        cdef const char* reason = NULL
        cdef uint32_t resume = 0
        cdef int ambiguous = 0
        cdef RouteTable may
        cdef Head head
        known = self.callers.get(caller.key)
        if known is None:
            return False
        if caller.certified and (certificate is None or self.owner(certificate) != <PyObject*>known):
            return False
        may = (<Caller>known).may
        if may is None or may is caller.may:
            return True
        limits.head = limits.uri = <uint32_t>size
        limits.headers = MAX_FIELDS
        head.fields = fields
        if size == 0 or scan_request(data, size, &limits, &resume, &head, &reason) <= 0:
            return False
        return may.find(data + head.host.start, head.host.size, data + head.path.start, head.path.size, &ambiguous) is not None

    cdef int check(self, const unsigned char* data, const Head* head, const unsigned char* address,
                   ClientCertificate certificate, Ingress asker, uint64_t now_ms, PyObject** caller, bint* consumed) noexcept:
        cdef Span found
        cdef int count = 0
        cdef int result = CODE_UNAUTHENTICATED
        cdef int ambiguous = 0
        cdef uint32_t at = 0
        cdef uint8_t proof = 0
        cdef RouteTable may
        caller[0] = NULL
        consumed[0] = False
        found.start = found.size = 0
        for at in range(head.field_count):
            if head.fields[at].known == FIELD_AUTHORIZATION:
                count += 1
                found = head.fields[at].value
        if count > 1:
            return CODE_BAD_REQUEST       # two readers could choose two of them
        if count == 1:
            if found.size > 7 and same_name(data + found.start, b"bearer ", 7):
                proof = PROOF_TOKEN
                at = 7
            elif found.size > 6 and same_name(data + found.start, b"basic ", 6):
                proof = PROOF_PASSWORD
                at = 6
        if proof & self.proofs:
            while at < found.size and data[found.start + at] == b" ":
                at += 1
            result = self.prove(proof, data + found.start + at, found.size - at, address, asker, now_ms, caller)
            if result == GATE_OPEN and caller[0] == NULL:
                # Just proven: it is in the cache now.
                result = self.prove(proof, data + found.start + at, found.size - at, address, asker, now_ms, caller)
            consumed[0] = result == GATE_OPEN
        if result == CODE_UNAUTHENTICATED and self.proofs & PROOF_CERTIFICATE and certificate is not None:
            caller[0] = self.owner(certificate)
            if caller[0] != NULL:
                result = GATE_OPEN
        if result != GATE_OPEN:
            self.refused += result > 0
            return result
        may = (<Caller>caller[0]).may
        if may is not None and may.find(data + head.host.start, head.host.size, data + head.path.start, head.path.size,
                                        &ambiguous) is None:
            self.refused += 1
            return CODE_BAD_REQUEST if ambiguous else CODE_FORBIDDEN
        self.passed += 1
        return GATE_OPEN
