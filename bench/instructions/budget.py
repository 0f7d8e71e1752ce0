"""What was recorded, and what a count is worth beside it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

RECORDED = Path(__file__).with_name("budget.json")
TOLERANCE = 0.03  # of a part, above and below, with the compiler and the interpreter that were recorded


@dataclass(frozen=True)
class Budget:
    """Instructions for one time of each part, and with what they were counted."""

    made_with: dict[str, str]
    instructions: dict[str, int]

    @classmethod
    def load(cls, path: Path) -> Budget:
        return cls(**json.loads(path.read_text()))

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")


@dataclass(frozen=True)
class Verdict:
    part: str
    counted: int
    recorded: int | None
    problem: str | None

    @property
    def change(self) -> float | None:
        """Of the recorded one: 0.03 where it takes 3 % more."""
        return None if not self.recorded else self.counted / self.recorded - 1


def judge(budget: Budget, counted: Budget) -> list[Verdict]:
    """Each part that was counted. With another compiler or interpreter nothing is a problem, only told."""
    same = budget.made_with == counted.made_with
    return [
        _verdict(name, count, budget.instructions.get(name), same)
        for name, count in counted.instructions.items()
    ]


def _verdict(name: str, counted: int, recorded: int | None, same: bool) -> Verdict:
    problem = None
    if recorded is None:
        problem = "nothing is recorded"
    elif same and counted > recorded * (1 + TOLERANCE):
        problem = "takes more than is recorded"
    elif same and counted < recorded * (1 - TOLERANCE):
        problem = "takes less than is recorded: record it, so that it stays so"
    return Verdict(name, counted, recorded, problem)
