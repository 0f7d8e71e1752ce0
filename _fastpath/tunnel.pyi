from collections.abc import Callable
from typing import Any, final

from _fastpath.guard import Quota
from _fastpath.meter import Meters
from _fastpath.reactor import Pollable, Reactor
from _fastpath.route import RouteTable
from _fastpath.session import Session
from _fastpath.stream import SessionOwner

@final
class Link(Pollable): ...

@final
class Tunnel(SessionOwner):
    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        *,
        dialled: bool,
        name: str,
        routes: RouteTable,
        local_window: int,
        peer_window: int,
        local_streams: int,
        peer_streams: int,
        silence: int,
        tunnel_memory: int,
        on_control: Callable[[Tunnel, bytes], None],
        on_close: Callable[[Tunnel, int, str], None],
        on_goaway: Callable[[Tunnel], None] | None = None,
        leftover: bytes = b"",
        tls: Any = None,
        quota: Quota | None = None,
        label: str = "",
        relay: bool = False,
        meters: Meters | None = None,
    ) -> None: ...
    @property
    def relay(self) -> bool: ...
    @property
    def session(self) -> Session: ...
    @property
    def name(self) -> str: ...
    @property
    def alive(self) -> bool: ...
    @property
    def streams(self) -> int: ...
    @property
    def rtt_us(self) -> int: ...
    @property
    def draining(self) -> bool: ...
    def send_control(self, payload: bytes) -> None: ...
    def goaway(self, code: int, reason: str) -> None: ...
    def close(self, code: int, reason: str) -> None: ...
    def swap(self, routes: RouteTable) -> None: ...
    def deliver(self, payload: bytes) -> None: ...
    def counters(self) -> dict[str, Any]: ...
