"""The routing table: host and path, or a name, to a target. See route.pxd.

Upstreams differ in how they read a path: some resolve dot segments, merge
slashes, read a backslash as a slash, decode twice, drop ";parameters". Where
the readings of one path lead to different targets, no choice is safe, and
`find` says so instead of choosing. Plain paths pay one scan for this.
"""

import os
import re
import urllib.parse

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memchr, memcmp, memcpy

from _fastpath.reading cimport (MAX_READINGS, READ_RESOLVE, SEGMENT_BUFFER, SEGMENT_END, SEGMENT_UP, SegmentKind,
                                Segments, next_segment, readings, suspicious)

cdef enum:
    # The fixed nodes. 0 is no node.
    NODE_EXACT = 1
    NODE_WILDCARD = 2
    NODE_NAME = 3
    NODE_ANY = 4
    FIRST_FREE = 5
    # Bytes that all readings of one path may cost together. Only paths full of tricks come near it.
    READING_BUDGET = 65536
    SERVER_PREFIX_SIZE = 4

# Names that begin so are server names, or patterns of them: "tls/a.example", "tls/*.example", "tls/*".
cdef const char* SERVER_PREFIX = b"tls/"

HOST_PATTERN = re.compile(r"(?:\*\.)?[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
PATH_FORBIDDEN = re.compile(r"[\x00-\x20\x7f\\;?#]|%(?![0-9a-fA-F]{2})|%(?:2f|5c|3b|0.|1.|7f)|//|/\.{1,2}(?:/|$)", re.IGNORECASE)


cdef class Target:
    """What a route leads to; only its compiled subclasses carry requests."""

    def __init__(self, str name not None, bint is_service=False):
        self.name = name
        self.is_service = is_service

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


# --- hashing ------------------------------------------------------------------

cdef inline uint64_t load_word(const unsigned char* data) noexcept nogil:
    cdef uint64_t word
    memcpy(&word, data, 8)
    return word


# 1 to 7 bytes, each of them at least once: with the size this is unambiguous.
cdef inline uint64_t load_tail(const unsigned char* data, size_t size) noexcept nogil:
    cdef uint32_t low, high
    if size >= 4:
        memcpy(&low, data, 4)
        memcpy(&high, data + size - 4, 4)
        return low | (<uint64_t>high << 32)
    return data[0] | (<uint64_t>data[size >> 1] << 8) | (<uint64_t>data[size - 1] << 16)


cdef inline uint32_t hash_edge(uint64_t seed, uint32_t parent, const unsigned char* text, size_t size) noexcept nogil:
    cdef uint64_t h = seed ^ (<uint64_t>parent << 32) ^ size
    while size >= 8:
        h = (h ^ load_word(text)) * <uint64_t>0x9E3779B97F4A7C15
        h ^= h >> 32
        text += 8
        size -= 8
    if size > 0:
        h ^= load_tail(text, size)
    h *= <uint64_t>0xD6E8FEB86659FD93
    h ^= h >> 32
    h *= <uint64_t>0xD6E8FEB86659FD93
    return <uint32_t>(h >> 32)


# --- hosts --------------------------------------------------------------------

# What of a Host field is the name: without port and one trailing dot.
cdef inline size_t name_size(const unsigned char* host, size_t size) noexcept nogil:
    cdef size_t end = size
    if size > 0 and host[0] == c'[':
        end = 1
        while end < size and host[end] != c']':
            end += 1
        return end + 1 if end < size else size
    while end > 0 and host[end - 1] >= c'0' and host[end - 1] <= c'9':
        end -= 1
    if end > 0 and host[end - 1] == c':':
        size = end - 1
    if size > 0 and host[size - 1] == c'.':
        size -= 1
    return size


# Eight bytes at a time: sets bit 5 of those between "A" and "Z".
cdef inline uint64_t lower_word(uint64_t word) noexcept nogil:
    cdef uint64_t seven = word & <uint64_t>0x7F7F7F7F7F7F7F7F
    cdef uint64_t from_a = seven + <uint64_t>0x3F3F3F3F3F3F3F3F       # bit 7: >= "A"
    cdef uint64_t after_z = seven + <uint64_t>0x2525252525252525      # bit 7: > "Z"
    cdef uint64_t upper = (from_a ^ after_z) & ~word & <uint64_t>0x8080808080808080
    return word | (upper >> 2)


cdef inline void lower(unsigned char* out, const unsigned char* data, size_t size) noexcept nogil:
    cdef uint64_t word
    cdef size_t i = 0
    while i + 8 <= size:
        word = lower_word(load_word(data + i))
        memcpy(out + i, &word, 8)
        i += 8
    while i < size:
        out[i] = data[i] + 32 if data[i] >= c'A' and data[i] <= c'Z' else data[i]
        i += 1


@cython.final
cdef class RouteTable:
    """Routes by host pattern and path prefix, and services by name.

    The most specific host class that has a matching prefix wins: an exact
    host, then the longest wildcard, then "" (any host).
    """

    def __cinit__(self, entries, names=None):
        tree = _Tree()
        known = set()
        normal = []
        for host, path, target in entries:
            host, path = normal_host(host), normal_path(path)
            if (host, path) in known:
                raise ValueError(f"two routes for {host}{path}")
            known.add((host, path))
            if not isinstance(target, Target):
                raise TypeError(f"not a Target: {target!r}")
            normal.append((host, path, target))
            tree.add_route(host, path, target)
        self.entries = tuple(normal)
        self.by_names = dict(names or {})
        for name, target in self.by_names.items():
            if not isinstance(target, Target):
                raise TypeError(f"not a Target: {target!r}")
            tree.add_name(name, target)
        self.seed = int.from_bytes(os.urandom(8), "little")
        self.has_prefixes = any(path != "/" for _, path, _ in normal)
        for size in sorted({len(host) - 2 for host, _, _ in normal if host.startswith("*.")}, reverse=True):
            self.suffixes[self.suffix_count] = size
            self.suffix_count += 1
        self.fill(tree.nodes)

    def __dealloc__(self):
        free(self.nodes)
        free(self.slots)
        free(self.texts)

    # `tree`: (parent, text, target or None), parents before their children.
    cdef void fill(self, list tree) except *:
        cdef uint32_t slot_count = 16
        cdef uint32_t index, slot, offset = 0
        cdef Node* node
        cdef bytes text
        while slot_count < 2 * len(tree):
            slot_count *= 2
        self.slot_mask = slot_count - 1
        self.nodes = <Node*>calloc(len(tree), sizeof(Node))
        self.slots = <Slot*>calloc(slot_count, sizeof(Slot))
        self.texts = <unsigned char*>malloc(sum([len(text) for _, text, _ in tree]) + 1)
        if self.nodes == NULL or self.slots == NULL or self.texts == NULL:
            raise MemoryError
        for index, (parent, text, target) in enumerate(tree):
            if index < FIRST_FREE and index != NODE_ANY:
                continue
            node = &self.nodes[index]
            node.parent = parent
            node.text = offset
            node.size = <uint32_t>len(text)
            node.best = <PyObject*>target if target is not None else self.nodes[node.parent].best
            if index == NODE_ANY:
                continue
            memcpy(self.texts + offset, <const unsigned char*>text, node.size)
            offset += node.size
            node.hash = hash_edge(self.seed, node.parent, self.texts + node.text, node.size)
            self.nodes[node.parent].children += 1
            slot = node.hash & self.slot_mask
            while self.slots[slot].node != 0:
                slot = (slot + 1) & self.slot_mask
            self.slots[slot] = Slot(node.hash, index)

    # hot: begin
    cdef uint32_t child(self, uint32_t parent, const unsigned char* text, size_t size) noexcept nogil:
        cdef uint32_t h = hash_edge(self.seed, parent, text, size)
        cdef uint32_t slot = h & self.slot_mask
        cdef uint32_t index
        cdef Node* node
        while True:
            index = self.slots[slot].node
            if index == 0:
                return 0
            if self.slots[slot].hash == h:
                node = &self.nodes[index]
                if node.parent == parent and node.size == size and memcmp(self.texts + node.text, text, size) == 0:
                    return index
            slot = (slot + 1) & self.slot_mask

    # The nodes of all host classes that a host belongs to, the most specific first.
    cdef int host_nodes(self, const unsigned char* host, size_t size, uint32_t* found) noexcept nogil:
        cdef unsigned char[256] name
        cdef size_t i, rest
        cdef uint32_t node
        cdef int count = 0
        size = name_size(host, size)
        if size > 0 and size <= MAX_HOST:
            lower(name, host, size)
            node = self.child(NODE_EXACT, name, size)
            if node != 0:
                found[count] = node
                count += 1
            for i in range(self.suffix_count):
                rest = self.suffixes[i]       # ".": at least one byte of a label stands before it
                if rest + 1 < size and name[size - rest - 1] == c'.':
                    node = self.child(NODE_WILDCARD, name + size - rest, rest)
                    if node != 0:
                        found[count] = node
                        count += 1
        found[count] = NODE_ANY
        return count + 1

    # The longest prefix of a path as it is written.
    cdef PyObject* walk(self, uint32_t node, const unsigned char* path, size_t size) noexcept nogil:
        cdef const unsigned char* end = path + size
        cdef const unsigned char* stop
        cdef uint32_t below
        while path < end and self.nodes[node].children > 0:
            path += 1                         # the slash
            stop = <const unsigned char*>memchr(path, c'/', end - path) if path < end else NULL
            if stop == NULL:
                stop = end
            below = self.child(node, path, stop - path)
            if below == 0:
                break
            node = below
            path = stop
        return self.nodes[node].best

    cdef Target find(self, const unsigned char* host, size_t host_size,
                     const unsigned char* path, size_t path_size, int* error):
        cdef uint32_t[MAX_ROOTS] roots
        cdef PyObject* found = NULL
        cdef int count = self.host_nodes(host, host_size, roots)
        cdef int i
        error[0] = ROUTE_OK
        if path_size > 0 and path[0] != c'/':
            path_size = 0                     # "*": of the service as a whole
        if self.has_prefixes and suspicious(path, path_size):
            found = self.read_all(roots, count, path, path_size, error)
        else:
            for i in range(count):
                found = self.walk(roots[i], path, path_size)
                if found != NULL:
                    break
        if found == NULL:
            return None
        return <Target>found

    cdef Target by_name(self, const unsigned char* name, size_t size):
        cdef PyObject* found = self.nodes[self.child(NODE_NAME, name, size)].best
        if found == NULL and size >= SERVER_PREFIX_SIZE and memcmp(name, SERVER_PREFIX, SERVER_PREFIX_SIZE) == 0:
            found = self.by_server_name(name + SERVER_PREFIX_SIZE, size - SERVER_PREFIX_SIZE)
        if found == NULL:
            return None
        return <Target>found

    # "*.b.c", "*.c", then "*", for a.b.c.
    cdef PyObject* by_server_name(self, const unsigned char* host, size_t size) noexcept nogil:
        cdef unsigned char[SERVER_PREFIX_SIZE + 1 + MAX_HOST] name
        cdef const unsigned char* dot
        cdef PyObject* found
        if size > MAX_HOST:
            return NULL
        memcpy(name, SERVER_PREFIX, SERVER_PREFIX_SIZE)
        name[SERVER_PREFIX_SIZE] = c'*'
        dot = <const unsigned char*>memchr(host, c'.', size)
        while dot != NULL:
            size -= <size_t>(dot - host)
            host = dot
            memcpy(name + SERVER_PREFIX_SIZE + 1, host, size)
            found = self.nodes[self.child(NODE_NAME, name, SERVER_PREFIX_SIZE + 1 + size)].best
            if found != NULL:
                return found
            host += 1
            size -= 1
            dot = <const unsigned char*>memchr(host, c'.', size)
        return self.nodes[self.child(NODE_NAME, name, SERVER_PREFIX_SIZE + 1)].best
    # hot: end

    # The longest prefix of a path in one of its readings.
    cdef PyObject* walk_reading(self, uint32_t root, const unsigned char* path, size_t size,
                                uint32_t reading, bint climbs) noexcept nogil:
        cdef Segments segments
        cdef SegmentKind kind
        cdef uint32_t node = root
        cdef uint32_t below
        cdef size_t lost = 0                  # segments below the last one that the table knows
        segments.data = path
        segments.size = size
        segments.position = 0
        segments.reading = reading
        climbs = climbs and reading & READ_RESOLVE != 0
        while climbs or lost == 0:
            kind = next_segment(&segments)
            if kind == SEGMENT_END:
                break
            below = 0
            if kind == SEGMENT_UP:
                if lost > 0:
                    lost -= 1
                elif node != root:
                    node = self.nodes[node].parent
                continue
            if lost == 0 and not segments.too_long:
                below = self.child(node, segments.text, segments.text_size)
            if below != 0:
                node = below
            else:
                lost += 1
        return self.nodes[node].best

    cdef PyObject* first_reading(self, const uint32_t* roots, int count, const unsigned char* path, size_t size,
                                 uint32_t reading, bint climbs) noexcept nogil:
        cdef PyObject* found = NULL
        cdef int i
        for i in range(count):
            found = self.walk_reading(roots[i], path, size, reading, climbs)
            if found != NULL:
                break
        return found

    # Where all readings of a path lead, or an error where they disagree.
    cdef PyObject* read_all(self, const uint32_t* roots, int count, const unsigned char* path, size_t size,
                            int* error) noexcept nogil:
        cdef uint32_t[MAX_READINGS] each
        cdef bint climbs = False
        cdef int total = readings(path, size, each, &climbs)
        cdef PyObject* found
        cdef int i
        if climbs and size * total * count > READING_BUDGET:
            error[0] = ROUTE_AMBIGUOUS
            return NULL
        found = self.first_reading(roots, count, path, size, each[0], climbs)
        for i in range(1, total):
            if self.first_reading(roots, count, path, size, each[i], climbs) != found:
                error[0] = ROUTE_AMBIGUOUS
                return NULL
        return found

    def lookup(self, bytes host not None, bytes path not None):
        """Return the target for a Host field and a path, or None; ValueError where the path is ambiguous."""
        cdef int error = ROUTE_OK
        target = self.find(host, len(host), path, len(path), &error)
        if error != ROUTE_OK:
            raise ValueError("the path can be read in more than one way")
        return target

    def lookup_name(self, bytes name not None):
        """Return the target of a tcp service, or None."""
        return self.by_name(name, len(name))

    def repeat(self, bytes host not None, bytes path not None, size_t count):
        """Look one route up `count` times without returning to Python: what benchmarks measure."""
        cdef int error = ROUTE_OK
        cdef size_t host_size = len(host)
        cdef size_t path_size = len(path)
        cdef const unsigned char* host_data = host
        cdef const unsigned char* path_data = path
        cdef size_t i
        for i in range(count):
            self.find(host_data, host_size, path_data, path_size, &error)

    def patterns(self):
        """Return all routes as (host, path, target), normalised."""
        return list(self.entries)

    @property
    def names(self):
        """The tcp services by name."""
        return dict(self.by_names)


# --- building -----------------------------------------------------------------

def normal_host(host: str) -> str:
    """Return a host pattern in lower case without its trailing dot; ValueError where none could match."""
    normal = host.lower().removesuffix(".")
    if normal and not HOST_PATTERN.fullmatch(normal):
        raise ValueError(f"not a host pattern: {host!r}")
    if len(normal.removeprefix("*.")) > MAX_HOST:
        raise ValueError(f"a host name has at most {MAX_HOST} bytes: {host!r}")
    return normal


def normal_path(path: str) -> str:
    """Return a path prefix without trailing slashes; ValueError where it has more than one reading."""
    if path in ("", "/"):
        return "/"
    if not path.startswith("/") or PATH_FORBIDDEN.search(path):
        raise ValueError(f"not a path prefix: {path!r}")
    normal = urllib.parse.quote(urllib.parse.unquote_to_bytes(path.rstrip("/")), safe="/!$&'()*+,:=@~")
    for segment in normal.split("/"):
        if segment in (".", "..") or len(urllib.parse.unquote_to_bytes(segment)) > SEGMENT_BUFFER:
            raise ValueError(f"not a path prefix: {path!r}")
    return normal


class _Tree:
    """The nodes of a table while it is built: (parent, text, target or None)."""

    def __init__(self):
        self.nodes = [(0, b"", None)] * FIRST_FREE
        self.known = {}

    def node(self, parent, text):
        index = self.known.get((parent, text))
        if index is None:
            index = self.known[parent, text] = len(self.nodes)
            self.nodes.append((parent, text, None))
        return index

    def lead(self, index, target):
        parent, text, _ = self.nodes[index]
        self.nodes[index] = (parent, text, target)

    def add_route(self, host, path, target):
        if not host:
            index = NODE_ANY
        elif host.startswith("*."):
            index = self.node(NODE_WILDCARD, host[2:].encode("ascii"))
        else:
            index = self.node(NODE_EXACT, host.encode("ascii"))
        for segment in path.split("/")[1:] if path != "/" else []:
            index = self.node(index, urllib.parse.unquote_to_bytes(segment))
        self.lead(index, target)

    def add_name(self, name, target):
        self.lead(self.node(NODE_NAME, name.encode("utf-8")), target)
