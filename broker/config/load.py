"""From a file and the command line to a Config, or to every problem at once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from broker.config.check import check, check_effects
from broker.config.document import Document, read_document
from broker.config.flags import add_flags
from broker.config.model import Config, Flags
from broker.config.resolve import resolve
from broker.config.validate import validate
from broker.errors import ConfigError, ConfigProblem


def load(path: Path | None, flags: Flags = Flags()) -> Config:  # noqa: B008 (frozen)
    """Raises ConfigError. `path` None: the command line alone."""
    document = read_document(path) if path else Document(None)
    add_flags(document, flags)
    draft = validate(document)
    check_effects(draft)
    config = resolve(draft, path and path.absolute(), flags)
    check(draft, config)
    if draft.problems:
        raise ConfigError(in_order(draft.problems))
    return dataclasses.replace(config, warnings=tuple(str(each) for each in in_order(draft.warnings)))


def reload(config: Config) -> Config:
    """The same again: the file and the token files as they are now, with the same flags."""
    return load(config.source, config.flags)


def in_order(problems: list[ConfigProblem]) -> list[ConfigProblem]:
    """As in the file; what the command line said comes last."""
    return sorted(problems, key=lambda each: (each.file is None, each.line, each.column))
