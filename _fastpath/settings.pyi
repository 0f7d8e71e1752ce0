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
        connections: int,
        connections_per_address: int | None,
        waiting: int,
        head_timeout: int,
        idle_timeout: int,
        connect_timeout: int,
        first_byte_timeout: int,
        total_timeout: int | None,
        agent_wait: int,
    ) -> Settings: ...
    @property
    def body(self) -> int: ...
    @property
    def connections(self) -> int: ...
    @property
    def connections_per_address(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def head_timeout(self) -> int: ...
    @property
    def idle_timeout(self) -> int: ...
    @property
    def connect_timeout(self) -> int: ...
    @property
    def first_byte_timeout(self) -> int: ...
    @property
    def total_timeout(self) -> int: ...
    @property
    def agent_wait(self) -> int: ...
