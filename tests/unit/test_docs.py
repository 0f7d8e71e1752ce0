"""What pages and messages speak of is there: links, headings, commands with their flags, keys, metrics."""

import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from broker.cli.commands import broker
from broker.config.schema import FileSection, Section
from broker.config.validate import inner_section
from broker.node.causes import TABLE
from broker.observe.metrics import METRICS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path for pattern in ("*.md", "docs/*.md", "packaging/*.md", "bench/*.md") for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"^```[a-z]*\n(.*?)^```$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(
    r"(?:^|[|&;(`]|\s{2}|\bexec )\s*broker( [^\s|&;#`)\"']+(?: +[^\s|&;#`)\"']+)*)", re.MULTILINE
)
KEY = re.compile(
    r"\b(?:(?:external|registration|users|services|connect)\[\]|limits|timeouts|admin|access_log|tracing|tcp)(?:\.[a-z_]+(?:\[\])?)+"
)
METRIC = re.compile(r"\bbroker_[a-z_]+(?=[\s`{)]|$)")


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(path: Path) -> set[str]:
    """As GitHub and mkdocs make them, for headings of plain words."""
    found = set()
    for heading in HEADING.findall(FENCE.sub("", path.read_text())):
        bare = re.sub(r"[^\w\- ]", "", heading.strip().lower())
        found.add(re.sub(r"[-\s]+", "-", bare))
        found.add(bare.replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(FENCE.sub("", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        if anchor:
            assert anchor in anchors(place), target


def code(page: Path) -> Iterator[str]:
    for block, inline in CODE.findall(page.read_text()):
        yield block or inline


def commands() -> list[tuple[str, str]]:
    found = [
        (ids(page), call.strip())
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for text in code(page)
        for call in COMMAND.findall(text.replace("\\\n", " "))
    ]
    return [
        *found,
        *(("causes", call.strip()) for *_, advice in TABLE for call in COMMAND.findall(f"  {advice.mend}")),
    ]


def test_commands_are_there() -> None:
    """`broker NAME [SUBNAME] --flag …`: each name and each flag."""
    context = click.Context(broker)
    seen: set[str] = set()
    for where, call in commands():
        words = call.split()
        command: click.Command | None = broker
        while words and isinstance(command, click.Group) and re.fullmatch(r"[a-z]+", words[0]):
            command = command.get_command(context, words.pop(0))
        if isinstance(command, click.Group) and command is broker:
            known = {"--help", "--version", "-h"}  # `broker COMMAND --help`
        else:
            assert command is not None, f"{where}: broker {call}"
            known = {option for each in command.get_params(context) for option in each.opts}
        seen.add(command.name or "")
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known, f"{where}: broker {call}"
    assert len(seen) > 10


def sections() -> dict[str, type[Section]]:
    """By its path in the file."""
    found: dict[str, type[Section]] = {}

    def walk(path: str, section: type[Section]) -> None:
        found[path] = section
        for name, field in section.model_fields.items():
            inner = inner_section(field.annotation)
            if inner is not None:
                walk(f"{path}.{name}" if path else name, inner)

    walk("", FileSection)
    return found


def test_keys_are_there() -> None:
    known = sections()
    texts = [(ids(page), text) for page in PAGES if page.name != "CHANGELOG.md" for text in code(page)]
    texts += [("causes", f"{advice.cause} {advice.mend}") for *_, advice in TABLE]
    count = 0
    for where, text in texts:
        for key in KEY.findall(text):
            path, _, name = key.replace("[]", "").rpartition(".")
            if key.endswith((".yaml", ".md")):
                continue
            count += 1
            assert path in known, f"{where}: {key}"
            assert name in known[path].model_fields, f"{where}: {key}"
    assert count > 50


def test_metrics_are_there() -> None:
    known = {name for metric in METRICS for name in (metric.name, metric.series)}
    found = [
        (ids(page), name)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for text in code(page)
        for name in METRIC.findall(text)
    ]
    assert found
    for where, name in found:
        assert re.sub(r"_(bucket|count|sum)$", "", name) in known, f"{where}: {name}"
