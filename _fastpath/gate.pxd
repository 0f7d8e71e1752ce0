# What a port or a service asks of those who call it: who they are, and whether they may.
#
# A Gate is a snapshot: a reload makes a new one, with an empty cache. It owns its cache; the callers in it are borrowed from
# `callers`. Python is asked once for each new credential, never for each request.

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from _fastpath.answers cimport Challenge
from _fastpath.exchange cimport Ingress
from _fastpath.http1 cimport Head
from _fastpath.reactor cimport PyObject
from _fastpath.route cimport RouteTable

cdef enum:
    GATE_OPEN = 0                 # what check returns beside a Code
    GATE_WAIT = -1                # Python is at it: asker.proved() follows, then ask again

cdef enum Proofs:
    PROOF_TOKEN = 1
    PROOF_PASSWORD = 2
    PROOF_CERTIFICATE = 4

cdef enum:
    CACHE_SETS = 512
    CACHE_WAYS = 4                # the last is for credentials that prove nobody: they can't push out good ones

cdef struct Known:
    uint64_t tag[2]               # keyed hash of the credential; 0, 0: empty
    PyObject* caller              # NULL: it proves nobody
    uint64_t used                 # when, by the gate's own count


# A user as ports know him, by one of his credentials.
cdef class Caller:
    cdef readonly str name
    cdef object key               # of the credential, among the callers of a Gate
    cdef bint certified           # by a certificate
    cdef bytes name_bytes
    cdef bytes lines              # header lines for the service
    cdef RouteTable may           # None: everything


# What a client has proven in its handshake.
cdef class ClientCertificate:
    cdef readonly tuple chain     # DER, its own first
    cdef object render            # (chain, kinds) -> header lines
    cdef bytes lines
    cdef int lines_kinds          # what `lines` was made for; -1: for nothing yet
    cdef dict callers             # by gate

    cdef bytes lines_for(self, int kinds)


cdef class Gate:
    cdef readonly uint8_t proofs  # bits of Proofs
    cdef readonly bint keeps      # the credential goes on to the service
    cdef dict callers
    cdef object verify            # (proof, credential, Pending) -> a key, None, a Code, or ... (later)
    cdef Challenge challenge
    cdef set waiting              # tags of credentials that Python is at
    cdef Known known[CACHE_SETS * CACHE_WAYS]
    cdef uint64_t key[2]
    cdef uint64_t turn
    cdef readonly uint64_t passed, refused, asked

    # GATE_OPEN, GATE_WAIT or a Code. *caller: borrowed, NULL: nobody. *consumed: the Authorization field was meant for us.
    # `address`: 16 bytes of the client's.
    cdef int check(self, const unsigned char* data, const Head* head, const unsigned char* address,
                   ClientCertificate certificate, Ingress asker, uint64_t now_ms, PyObject** caller, bint* consumed) noexcept
    # Whether who has got in before, with this request, by the same credential, would get in under these rights.
    cdef bint still_admits(self, Caller caller, ClientCertificate certificate, const unsigned char* data, size_t size) noexcept
    # --- inside only ---
    cdef int prove(self, uint8_t proof, const unsigned char* text, size_t size, const unsigned char* address,
                   Ingress asker, uint64_t now_ms, PyObject** caller) noexcept
    cdef int ask(self, uint8_t proof, const unsigned char* text, size_t size, const uint64_t* tag,
                 const unsigned char* address, Ingress asker, bint charged) noexcept
    cdef PyObject* owner(self, ClientCertificate certificate) noexcept
    cdef Known* find(self, const uint64_t* tag) noexcept
    cdef void remember(self, const uint64_t* tag, PyObject* caller) noexcept


# One credential that Python is at, and who waits for it.
cdef class Pending:
    cdef Gate gate
    cdef Ingress asker
    cdef uint64_t tag[2]
    cdef unsigned char address[16]
    cdef bint charged             # this is the try that the address owes for
