"""What is built and shipped: contents of sdist and wheel, and that both install and run.

Slow: compiles all modules twice and installs the dependencies. `scripts/build` runs it on what it built
(BROKER_DIST); alone, it builds from what is committed.
"""

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from broker import __version__

ROOT = Path(__file__).parents[2]


@dataclass
class Artifacts:
    sdist: Path
    wheel: Path


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "BROKER_"))}
    done = subprocess.run(command, cwd=cwd, env=env, text=True, capture_output=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    dist = Path(os.environ.get("BROKER_DIST", ""))
    if not os.environ.get("BROKER_DIST"):
        work = tmp_path_factory.mktemp("build")
        source, dist = work / "source", work / "dist"
        run("git", "archive", "--format=tar", "--prefix=source/", "-o", work / "source.tar", "HEAD", cwd=ROOT)
        with tarfile.open(work / "source.tar") as archive:
            archive.extractall(work, filter="data")
        run(sys.executable, "-m", "build", "--outdir", dist, source, cwd=work)
    return Artifacts(*(next(dist.glob(pattern)) for pattern in ("*.tar.gz", "*.whl")))


def modules() -> set[str]:
    names = {path.stem for path in (ROOT / "_fastpath").glob("*.pyx")}
    assert len(names) > 5
    return names


def test_changelog_tells_of_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text()
    assert f"## [{__version__}]" in changes or "## Unreleased" in changes


def test_the_command_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"broker": "broker.cli:main"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_sdist_has_all_that_a_build_needs(artifacts: Artifacts) -> None:
    with tarfile.open(artifacts.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = set(run("git", "ls-files", cwd=ROOT).split())
    unpublished = {".gitignore"}
    assert tracked - names - unpublished == set()
    assert [name for name in names - tracked if name.endswith((".c", ".so", ".pyc"))] == []


@pytest.mark.slow
def test_wheel_has_modules_and_stubs_and_no_sources(artifacts: Artifacts) -> None:
    with zipfile.ZipFile(artifacts.wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith((".pyx", ".pxd", ".c", ".h"))] == []
    assert {name.split("/")[0] for name in names} == {
        "broker",
        "_fastpath",
        f"tunnel_broker-{__version__}.dist-info",
    }
    for module in modules():
        assert f"_fastpath/{module}.pyi" in names
        assert any(name.startswith(f"_fastpath/{module}.c") and name.endswith(".so") for name in names)
    for path in (ROOT / "broker").rglob("*.py"):
        assert str(path.relative_to(ROOT)) in names
    assert {"broker/py.typed", "_fastpath/py.typed"} <= set(names)
    for path in (ROOT / "broker/ports/page").iterdir():
        assert str(path.relative_to(ROOT)) in names


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", ["sdist", "wheel"])
def test_installs_and_runs(artifacts: Artifacts, kind: str, tmp_path: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "venv", cwd=tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, getattr(artifacts, kind), cwd=tmp_path)
    assert __version__ in run(tmp_path / "venv" / "bin" / "broker", "--version", cwd=tmp_path)
    imports = "; ".join(f"import _fastpath.{name}" for name in sorted(modules()))
    run(python, "-c", imports, cwd=tmp_path)
