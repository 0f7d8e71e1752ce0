from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, final

from _fastpath.route import RouteTable

PROOFS: dict[str, int]

@final
class Caller:
    def __new__(
        cls, name: str, lines: bytes, may: RouteTable | None = None, key: Hashable | None = None
    ) -> Caller: ...
    @property
    def name(self) -> str: ...

@final
class ClientCertificate:
    def __new__(
        cls, chain: tuple[bytes, ...], render: Callable[[tuple[bytes, ...], int], bytes]
    ) -> ClientCertificate: ...
    @property
    def chain(self) -> tuple[bytes, ...]: ...

@final
class Pending:
    def settle(self, result: Hashable | None) -> None: ...

@final
class Gate:
    def __new__(
        cls,
        proofs: Iterable[str],
        callers: Mapping[Any, Caller],
        verify: Callable[..., Hashable],
        *,
        keeps: bool = False,
        challenges: Iterable[str] = (),
    ) -> Gate: ...
    @property
    def proofs(self) -> int: ...
    @property
    def keeps(self) -> bool: ...
    @property
    def passed(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def asked(self) -> int: ...
