from collections.abc import Iterable, Mapping
from typing import Self, final

from typing_extensions import disjoint_base

@disjoint_base
class Target:
    """What a route leads to; only its compiled subclasses carry requests."""

    def __init__(self, name: str, is_service: bool = False) -> None: ...
    @property
    def name(self) -> str: ...
    @property
    def is_service(self) -> bool: ...

@final
class RouteTable:
    """Routes by host pattern and path prefix, and services by name.

    Host patterns: "" (any), "a.example.com", "*.example.com" (any depth below,
    not example.com itself). Path prefixes match on segment boundaries; "" and
    "/" match all. An exact host beats a wildcard, a longer wildcard a shorter
    one, any wildcard none; then the longest prefix wins. A host class without
    a matching prefix is passed over. ValueError for patterns that could never
    match, that have more than one reading, or that are given twice.
    """

    def __new__(
        cls, entries: Iterable[tuple[str, str, Target]], names: Mapping[str, Target] | None = None
    ) -> Self: ...
    def lookup(self, host: bytes, path: bytes) -> Target | None:
        """Return the target for a Host field and a path, or None; ValueError where the path is ambiguous."""

    def lookup_name(self, name: bytes) -> Target | None:
        """Return the target of a tcp service, or None."""

    def repeat(self, host: bytes, path: bytes, count: int) -> None:
        """Look one route up `count` times without returning to Python: what benchmarks measure."""

    def patterns(self) -> list[tuple[str, str, Target]]:
        """Return all routes as (host, path, target), normalised."""

    @property
    def names(self) -> dict[str, Target]:
        """The tcp services by name."""

def normal_host(host: str) -> str:
    """Return a host pattern in lower case without its trailing dot; ValueError where none could match."""

def normal_path(path: str) -> str:
    """Return a path prefix without trailing slashes; ValueError where it has more than one reading."""
