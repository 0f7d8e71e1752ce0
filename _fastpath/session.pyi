from typing import final

from _fastpath.stream import Sender, SessionOwner

@final
class Session(Sender):
    def __new__(
        cls,
        owner: SessionOwner,
        *,
        dialled: bool,
        local_window: int,
        peer_window: int,
        local_streams: int,
        peer_streams: int,
        silence_us: int,
        tunnel_memory: int,
    ) -> Session: ...
    @property
    def why(self) -> str: ...
    def counters(self) -> dict[str, int]: ...
