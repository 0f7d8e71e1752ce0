from typing_extensions import disjoint_base

from _fastpath.reactor import Pollable

@disjoint_base
class Socket(Pollable): ...

def set_congestion(choice: str) -> None: ...
