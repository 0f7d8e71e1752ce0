"""The chunked transfer coding, for tests. The connections use the C functions of chunked.pxd."""

from typing import final

class ChunkedError(Exception):
    """A chunked body was refused."""

@final
class ChunkedReader:
    """Decodes one body."""

    def __new__(cls) -> ChunkedReader: ...
    @property
    def done(self) -> bool: ...
    @property
    def unused(self) -> bytes:
        """What came after the body."""
    @property
    def trailers(self) -> bytes:
        """The trailers that cross: canonical lines, each with CR LF."""
    def feed(self, data: bytes) -> bytes:
        """Return the body bytes in `data`. Raises ChunkedError, from then on every time."""
    def bench(self, data: bytes, rounds: int) -> int:
        """Decode one body again and again; returns the body bytes of the last round."""

def are_canonical(trailers: bytes) -> bool:
    """Whether a decoder could have left these trailers."""

def size_line(size: int) -> bytes:
    """The line that starts a chunk of `size` bytes."""
