"""Finding programs and asking them who they are."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path


def find(name: str) -> Path | None:
    """A program on PATH, or where Debian keeps those of the administrator."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return Path(found) if found else None


def found(name: str) -> Path:
    """The same, where `missing` has been asked before."""
    path = find(name)
    assert path is not None, "whoever starts it has asked what is missing"
    return path


def ask_version(program: Path | None, *arguments: str) -> str:
    """The first version number that a program prints when asked, or an empty string."""
    if program is None:
        return ""
    answer = subprocess.run(
        [program, *arguments],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return version_in(answer.stdout + answer.stderr)


def version_in(text: str) -> str:
    """Behind "Version:" where there is that, else the first that looks like one; no part of a time of day."""
    found = re.search(r"(?:Version:\s+|(?<![\d:.]))(\d+\.\d+(?:\.\d+)?(?:-dev\d+|p\d+)?)", text)
    return found[1] if found else ""


def as_numbers(version: str) -> tuple[int, ...]:
    """For comparing: "2.6.12" is (2, 6, 12)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))
