"""What stands in packaging/ and docs/: systemd accepts the units, configurations load, files exist."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from broker.config.document import read_document
from broker.config.validate import validate

ROOT = Path(__file__).parents[2]
UNITS = [each for each in sorted((ROOT / "packaging" / "systemd").iterdir()) if each.suffix != ".sysusers"]
CONFIGS = sorted((ROOT / "packaging").glob("compose-*.yaml"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
YAML = re.compile(r"^```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTIONS = {"external", "registration", "users", "services", "connect", "admin", "limits", "timeouts"}


def snippets() -> list[tuple[str, str]]:
    found = [(page.name, text) for page in PAGES for text in YAML.findall(page.read_text())]
    return [(name, text) for name, text in found if set(yaml.safe_load(text)) & SECTIONS]


def test_there_is_something_to_test() -> None:
    assert len(UNITS) == 3
    assert len(CONFIGS) == 2
    assert len(snippets()) >= 3


def test_units(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for each in UNITS:  # the program is not installed where the units say
        text = each.read_text().replace("/opt/broker/bin/broker", "/bin/true")
        (tmp_path / each.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / each.name) for each in UNITS)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "broker" not in done.stderr


def test_units_are_hardened(tmp_path: Path) -> None:
    """systemd's own judgement: from 0 (all is forbidden) to 10."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    for each in UNITS:
        if each.suffix == ".service":
            command = [
                "systemd-analyze",
                "security",
                "--no-pager",
                "--offline=true",
                "--threshold=16",
                str(each),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", [path.name for path in CONFIGS])
def test_configurations_of_compose(name: str) -> None:
    assert not validate(read_document(ROOT / "packaging" / name)).problems


@pytest.mark.parametrize(("page", "text"), snippets())
def test_snippets_of_the_pages(page: str, text: str, tmp_path: Path) -> None:
    """Every key that a page shows is one that there is."""
    (tmp_path / page).write_text(text)
    problems = validate(read_document(tmp_path / page)).problems
    assert [each for each in problems if "sha256:" not in each.message] == []  # pages shorten hashes


def test_compose_names_what_is_there() -> None:
    place = ROOT / "packaging"
    compose = yaml.safe_load((place / "compose.yaml").read_text())
    assert (place / compose["x-broker"]["build"]["dockerfile"]).exists() or (
        ROOT / compose["x-broker"]["build"]["dockerfile"]
    ).exists()
    for service in compose["services"].values():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            assert source == "./dev" or (place / source).exists(), source
        assert set(service["networks"]) <= set(compose["networks"])


def test_the_image_copies_what_the_build_needs() -> None:
    text = (ROOT / "packaging" / "Dockerfile").read_text()
    assert "USER 10001" in text
    assert text.count("\nFROM ") + text.startswith("FROM ") == 2
    kept = [
        line[1:]
        for line in (ROOT / "packaging" / "Dockerfile.dockerignore").read_text().splitlines()
        if line[:1] == "!"
    ]
    sources = {path for pattern in kept for path in ROOT.glob(pattern)}
    for needed in ("LICENSE", "README.md", "pyproject.toml", "setup.py", "broker", "_fastpath/__init__.py"):
        assert ROOT / needed in sources
    compiled = {
        path
        for path in (ROOT / "_fastpath").iterdir()
        if path.suffix in (".pyx", ".pxd", ".pyi", ".py", ".typed")
    }
    assert compiled <= sources
    assert not any(path.suffix in (".so", ".c") for path in sources)
