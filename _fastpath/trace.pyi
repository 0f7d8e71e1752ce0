EGRESS: int

def trace(
    head: bytes, *, begin: bool = False, ratio: float = 1.0, mark: int = 0
) -> tuple[bytes, int, int, int]: ...
