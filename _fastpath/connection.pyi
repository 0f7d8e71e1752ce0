from typing_extensions import disjoint_base

from _fastpath.exchange import Ingress
from _fastpath.reactor import Pollable

@disjoint_base
class Port(Pollable):
    @property
    def name(self) -> str: ...
    @property
    def connections(self) -> int: ...
    @property
    def accepted(self) -> int: ...
    @property
    def refused(self) -> int: ...
    @property
    def stopping(self) -> bool: ...

@disjoint_base
class Connection(Ingress): ...
