from typing import final

@final
class Failures:
    def failed(self, address: str, now_ms: int) -> bool: ...
