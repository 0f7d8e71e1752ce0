from collections.abc import Callable
from typing import Any, final

from _fastpath.connection import Headcount, Port
from _fastpath.crowd import Crowd
from _fastpath.exchange import Lobby
from _fastpath.gate import ClientCertificate, Gate
from _fastpath.meter import Meters
from _fastpath.networks import Admission, Networks
from _fastpath.reactor import Reactor
from _fastpath.route import RouteTable
from _fastpath.settings import Settings

@final
class Listener(Port):
    def __new__(
        cls,
        reactor: Reactor,
        fd: int,
        name: str,
        kind: str,
        settings: Settings,
        via: str,
        local: RouteTable,
        delegated: RouteTable,
        service: str | None = None,
        tls: Callable[[], object] | None = None,
        meters: Meters | None = None,
    ) -> Listener: ...
    @property
    def exchanges(self) -> int: ...
    def swap(self, local: RouteTable, delegated: RouteTable, settings: Settings) -> None: ...
    def set_tls(self, tls: Callable[[], object]) -> None: ...
    def set_addresses(self, admission: Admission | None, trusted: Networks | None, proxied: bool) -> None: ...
    def set_gate(
        self,
        gate: Gate | None,
        certify: Callable[[Any], ClientCertificate | None] | None,
        cert_fields: int,
        revoked: Callable[[tuple[bytes, ...]], bool] | None = None,
    ) -> None: ...
    def set_lobby(self, lobby: Lobby | None) -> None: ...
    def set_headcount(self, headcount: Headcount | None) -> None: ...
    def set_crowd(self, crowd: Crowd | None) -> None: ...
    def stop(self, backlog: bool = True) -> None: ...
    def abort(self) -> None: ...
    def counters(self) -> dict[str, Any]: ...
