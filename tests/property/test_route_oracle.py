"""The compiled routing table against a slow one in plain Python, written from the rules alone."""

import itertools
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from _fastpath.route import RouteTable, Target

Route = tuple[str, str, Target]
ESCAPE = re.compile(rb"%([0-9a-fA-F]{2})")
# Stand-ins for characters that were escaped and do not act as what they are.
KEPT_SLASH, KEPT_BACKSLASH, KEPT_DOT = b"\x01", b"\x02", b"\x03"


def host_name(host: str) -> str:
    if host.startswith("["):
        return host[: host.find("]") + 1].lower() if "]" in host else host.lower()
    return re.sub(r":[0-9]*$", "", host).removesuffix(".").lower()


def host_classes(routes: list[Route], host: str) -> list[dict[tuple[bytes, ...], Target]]:
    """The prefixes of each host class that `host` belongs to, the most specific first."""
    name = host_name(host)
    classes = [name] if name else []
    labels = name.split(".")
    classes += ["*." + ".".join(labels[i:]) for i in range(1, len(labels)) if ".".join(labels[:i])]
    classes.append("")
    found = []
    for wanted in classes:
        prefixes = {}
        for pattern, path, target in routes:
            if pattern == wanted:
                prefixes[tuple(path.encode().split(b"/")[1:] if path != "/" else [])] = target
        found.append(prefixes)
    return found


def decode(path: bytes) -> bytes:
    return ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), path)


def decode_keeping(path: bytes, *, separators: bool, dots: bool) -> bytes:
    def one(match: re.Match[bytes]) -> bytes:
        character = bytes([int(match[1], 16)])
        if not separators:
            character = character.replace(b"/", KEPT_SLASH).replace(b"\\", KEPT_BACKSLASH)
        return character if dots else character.replace(b".", KEPT_DOT)

    return ESCAPE.sub(one, path)


def segments(
    path: bytes, *, backslash: bool, parameters: bool, resolve: bool, merge: bool
) -> tuple[bytes, ...]:
    parts = re.split(rb"[/\\]" if backslash else rb"/", path)[1:]
    if parameters:
        parts = [part.partition(b";")[0] for part in parts]
    out: list[bytes] = []
    for part in parts:
        if merge and not part:
            continue
        if resolve and part == b".":
            continue
        if resolve and part == b"..":
            del out[-1:]
            continue
        out.append(part.replace(KEPT_DOT, b"."))
    return tuple(out)


def all_readings(path: bytes) -> set[tuple[bytes, ...]]:
    if not path.startswith(b"/"):
        return {()}
    decoded = {decode(decode(path))}
    for separators, dots in itertools.product((False, True), repeat=2):
        decoded.add(decode_keeping(path, separators=separators, dots=dots))
    found = set()
    for text in decoded:
        for backslash, parameters, resolve, merge in itertools.product((False, True), repeat=4):
            found.add(
                segments(text, backslash=backslash, parameters=parameters, resolve=resolve, merge=merge)
            )
    return found


def longest_prefix(classes: list[dict[tuple[bytes, ...], Target]], path: tuple[bytes, ...]) -> Target | None:
    for prefixes in classes:
        for size in range(len(path), -1, -1):
            if path[:size] in prefixes:
                return prefixes[path[:size]]
    return None


def expected(routes: list[Route], host: str, path: bytes) -> set[Target | None]:
    """Where the readings of a path lead: one element, or it is ambiguous."""
    classes = host_classes(routes, host)
    return {longest_prefix(classes, reading) for reading in all_readings(path)}


labels = st.sampled_from(["a", "b", "example", "com", "aa", "long-label-of-20-bytes"])
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
patterns = st.one_of(st.just(""), names, names.map("*.{}".format), st.just("[::1]"))
words = st.sampled_from(["a", "b", "ab", "abc", "v1.0", "a-much-longer-segment", "x"])
prefixes = st.lists(words, max_size=3).map(lambda parts: "/" + "/".join(parts))
hosts = st.one_of(
    st.tuples(names, st.sampled_from(["", ".", ":80", ".:80", ":", ".."])).map("".join),
    names.map(str.upper),
    st.sampled_from(["", "[::1]", "[::1]:80", "[::1", ".com", "..", "a..com", ":", "80:80", "::1"]),
)
plain = st.lists(st.one_of(words, st.just("")), max_size=4).map(lambda parts: "/" + "/".join(parts))
pieces = [
    *(
        "a",
        "b",
        "ab",
        "x",
        "/",
        "/",
        "/",
        ".",
        "..",
        "/..",
        "\\",
        ";",
        "%2e",
        "%2F",
        "%2f",
        "%5c",
        "%61",
        "%62",
    ),
    *(
        "%252e",
        "%252f",
        "%255c",
        "%25",
        "%2",
        "%",
        "%3b",
        "%253b",
        "v1",
        "0",
        "a-much-longer-segment",
        "%2%65",
    ),
]
tricky = st.lists(st.sampled_from(pieces), max_size=9).map(lambda parts: "/" + "".join(parts))
paths = st.one_of(plain, tricky, st.sampled_from(["", "*"]))


@settings(max_examples=400)
@given(
    st.dictionaries(st.tuples(patterns, prefixes), st.integers(0, 4), max_size=12),
    st.lists(st.tuples(hosts, paths), min_size=1, max_size=8),
)
def test_same_answers_as_the_oracle(
    routes: dict[tuple[str, str], int], requests: list[tuple[str, str]]
) -> None:
    targets = [Target(str(number)) for number in range(5)]
    entries = [(host, path, targets[number]) for (host, path), number in routes.items()]
    table = RouteTable(entries)
    for host, path in requests:
        wanted = expected(entries, host, path.encode())
        try:
            found = {table.lookup(host.encode(), path.encode())}
        except ValueError:
            assert len(wanted) > 1, (host, path)
        else:
            assert found == wanted, (host, path)


@given(
    st.dictionaries(st.text(min_size=1, max_size=20), st.integers(0, 4), max_size=20), st.text(max_size=20)
)
def test_names_are_found_exactly(names: dict[str, int], other: str) -> None:
    names = {name: number for name, number in names.items() if name.isprintable()}
    targets = {name: Target(str(number)) for name, number in names.items()}
    table = RouteTable([], targets)
    for name, target in targets.items():
        assert table.lookup_name(name.encode()) is target
    if other.isprintable():
        assert table.lookup_name(other.encode()) is targets.get(other)


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_any_bytes_are_answered(host: bytes, path: bytes) -> None:
    target = Target("all")
    table = RouteTable([("", "/", target), ("*.a", "/b", target)])
    assert table.lookup(host, path) is target
