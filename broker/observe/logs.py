"""The application log, on standard error: lines for people in a terminal, JSON otherwise.

What strangers send can be part of a line; neither form lets a control character through. Where standard error
is the journal's socket, each line begins with its priority as sd-daemon(3) has it, so that `journalctl -p
warning` finds warnings; the journal removes it, and has times of its own.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from dataclasses import dataclass
from typing import Any, TextIO

from broker.observe.terminal import is_terminal, wants_colours

FORMATS = ("auto", "text", "json")
LEVELS = {"DEBUG": "debug", "INFO": "info", "WARNING": "warning", "ERROR": "error", "CRITICAL": "error"}
_COLOURS = {"DEBUG": "\x1b[2m", "WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[31m"}
_PLAIN = "\x1b[0m"
_PRIORITIES = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}
_CHATTY = ("aiohttp", "asyncio")  # of these only what is worth a warning


@dataclass(frozen=True, slots=True)
class LogOptions:
    """`format`: auto (text in a terminal, else json), text or json. `level`: the lowest that is written."""

    format: str = "auto"
    level: str = "info"


AS_USUAL = LogOptions()


def set_up(options: LogOptions = AS_USUAL, stream: TextIO | None = None) -> None:
    """Send everything that is logged to `stream` (standard error). Call once, before the node starts."""
    out = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(out)
    handler.setFormatter(_formatter(options, out))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(options.level.upper())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _formatter(options: LogOptions, stream: TextIO) -> logging.Formatter:
    journal = is_journal(stream)
    if options.format == "json" or (options.format == "auto" and not is_terminal(stream)):
        return JsonFormatter(prefixed=journal)
    return TextFormatter(colours=wants_colours(stream), dated=not is_terminal(stream), prefixed=journal)


def is_journal(stream: TextIO) -> bool:
    """Whether it is the journal's: the service manager tells device and inode in JOURNAL_STREAM."""
    device, _, inode = os.environ.get("JOURNAL_STREAM", "").partition(":")
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):  # no descriptor, or closed
        return False
    return (device, inode) == (str(found.st_dev), str(found.st_ino))


def printable(text: str) -> str:
    """Control characters as escapes; line ends too."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class TextFormatter(logging.Formatter):
    """`dated`: with the date and in UTC, for a file; `prefixed`: for the journal, without a time."""

    def __init__(self, *, colours: bool = False, dated: bool = False, prefixed: bool = False) -> None:
        super().__init__()
        self._colours = colours
        self._dated = dated
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        level = LEVELS.get(record.levelname, "info")
        lines = [printable(record.getMessage())]
        if record.exc_info:
            lines += map(printable, self.formatException(record.exc_info).splitlines())
        if self._prefixed:
            return "\n".join(_PRIORITIES[level] + line for line in lines)
        if self._colours and record.levelname in _COLOURS:
            level = f"{_COLOURS[record.levelname]}{level}{_PLAIN}"
        lines[0] = f"{self._clock(record.created)} {level} {lines[0]}"
        return "\n".join(lines)

    def _clock(self, seconds: float) -> str:
        return _timestamp(seconds) if self._dated else time.strftime("%H:%M:%S", time.localtime(seconds))


class JsonFormatter(logging.Formatter):
    """One object per line: time (UTC), level, logger, message, and what `extra={"fields": {...}}` gave."""

    def __init__(self, *, prefixed: bool = False) -> None:
        super().__init__()
        self._prefixed = prefixed

    def format(self, record: logging.LogRecord) -> str:
        level = LEVELS.get(record.levelname, "info")
        entry: dict[str, Any] = {
            "time": _timestamp(record.created),
            "level": level,
            "logger": record.name,
            "message": record.getMessage(),
        }
        entry |= getattr(record, "fields", {})
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        line = json.dumps(entry, ensure_ascii=True, default=str)
        return _PRIORITIES[level] + line if self._prefixed else line


def _timestamp(seconds: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return f"{whole}.{int(seconds % 1 * 1000):03d}Z"
