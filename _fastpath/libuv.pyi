import asyncio
from typing import final

direct: bool
held: set[int]

@final
class Turn:
    def __new__(cls, loop: asyncio.AbstractEventLoop) -> Turn: ...
