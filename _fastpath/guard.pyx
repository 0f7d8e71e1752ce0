"""Streams at once of one user, and limits on single streams. See guard.pxd."""

cimport cython


@cython.final
cdef class Quota:
    """How many streams one user has, and may have, at once in all of his tunnels. `limit` None: any number."""

    def __init__(self, limit=None):
        self.set_limit(limit)

    def set_limit(self, limit) -> None:
        """Hold streams from now on to another limit; those that run stay. Raises ValueError for one below 1."""
        if limit is not None and not 1 <= limit < 1 << 63:
            raise ValueError(f"a limit of streams must be 1 or more, not {limit}")
        self.limit = <uint64_t>-1 if limit is None else limit
