"""YAML as plain data, with the line and column of every key and value.

Only what a configuration needs: mappings with text keys, lists, texts, numbers, true and
false. Anchors and merge keys work; tags that would build objects don't exist. Words such
as `no` and `on`, and times such as 1:30, stay texts (as in YAML 1.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from broker.errors import ConfigError, ConfigProblem

MAX_FILE = 1 << 20
# Aliases let a small file stand for a huge document, or for one that contains itself.
MAX_VALUES = 50_000
MAX_DEPTH = 32

KeyPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from: a line of a file, or a flag of the command line."""

    file: Path | None
    line: int = 0
    column: int = 0
    flag: str = ""


@dataclass(slots=True)
class Document:
    """A tree of dicts, lists and scalars; per key path the origin of its key and of its value."""

    file: Path | None
    root: dict[str, Any] = field(default_factory=dict)
    keys: dict[KeyPath, Origin] = field(default_factory=dict)
    values: dict[KeyPath, Origin] = field(default_factory=dict)
    problems: list[ConfigProblem] = field(default_factory=list)

    def origin(self, path: KeyPath, *, of_key: bool = False) -> Origin:
        """Of this path, or of the nearest one around it that is known."""
        if of_key and path in self.keys:
            return self.keys[path]
        for size in range(len(path), -1, -1):
            found = self.values.get(path[:size])
            if found:
                return found
        return Origin(self.file)

    def problem(self, path: KeyPath, message: str, *, of_key: bool = False) -> ConfigProblem:
        while path and isinstance(path[-1], int) and path not in self.values:
            path = path[:-1]  # the validator made a list of a single value
        origin = self.origin(path, of_key=of_key)
        key = format_path(path) if not origin.flag else flag_and_key(origin.flag, path)
        return ConfigProblem(message, key, origin.file, origin.line, origin.column)


def format_path(path: KeyPath) -> str:
    """`services[0].upstream`"""
    out = ""
    for part in path:
        if isinstance(part, int):
            out += f"[{part}]"
        else:
            out += f".{part}" if out else part
    return out


def flag_and_key(flag: str, path: KeyPath) -> str:
    """The flag, and which key of it is meant where that isn't plain."""
    plain = len(path) < 3 or path[2] in ("listen", "url", "upstream", "tunnels", "token_file")
    return flag if plain else f"{flag}: {format_path(path[2:])}"


class Loader(yaml.SafeLoader):
    """Knows the plain scalars of YAML 1.2 and merge keys; everything else is a text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 (PyYAML's own protocol)


for tag, pattern, first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?", "-+0123456789."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(rf"(?:{pattern})\Z"), list(first))


class UnreadableError(Exception):
    """The document can't be understood; why is in its problems."""


def read_document(path: Path) -> Document:
    """The file's tree, with what is wrong in it that doesn't hide the rest (keys that stand twice).

    Raises ConfigError where it can't be read at all.
    """
    document = Document(path)
    try:
        root = compose(read_bounded(path))
        document.values[()] = Origin(path, 1, 1)
        if isinstance(root, yaml.MappingNode):
            document.root = TreeBuilder(document).build(root)
        elif root is not None:
            document.problems.append(
                document.problem((), "must be a mapping, with keys such as external and services")
            )
            raise UnreadableError
    except OSError as error:
        raise ConfigError([ConfigProblem(f"can't be read: {error.strerror}", file=path)]) from error
    except yaml.YAMLError as error:
        raise ConfigError([syntax_problem(path, error)]) from error
    except UnreadableError:
        raise ConfigError(document.problems) from None
    return document


def read_bounded(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise yaml.YAMLError(f"the file is larger than {MAX_FILE} bytes")
    return data


def compose(data: bytes) -> yaml.Node | None:
    loader = Loader(data)
    try:
        return loader.get_single_node()
    except RecursionError:
        raise yaml.YAMLError("nested too deeply") from None
    finally:
        loader.dispose()


def syntax_problem(path: Path, error: yaml.YAMLError) -> ConfigProblem:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        mark = error.problem_mark
        parts = [part for part in (error.context, error.problem) if part]
        return ConfigProblem("not valid YAML: " + ", ".join(parts), "", path, mark.line + 1, mark.column + 1)
    if isinstance(error, yaml.reader.ReaderError):
        return ConfigProblem(f"not valid YAML: {error.reason} at byte {error.position}", file=path)
    return ConfigProblem(f"not valid YAML: {error}", file=path)


class TreeBuilder:
    """Turns YAML nodes into plain values and notes where each stands."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.count = 0

    def build(self, root: yaml.MappingNode) -> dict[str, Any]:
        return self.mapping(root, ())

    def value(self, node: yaml.Node, path: KeyPath) -> Any:
        self.count += 1
        self.document.values[path] = self.at(node)
        if len(path) > MAX_DEPTH:
            self.report(node, path[:2], "is nested too deeply; does an anchor contain itself?")
            raise UnreadableError
        if self.count > MAX_VALUES:
            self.report(node, path, f"is one too many: a configuration has at most {MAX_VALUES} values")
            raise UnreadableError
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            self.check_tag(node, path, "seq")
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        return self.scalar(node, path)

    def mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        self.check_tag(node, path, "map")
        out: dict[str, Any] = {}
        own: dict[str, int] = {}
        for key_node, value_node, merged in self.pairs(node, path, set()):
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            inner = (*path, key) if isinstance(key, str) else path
            if not isinstance(key, str):
                self.report(key_node, path, "a key must be a plain text")
            elif merged and key in out:
                continue
            elif key in own:
                self.report(key_node, inner, f"stands twice; first in line {own[key]}")
            else:
                if not merged:
                    own[key] = key_node.start_mark.line + 1
                self.document.keys[inner] = self.at(key_node)
                out[key] = self.value(value_node, inner)
        return out

    def pairs(
        self, node: yaml.MappingNode, path: KeyPath, merging: set[int]
    ) -> Iterator[tuple[yaml.Node, yaml.Node, bool]]:
        """Own pairs first, then those of `<<`, which yield to own ones."""
        merges: list[yaml.Node] = []
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                merges.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
            else:
                yield key, value, bool(merging)
        for each in merges:
            if not isinstance(each, yaml.MappingNode) or id(each) in merging | {id(node)}:
                self.report(each, (*path, "<<"), "must be a mapping other than the one it stands in")
                continue
            yield from self.pairs(each, path, merging | {id(node)})

    def scalar(self, node: yaml.Node, path: KeyPath) -> Any:
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind == "bool":
            return node.value.lower() == "true"
        if kind == "null":
            return None
        try:
            if kind == "int":
                return int(node.value)
            if kind == "float":
                return float(node.value)
        except ValueError:
            pass
        if kind not in ("str", "merge"):
            self.report(node, path, f"the tag {node.tag} is not known here")
        return str(node.value)

    def check_tag(self, node: yaml.Node, path: KeyPath, kind: str) -> None:
        if node.tag != f"tag:yaml.org,2002:{kind}":
            self.report(node, path, f"the tag {node.tag} is not known here")

    def at(self, node: yaml.Node) -> Origin:
        return Origin(self.document.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def report(self, node: yaml.Node, path: KeyPath, message: str) -> None:
        origin = self.at(node)
        self.document.problems.append(
            ConfigProblem(message, format_path(path), origin.file, origin.line, origin.column)
        )
