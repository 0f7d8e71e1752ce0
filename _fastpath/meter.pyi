from typing import Any, final

from _fastpath.record import Journal

METER_BOUNDS_US: tuple[int, ...]
METER_HOPS: tuple[str, ...]
NO_SERVICE: str
OTHER_SERVICES: str

@final
class Meter:
    @property
    def service(self) -> str: ...
    def counters(self) -> dict[str, Any]: ...

@final
class Meters:
    def __new__(cls, port: str, journal: Journal | None = None) -> Meters: ...
    @property
    def journal(self) -> Journal: ...
    @property
    def port(self) -> str: ...
    def of(self, service: str) -> Meter: ...
    def counters(self) -> list[dict[str, Any]]: ...
