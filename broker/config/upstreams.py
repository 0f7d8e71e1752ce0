"""How the upstreams of a service and their checks are written."""

from __future__ import annotations

import re
from dataclasses import replace

from broker.config.model import Upstream
from broker.config.values import parse_count, parse_upstream, text

MAX_WEIGHT = 1000
MAX_PATH = 2048

_PATH = re.compile(r"/[!-~]*")
_STATUSES = re.compile(r"([1-5][0-9][0-9])(?:-([1-5][0-9][0-9]))?")


def parse_weighted(value: object) -> Upstream:
    """An upstream URL, or `{url: URL, weight: N}`."""
    if not isinstance(value, dict):
        return parse_upstream(value)
    unknown = [str(key) for key in value if key not in ("url", "weight")]
    if unknown or "url" not in value:
        raise ValueError("must be an upstream URL, or {url: URL, weight: N}")
    weight = parse_count(value.get("weight", 1))
    if not 1 <= weight <= MAX_WEIGHT:
        raise ValueError(f"has a weight that is not between 1 and {MAX_WEIGHT}: {weight}")
    return replace(parse_upstream(value["url"]), weight=weight)


def parse_request_path(value: object) -> str:
    given = text(value)
    if not _PATH.fullmatch(given) or len(given) > MAX_PATH:
        raise ValueError(
            f"must be a path such as /healthz, with {MAX_PATH} characters at most, not {given!r}"
        )
    return given


def parse_statuses(value: object) -> tuple[int, int]:
    """`200`, or `200-399`."""
    given = str(value) if type(value) is int else text(value)
    match = _STATUSES.fullmatch(given)
    if match is None:
        raise ValueError(f"must be a status or two with a dash between them, as in 200-399, not {given!r}")
    low, high = int(match[1]), int(match[2] or match[1])
    if low > high:
        raise ValueError(f"must name the lower status first, not {given!r}")
    return low, high


def format_statuses(value: tuple[int, int]) -> str:
    return f"{value[0]}-{value[1]}"
