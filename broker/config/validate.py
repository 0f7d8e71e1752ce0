"""The document against the schema: every error at once, in the file's own words.

What is wrong is left out, so that the rest can still be checked for sense.
"""

from __future__ import annotations

import copy
import difflib
import typing
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from broker.config.document import Document, KeyPath
from broker.config.schema import FileSection, Section
from broker.config.values import kind_of
from broker.errors import ConfigProblem

LIST_SECTIONS = ("external", "registration", "users", "services", "connect")


@dataclass(slots=True)
class Draft:
    """A configuration on its way: what could be understood, and what is wrong with the rest."""

    document: Document
    file: FileSection
    indexes: dict[str, list[int]]
    """Per list section: which place in the document each understood entry has."""
    incomplete: frozenset[str] = frozenset()
    """Sections of which something could not be understood: don't complain of what they lack."""
    problems: list[ConfigProblem] = field(default_factory=list)
    warnings: list[ConfigProblem] = field(default_factory=list)

    def path(self, section: str, entry: int, *rest: str | int) -> KeyPath:
        return (section, self.indexes[section][entry], *rest)

    def wrong(self, path: KeyPath, message: str) -> None:
        self.problems.append(self.document.problem(path, message))

    def warn(self, path: KeyPath, message: str) -> None:
        self.warnings.append(self.document.problem(path, message))


def validate(document: Document) -> Draft:
    root: Any = document.root
    problems = list(document.problems)
    dropped: set[KeyPath] = set()
    try:
        file = FileSection.model_validate(root)
    except ValidationError as failure:
        for error in failure.errors():
            problems.append(to_problem(document, error))
            path = tuple(error["loc"])
            dropped.add(path if error["type"] == "extra_forbidden" else entry_of(path))
        root = without(root, dropped)
        file = FileSection.model_validate(root)
    return Draft(
        document,
        file,
        {name: kept(document, name, dropped) for name in LIST_SECTIONS},
        frozenset(str(path[0]) for path in dropped),
        problems,
    )


def entry_of(path: KeyPath) -> KeyPath:
    """What has to go where this path is wrong: an entry of a list, a limit, or a section."""
    for place, part in enumerate(path[:-1]):
        if part in ("limits", "timeouts"):
            return path[: place + 2]
    return path[:2] if path[0] in LIST_SECTIONS else path[:1]


def without(root: dict[str, Any], dropped: set[KeyPath]) -> dict[str, Any]:
    out = copy.deepcopy(root)
    # The longest first, and the last of a list first: what is still to come keeps its place.
    for path in sorted(dropped, key=lambda each: (len(each), [str(p).zfill(9) for p in each]), reverse=True):
        target: Any = out
        for part in path[:-1]:
            target = target[part]
        del target[path[-1]]
    return out


def kept(document: Document, section: str, dropped: set[KeyPath]) -> list[int]:
    entries = document.root.get(section)
    if not isinstance(entries, list):
        return []
    return [index for index in range(len(entries)) if (section, index) not in dropped]


def to_problem(document: Document, error: Any) -> ConfigProblem:
    path: KeyPath = tuple(error["loc"])
    kind = error["type"]
    if kind == "extra_forbidden":
        return document.problem(path, unknown_key(path), of_key=True)
    if kind == "missing":
        return document.problem(path, "is missing")
    if kind == "value_error":
        return document.problem(path, str(error["ctx"]["error"]))
    # The value isn't repeated: it could be a secret in the wrong place.
    found = kind_of(error["input"])
    if kind == "list_type":
        return document.problem(path, f"must be a list, not {found}")
    if kind in ("model_type", "dict_type"):
        return document.problem(path, f"must be a mapping, not {found}")
    if kind == "too_short":
        return document.problem(path, "must not be an empty list")
    return document.problem(path, str(error["msg"]))


def unknown_key(path: KeyPath) -> str:
    key, section = str(path[-1]), section_at(path[:-1])
    near = difflib.get_close_matches(key, list(section.model_fields), n=1)
    if near:
        return f"is not a known key; did you mean {near[0]}?"
    return f"is not a known key; known here: {', '.join(sorted(section.model_fields))}"


def section_at(path: KeyPath) -> type[Section]:
    """The section that the path leads to."""
    section: type[Section] = FileSection
    for part in path:
        if isinstance(part, str):
            section = inner_section(section.model_fields[part].annotation) or section
    return section


def inner_section(annotation: Any) -> type[Section] | None:
    """The section in X, list[X] or X | None; None where it holds a plain value."""
    for each in (annotation, *typing.get_args(annotation)):
        if isinstance(each, type) and issubclass(each, Section):
            return each
    return None
