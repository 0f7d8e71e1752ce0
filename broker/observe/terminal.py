"""Whether somebody looks at a stream, whether with colours (https://no-color.org), and what is going on."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def wants_colours(stream: Any) -> bool:
    """A terminal that has them, and nobody who has set NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


@contextmanager
def going_on(what: str, *, quiet: bool = False) -> Iterator[Callable[[str], None]]:
    """Show on standard error what is being done, until it is; call what this gives when it is another thing.

    What is written to standard output belongs between two of these. Nothing without a terminal.
    """
    if quiet or not is_terminal(sys.stderr):
        yield lambda _what: None
        return
    from rich.console import Console

    with Console(stderr=True, highlight=False).status(f"{what} …") as status:
        yield lambda now: status.update(f"{now} …")
