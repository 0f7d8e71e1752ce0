"""What the guide tells a new user to type, typed: docs/start.md from its first command to its last."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import environment

GUIDE = Path(__file__).parents[2] / "docs" / "start.md"
BLOCK = re.compile(r"^```(sh|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
MARK = "@@ end of block @@"


def blocks() -> list[tuple[str, str]]:
    """Each block of commands, and what the page says it prints ("" where it says nothing)."""
    found: list[tuple[str, str]] = []
    for kind, text in BLOCK.findall(GUIDE.read_text()):
        if kind == "sh":
            found.append((text, ""))
        else:
            found[-1] = (found[-1][0], text)
    return found


@pytest.mark.timeout(120)
def test_ten_minutes(tmp_path: Path) -> None:
    # The page uses fixed ports: it gets a network of its own. All that it starts ends with the shell.
    isolated = ["unshare", "--map-root-user", "--net", "--pid", "--fork", "--kill-child"]
    if subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us make a network namespace")
    program = tmp_path / "bin" / "broker"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m broker "$@"\n')
    program.chmod(0o755)
    script = ["set -eu", "ip link set lo up", f"PATH={program.parent}:$PATH"]
    for commands, _ in blocks():
        script += [commands, f"echo '{MARK}'"]
    done = subprocess.run(
        [*isolated, "bash", "-c", "\n".join(script)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    logs = "\n".join(f"{path.name}: {path.read_text()}" for path in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{logs}"
    printed = done.stdout.split(f"{MARK}\n")
    for (commands, expected), output in zip(blocks(), printed, strict=False):
        if expected:
            assert output.lower().splitlines() == expected.lower().splitlines(), commands
    assert sum(bool(expected) for _, expected in blocks()) >= 2
    assert "Traceback" not in logs
