# Which target a request goes to: by host and path, or by name. Immutable, sans-IO.
#
# A RouteTable is a compiled snapshot: a reload builds a new one and swaps it;
# whoever holds the old one keeps a table that works. It owns its memory and
# holds strong references to its targets; targets hold no tables.
#
# The table is one tree. Below three fixed nodes stand the exact hosts, the
# wildcard suffixes and the names; below each host (and below NODE_ANY) its
# path prefixes, one node per segment. All edges live in one hash table, keyed
# by parent and text, so that a lookup costs one probe per host class and one
# per matched path segment, whatever the size of the table.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

# What `find` puts into *error.
cdef enum RouteError:
    ROUTE_OK = 0
    ROUTE_AMBIGUOUS = 1           # upstreams could read another path than we do: answer 400

# What a route leads to. Service and Group derive from it; `is_service` tells
# them apart without a Python call. Subclasses set both fields themselves or call __init__.
cdef class Target:
    cdef readonly str name
    cdef readonly bint is_service         # a local service (else a group of tunnels)

cdef enum:
    MAX_HOST = 253                # bytes of a host name without its trailing dot
    MAX_ROOTS = 130               # an exact host, a wildcard per label, any host

cdef struct Node:
    uint32_t hash                 # of parent and text, as in its slot
    uint32_t parent               # index of a node
    uint32_t text                 # offset in `texts`
    uint32_t size                 # of the text
    uint32_t children
    PyObject* best                # borrowed from `targets`: where this node or its nearest ancestor
                                  # below the host leads, or NULL

cdef struct Slot:
    uint32_t hash
    uint32_t node                 # 0: empty

@cython.final
cdef class RouteTable:
    cdef Node* nodes
    cdef Slot* slots              # open addressing, at most half full
    cdef unsigned char* texts
    cdef uint32_t slot_mask
    cdef uint64_t seed            # random: whoever announces services can't aim at one slot
    cdef uint8_t[MAX_HOST] suffixes       # the sizes of all wildcard suffixes, each once, longest first
    cdef uint32_t suffix_count
    cdef bint has_prefixes        # a prefix other than "/" exists: the path matters
    cdef tuple entries            # (host, path, target), normalised, in order of insertion
    cdef dict by_names            # with `entries`: keeps the targets alive

    # The target for a request, or None. `host` as in the Host field: port, case and one trailing
    # dot are ignored. `path` without the query. *error: a RouteError. Allocates nothing, never raises.
    cdef Target find(self, const unsigned char* host, size_t host_size,
                     const unsigned char* path, size_t path_size, int* error)
    # The target of a tcp service, or None; for "tls/HOST" also that of the longest wildcard. Allocates nothing, never raises.
    cdef Target by_name(self, const unsigned char* name, size_t size)

    cdef PyObject* by_server_name(self, const unsigned char* host, size_t size) noexcept nogil
    cdef uint32_t child(self, uint32_t parent, const unsigned char* text, size_t size) noexcept nogil
    cdef int host_nodes(self, const unsigned char* host, size_t size, uint32_t* found) noexcept nogil
    cdef PyObject* walk(self, uint32_t node, const unsigned char* path, size_t size) noexcept nogil
    cdef PyObject* walk_reading(self, uint32_t root, const unsigned char* path, size_t size,
                                uint32_t reading, bint climbs) noexcept nogil
    cdef PyObject* first_reading(self, const uint32_t* roots, int count, const unsigned char* path, size_t size,
                                 uint32_t reading, bint climbs) noexcept nogil
    cdef PyObject* read_all(self, const uint32_t* roots, int count, const unsigned char* path, size_t size,
                            int* error) noexcept nogil
    cdef void fill(self, list tree) except *
