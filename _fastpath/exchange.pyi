from typing import final

from typing_extensions import disjoint_base

from _fastpath.route import Target
from _fastpath.socket import Socket

@disjoint_base
class Ingress(Socket): ...

@disjoint_base
class Egress(Target):
    @property
    def waiting(self) -> int: ...
    @property
    def in_flight(self) -> int: ...

@final
class Lobby(Egress):
    def __init__(self, name: str) -> None: ...
    @property
    def closed(self) -> bool: ...
    def wake(self) -> None: ...
    def close(self) -> None: ...
