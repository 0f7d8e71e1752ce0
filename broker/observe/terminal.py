"""Whether somebody looks at a stream, and whether with colours (https://no-color.org)."""

from __future__ import annotations

import os
from typing import Any


def is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # none, or closed
        return False


def wants_colours(stream: Any) -> bool:
    """A terminal that has them, and nobody who has set NO_COLOR."""
    return is_terminal(stream) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
