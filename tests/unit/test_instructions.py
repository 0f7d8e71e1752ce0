"""The guard over what a request costs: it counts, compares, and can fail."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bench.instructions.__main__ import read
from bench.instructions.budget import RECORDED, Budget, judge
from bench.instructions.parts import PARTS

ROOT = Path(__file__).parents[2]
HERE = {"compiler": "cc 1", "python": "3"}


def budget(**instructions: int) -> Budget:
    return Budget(HERE, instructions)


@pytest.mark.parametrize(
    ("counted", "problem"),
    [
        (100, None),
        (103, None),
        (104, "takes more than is recorded"),
        (97, None),
        (96, "takes less than is recorded: record it, so that it stays so"),
    ],
)
def test_more_and_less_than_recorded(counted: int, problem: str | None) -> None:
    [verdict] = judge(budget(scan=100), budget(scan=counted))
    assert verdict.problem == problem
    assert verdict.change == pytest.approx(counted / 100 - 1)


@pytest.mark.parametrize("counted", [60, 200])
def test_another_compiler_is_told_and_not_judged(counted: int) -> None:
    elsewhere = replace(budget(scan=100), made_with={"compiler": "cc 2", "python": "3"})
    [verdict] = judge(elsewhere, budget(scan=counted))
    assert verdict.problem is None


def test_a_part_without_a_budget_fails() -> None:
    [verdict] = judge(budget(), budget(scan=1))
    assert verdict.problem == "nothing is recorded"
    assert verdict.change is None


def test_every_part_is_recorded() -> None:
    assert Budget.load(RECORDED).instructions.keys() == PARTS.keys()


def test_files_of_other_kinds_are_not_taken(tmp_path: Path) -> None:
    (tmp_path / "out.1").write_text("desc: Trigger: Program termination\ntotals: 5\n")
    with pytest.raises(ValueError, match="not a part's"):
        read(tmp_path / "out.1")


def run(budget_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bench.instructions", "--budget", str(budget_file), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


def test_counted_for_real(tmp_path: Path) -> None:
    """What is recorded holds in the next run, and half of it does not."""
    file = tmp_path / "budget.json"
    assert run(file, "chunked", "scan", "--record").returncode == 0
    recorded = Budget.load(file)
    assert 100 < recorded.instructions["chunked"] < 100_000
    assert run(file, "chunked", "scan").returncode == 0
    replace(recorded, instructions={name: count // 2 for name, count in recorded.instructions.items()}).save(
        file
    )
    failed = run(file, "chunked", "scan")
    assert failed.returncode == 1
    assert failed.stdout.count("takes more than is recorded") == 2
