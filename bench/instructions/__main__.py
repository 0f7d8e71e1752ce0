"""Counts the instructions of the compiled core and compares them with what is recorded.

python -m bench.instructions             exit code 1 where a part takes more, or clearly less, than recorded
python -m bench.instructions --record    what is counted now is the new budget
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

import Cython

from bench.instructions.budget import RECORDED, Budget, Verdict, judge
from bench.instructions.parts import PARTS

PATIENCE_S = 600.0
MISSING = "valgrind or a C compiler is missing; Debian and Ubuntu: apt-get install valgrind gcc libc6-dev"


def count(names: list[str]) -> dict[str, int]:
    """Instructions for one time of each part, rounded down. Raises CalledProcessError."""
    with TemporaryDirectory() as directory:
        marks = Path(directory, "marks.so")
        source = Path(__file__).with_name("marks.c")
        subprocess.run([compiler(), "-shared", "-fPIC", "-O1", "-o", marks, source], check=True)
        out = Path(directory, "out")
        command = [
            "valgrind",
            "--tool=callgrind",
            "--instr-atstart=no",
            f"--callgrind-out-file={out}",
            "--quiet",
        ]
        # Addresses and hashes decide how tables are laid out: the same ones each time.
        command = ["setarch", "--addr-no-randomize", *command, sys.executable]
        environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run(
            [*command, "-m", "bench.instructions.count", marks, *names],
            check=True,
            env=environment,
            timeout=PATIENCE_S,
        )
        found = dict(read(path) for path in Path(directory).glob("out.*"))
        return {name: found[name] for name in names}


def read(path: Path) -> tuple[str, int]:
    """The part that one of callgrind's files is about, and its cost."""
    text = path.read_text()
    name = re.search(r"^desc: Trigger: Client Request: (\w+)$", text, re.MULTILINE)
    total = re.search(r"^(?:totals|summary): (\d+)$", text, re.MULTILINE)
    if name is None or total is None:
        raise ValueError(f"{path} is not a part's")
    return name[1], int(total[1]) // PARTS[name[1]].count


def compiler() -> str:
    return os.environ.get("CC", "cc")


def made_with() -> dict[str, str]:
    version = subprocess.run(
        [compiler(), "-dumpfullversion"], capture_output=True, text=True, check=True
    ).stdout
    return {
        "compiler": f"{Path(compiler()).name} {version.strip()}",
        "cython": Cython.__version__,
        "machine": platform.machine(),
        "python": platform.python_version(),
        "flags": sysconfig.get_config_var("OPT") or "",
    }


def show(verdicts: list[Verdict]) -> None:
    for each in verdicts:
        change = "" if each.change is None else f"{each.change:+7.1%}"
        print(
            f"{each.counted:9,} {change:8} {PARTS[each.part].title}"
            + (f": {each.problem}" if each.problem else "")
        )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.instructions", description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", choices=[*PARTS, []], default=[], help="only these")
    parser.add_argument("--budget", type=Path, default=RECORDED, help="another file of what is recorded")
    parser.add_argument("--record", action="store_true", help="write what is counted into that file")
    options = parser.parse_args()
    if not shutil.which("valgrind") or not shutil.which(compiler()):
        print(MISSING, file=sys.stderr)
        return 1
    counted = Budget(made_with(), count(options.parts or list(PARTS)))
    if options.record:
        known = Budget.load(options.budget).instructions if options.budget.exists() else {}
        Budget(counted.made_with, known | counted.instructions).save(options.budget)
    budget = Budget.load(options.budget)
    if budget.made_with != counted.made_with:
        print(f"recorded with {budget.made_with}")
        print(f"counted with  {counted.made_with}: told, not judged; record it anew")
    verdicts = judge(budget, counted)
    show(verdicts)
    problems = any(each.problem for each in verdicts)
    if problems:
        print("where that is meant: scripts/bench instructions --record, in the commit that changes it")
    return int(problems)


if __name__ == "__main__":
    sys.exit(main())
