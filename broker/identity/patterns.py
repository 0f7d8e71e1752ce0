"""What agents call their services, and whether a right covers it.

Announcements come from strangers until proven otherwise. They are read by the rules of the routing
table itself, so that two spellings of one service are equal, and what is taken can be routed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from _fastpath.route import normal_host, normal_path
from broker.config.model import Match, Rights

MAX_HOST = 255
MAX_PATH = 1024
SERVER_PREFIX = "tls/"  # of the names of services that are chosen by their server name

MAX_SERVER_NAME = 253

_SERVER_NAME = re.compile(r"\*|(?:\*\.)?[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,126}[A-Za-z0-9])?")


def parse_match(text: str) -> Match:
    """`[HOST][/PATH]` in canonical form; "" means everything. ValueError with a clause that says why not."""
    host, slash, path = text.partition("/")
    if len(host) > MAX_HOST or len(path) >= MAX_PATH:
        raise ValueError(f"at most {MAX_HOST} characters of host and {MAX_PATH} of path")
    if not text.isprintable() or not text.isascii():
        raise ValueError("host and path must be printable ASCII")
    return Match(host=normal_host(host), path=normal_path(slash + path))


def parse_name(text: str) -> Match:
    """The name of a tcp service. ValueError as above."""
    if not _NAME.fullmatch(text):
        raise ValueError("a tcp service's name is 1 to 128 letters, digits, dots, dashes and underscores")
    return Match(name=text)


def parse_server_name(text: str) -> Match:
    """The server name of TLS clients, `*.HOST` or `*`. ValueError as above."""
    if not _SERVER_NAME.fullmatch(text) or len(text) > MAX_SERVER_NAME:
        raise ValueError("a server name is labels of lower-case letters, digits, dashes and underscores")
    return Match(name=SERVER_PREFIX + text)


def covers(granted: Match, asked: Match) -> bool:
    """Every request that `asked` matches is matched by `granted` too. Both are http patterns."""
    return _host_covers(granted.host, asked.host) and _path_covers(granted.path, asked.path)


def may_announce(rights: Rights, asked: Match) -> bool:
    if asked.name.startswith(SERVER_PREFIX):
        asked_host = asked.name.removeprefix(SERVER_PREFIX)
        return any(_server_covers(granted, asked_host) for granted in rights.tls)
    if asked.name:
        return "*" in rights.tcp or asked.name in rights.tcp
    return any(covers(granted, asked) for granted in rights.services)


def may_split(rights: Rights, asked: Match, held: Match) -> bool:
    """Whether a right covers `asked` that was given inside of `held`, which another user has.

    Whoever grants a part of what somebody has means it so. A right as wide as `held`, or wider, grants no
    part of it: with that anybody could take the paths of a service one by one.
    """
    if asked.name:
        asked_host, held_host = (each.name.removeprefix(SERVER_PREFIX) for each in (asked, held))
        return any(
            granted != held_host
            and _server_covers(held_host, granted)
            and _server_covers(granted, asked_host)
            for granted in rights.tls
        )
    return any(
        granted != held and covers(held, granted) and covers(granted, asked) for granted in rights.services
    )


def wider_hosts(host: str) -> Iterator[str]:
    """The host, and all host patterns that cover it, the narrowest first."""
    yield host
    rest = host.removeprefix("*.")
    while "." in rest and not rest.startswith("["):
        rest = rest.partition(".")[2]
        yield "*." + rest
    if host:
        yield ""


def wider_paths(path: str) -> Iterator[str]:
    """The path, and all prefixes that cover it, the narrowest first."""
    while path != "/":
        yield path
        path = path.rpartition("/")[0] or "/"
    yield "/"


def _server_covers(granted: str, asked: str) -> bool:
    return granted == "*" or (asked != "*" and _host_covers(granted, asked))


def _host_covers(granted: str, asked: str) -> bool:
    if not granted:
        return True
    if granted.startswith("*."):
        # "*.b" covers itself and every longer name below b, wildcards included.
        return asked == granted or asked.endswith(granted[1:])
    return granted == asked


def _path_covers(granted: str, asked: str) -> bool:
    return granted == "/" or asked == granted or asked.startswith(granted + "/")
