from typing import final

from typing_extensions import disjoint_base

from _fastpath.end import End

@disjoint_base
class SessionOwner: ...

@final
class Stream(End): ...

@disjoint_base
class Sender:
    active: int
    accepted: int
    bytes_in: int
    dialled: bool
    error: int
    frames_in: int
    going_away: bool
    local_limit: int
    opened: int
    pings: int
    refused: int
    parting: bool
    remote_error: bool
    resets_in: int
    resets_out: int
    stalls: int
