"""Measurements, their medians and ratios, and the file that keeps them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

FORMAT = 1
DIGITS = 4  # that are kept of a figure


@dataclass
class Measurement:
    """One contestant in one round of one scenario."""

    scenario: str
    contestant: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    failure: str | None = None


@dataclass
class Results:
    """A run: what it was made on and with, and what came out."""

    machine: dict[str, Any]
    settings: dict[str, Any]
    contestants: dict[str, dict[str, str]]  # title and version by name, in the order of the tables
    scenarios: dict[str, str]  # title by name, likewise
    skipped: dict[str, str] = field(default_factory=dict)  # what was left out, and why
    measurements: list[Measurement] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """One measurement a line, so that what changes can be read."""
        content = {"format": FORMAT, **asdict(self)}
        for each in content["measurements"]:
            each["figures"] = {name: round(value, DIGITS) for name, value in each["figures"].items()}
        lines = ",\n  ".join(json.dumps(each) for each in content.pop("measurements"))
        head = json.dumps(content, indent=1, ensure_ascii=False).removesuffix("\n}")
        path.write_text(f'{head},\n "measurements": [\n  {lines}\n ]\n}}\n')

    @classmethod
    def load(cls, path: Path) -> Results:
        content = json.loads(path.read_text())
        if content.pop("format", None) != FORMAT:
            raise ValueError(f"{path} is not a file of this version's results")
        content["measurements"] = [Measurement(**each) for each in content["measurements"]]
        return cls(**content)

    def joined(self, later: Results) -> Results:
        """Both, of one machine and with the same settings. What was measured again is the later one's.

        Raises ValueError where machine or settings differ: such figures do not belong into one table.
        """
        for name, mine, other in (
            ("machine", self.machine, later.machine),
            ("settings", self.settings, later.settings),
        ):
            if {**mine, "date": ""} != {**other, "date": ""}:
                raise ValueError(f"the results are of another {name}: {mine} and {other}")
        again = {(each.scenario, each.contestant) for each in later.measurements}
        kept = [each for each in self.measurements if (each.scenario, each.contestant) not in again]
        return Results(
            self.machine,
            self.settings,
            self.contestants | later.contestants,
            self.scenarios | later.scenarios,
            self.skipped | later.skipped,
            kept + later.measurements,
        )

    def ordered(self, contestants: Iterable[str], scenarios: Iterable[str]) -> Results:
        """The same with tables in this order; names that are not there are passed over."""
        return replace(
            self,
            contestants={name: self.contestants[name] for name in contestants if name in self.contestants},
            scenarios={name: self.scenarios[name] for name in scenarios if name in self.scenarios},
        )

    def rounds(self, scenario: str) -> int:
        """How many there were of a scenario."""
        return 1 + max((each.round for each in self.measurements if each.scenario == scenario), default=-1)

    def of(self, scenario: str, contestant: str) -> list[Measurement]:
        return [
            each for each in self.measurements if (each.scenario, each.contestant) == (scenario, contestant)
        ]

    def failures(self, scenario: str, contestant: str) -> list[str]:
        return [each.failure for each in self.of(scenario, contestant) if each.failure]

    def values(self, scenario: str, contestant: str, figure: str) -> dict[int, float]:
        """By round."""
        found = self.of(scenario, contestant)
        return {each.round: each.figures[figure] for each in found if figure in each.figures}

    def middle(self, scenario: str, contestant: str, figure: str) -> float | None:
        """The median of the rounds."""
        return _median(self.values(scenario, contestant, figure).values())

    def ratio(self, scenario: str, contestant: str, base: str, figure: str) -> float | None:
        """The median of the ratios to another contestant in the same round, so that drift cancels out."""
        values, others = (self.values(scenario, name, figure) for name in (contestant, base))
        return _median(values[number] / others[number] for number in values if others.get(number))

    def figures(self, scenario: str) -> set[str]:
        """Which figures the scenario gave."""
        return {name for each in self.measurements if each.scenario == scenario for name in each.figures}


def _median(values: Iterable[float]) -> float | None:
    found = list(values)
    return median(found) if found else None
