from collections.abc import Iterable

from typing_extensions import disjoint_base

DELIVERY_NAMES: tuple[str, str, str]

@disjoint_base
class Challenge:
    def __new__(cls, values: Iterable[str]) -> Challenge: ...

def set_answers(entries: list[tuple[int, int, str, str, str, bool, int]]) -> None: ...
def render_answer(code: int, delivery: int, close: bool) -> bytes: ...
