"""docs/configuration.md describes every key as the schema has it, and the sample files work."""

import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from broker.config import Flags, load
from broker.config.schema import FileSection, Section, Written
from broker.config.validate import inner_section

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "configuration.md").read_text()
EXAMPLES = sorted((DOCS / "examples").glob("*.yaml"))


def sections() -> Iterator[tuple[str, type[Section]]]:
    """Every section once, with the title that it has in the document."""
    seen: set[type[Section]] = set()

    def walk(title: str, section: type[Section]) -> Iterator[tuple[str, type[Section]]]:
        if section in seen:
            return
        seen.add(section)
        yield title, section
        for name, field in section.model_fields.items():
            inner = inner_section(field.annotation)
            if inner:
                shared = name in ("limits", "timeouts")  # one description for all places
                yield from walk(name if shared or not title else f"{title}.{name}", inner)

    yield from walk("", FileSection)


def how_written(annotation: Any, metadata: list[Any]) -> Written | None:
    """The Written of X or list[X], in the field's own metadata or inside its annotation."""
    found = next((each for each in metadata if isinstance(each, Written)), None)
    for each in typing.get_args(annotation):
        found = found or how_written(each, getattr(each, "__metadata__", []))
    return found


def row(field: FieldInfo) -> tuple[str, str, str]:
    """Type, default and range as the document must have them."""
    written = how_written(field.annotation, field.metadata)
    is_list = typing.get_origin(field.annotation) is list
    assert written or inner_section(field.annotation)
    kind = f"{'list of ' if is_list else ''}{written.kind}" if written else "list" if is_list else "mapping"
    if field.is_required():
        default = "required"
    elif written and not is_list and (field.default is not None or written.none):
        default = "none" if field.default is None else written.show(field.default)
    else:
        default = ""
    return kind, default, written.range if written and not is_list else ""


def documented(title: str) -> dict[str, list[str]]:
    """Per key the other cells of its row, in the part of the document with this title."""
    part = re.search(rf"^##+ `{re.escape(title)}`$(.*?)(?=^##|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert part, f"docs/configuration.md has no part `{title}`"
    rows = re.findall(r"^\| `(\w+)` \|(.*)\|$", part[1], re.MULTILINE)
    return {key: [cell.strip().strip("`") for cell in cells.split("|")] for key, cells in rows}


@pytest.mark.parametrize(("title", "section"), list(sections())[1:], ids=lambda each: str(each))
def test_every_key_is_documented(title: str, section: type[Section]) -> None:
    found = documented(title)
    assert set(found) == set(section.model_fields)
    for name, field in section.model_fields.items():
        kind, default, span, meaning = found[name]
        assert (kind, default, span) == row(field), f"{title}.{name}"
        assert len(meaning) > 10, f"{title}.{name} has no meaning"


def test_every_section_is_documented() -> None:
    titles = [title for title, _ in sections()][1:]
    for name in set(FileSection.model_fields) - set(titles):  # a plain value, with a part of its own
        kind, default, span, meaning = documented(name)[name]
        assert (kind, default, span) == row(FileSection.model_fields[name])
        assert len(meaning) > 10
        titles.append(name)
    assert set(re.findall(r"^##+ `([\w.]+)`$", TEXT, re.MULTILINE)) == set(titles)


def test_there_are_examples() -> None:
    assert {path.stem for path in EXAMPLES} >= {"dmz", "green"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_load(path: Path, tmp_path: Path) -> None:
    """With a token file beside them, which nobody would keep in a repository."""
    copy = tmp_path / path.name
    copy.write_text(path.read_text())
    for entry in yaml.safe_load(path.read_text()).get("connect", []):
        if "token_file" in entry:
            token = tmp_path / entry["token_file"]
            token.write_text("a-token-for-the-tests-0006\n")
            token.chmod(0o600)
    assert load(copy, Flags()).warnings == ()
    assert path.name in TEXT


def test_the_snippets_of_the_document_load(tmp_path: Path) -> None:
    snippets = re.findall(r"```yaml\n(.*?)```", TEXT, re.DOTALL)
    assert snippets
    for number, snippet in enumerate(snippets):
        path = tmp_path / f"{number}.yaml"
        path.write_text(snippet)
        (tmp_path / "orders.token").write_text("a-token-for-the-tests-0007\n")
        load(path, Flags(defaults="serve"))
