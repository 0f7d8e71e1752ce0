from typing import final

@final
class Settings:
    def __new__(
        cls,
        *,
        head: int,
        headers: int,
        uri: int,
        body: int | None,
        response_head: int,
        response_headers: int,
        min_rate: int | None,
        requests: int | None,
        upgrades: tuple[str, ...],
        connections: int,
        connections_per_address: int | None,
        waiting: int,
        in_flight: int | None,
        head_timeout: int,
        idle_timeout: int,
        slow_timeout: int,
        upgraded_timeout: int,
        connect_timeout: int,
        first_byte_timeout: int,
        total_timeout: int | None,
        agent_wait: int,
        stream_idle: int | None = None,
    ) -> Settings: ...
    @property
    def body(self) -> int: ...
    @property
    def min_rate(self) -> int: ...
    @property
    def requests(self) -> int: ...
    @property
    def upgrades(self) -> tuple[bytes, ...]: ...
    @property
    def connections(self) -> int: ...
    @property
    def connections_per_address(self) -> int: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def head_timeout(self) -> int: ...
    @property
    def idle_timeout(self) -> int: ...
    @property
    def slow_timeout(self) -> int: ...
    @property
    def upgraded_timeout(self) -> int: ...
    @property
    def connect_timeout(self) -> int: ...
    @property
    def first_byte_timeout(self) -> int: ...
    @property
    def total_timeout(self) -> int: ...
    @property
    def agent_wait(self) -> int: ...
    @property
    def stream_idle(self) -> int: ...
