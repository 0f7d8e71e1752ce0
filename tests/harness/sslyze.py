"""sslyze, in an environment of its own: it needs another version of cryptography than the program."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

VERSION = "sslyze==6.*"
PLACE = Path(__file__).parents[2] / "build" / "sslyze"


def sslyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run it; installed on first use. A test is skipped where it can't be."""
    program = PLACE / "bin" / "sslyze"
    if not program.exists():
        made = subprocess.run([sys.executable, "-m", "venv", str(PLACE)], check=False)
        pip = [str(PLACE / "bin" / "python"), "-m", "pip", "install", "--quiet", VERSION]
        if made.returncode or subprocess.run(pip, check=False, env=alone()).returncode:
            pytest.skip(f"{VERSION} could not be installed into {PLACE}")
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, check=False, timeout=100, env=alone()
    )


def alone() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
