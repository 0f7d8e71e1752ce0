from _fastpath.networks import Networks

def client_of(
    data: bytes | bytearray | memoryview, trusted: Networks, peer: str, limit: int
) -> str | None: ...
