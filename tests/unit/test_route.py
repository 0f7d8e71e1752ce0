"""The routing table, case by case. tests/property/test_route_oracle.py compares it with a slow one."""

import gc
import sys

import pytest

from _fastpath.route import RouteTable, Target, normal_host, normal_path


def table(*patterns: str, names: tuple[str, ...] = ()) -> RouteTable:
    """A table whose targets are named like their patterns."""
    entries = []
    for pattern in patterns:
        host, _, path = pattern.partition("/")
        entries.append((host, "/" + path if path else "", Target(pattern)))
    return RouteTable(entries, {name: Target(name) for name in names})


def name_of(target: Target | None) -> str | None:
    return target.name if target is not None else None


def test_target_is_a_base_class() -> None:
    class Service(Target):
        pass

    service = Service("orders", True)
    assert (service.name, service.is_service) == ("orders", True)
    assert Target("x").is_service is False
    assert repr(Target("x")) == "<Target x>"
    with pytest.raises(AttributeError):
        service.name = "other"  # type: ignore[misc]


def test_empty_table_finds_nothing() -> None:
    routes = RouteTable([])
    assert routes.lookup(b"a", b"/") is None
    assert routes.lookup(b"", b"") is None
    assert routes.lookup_name(b"") is None
    assert routes.patterns() == []
    assert routes.names == {}


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (b"a.example.com", "a.example.com"),
        (b"A.EXAMPLE.com", "a.example.com"),
        (b"a.example.com:8080", "a.example.com"),
        (b"a.example.com.", "a.example.com"),
        (b"a.example.com.:80", "a.example.com"),
        (b"a.example.com:", "a.example.com"),
        (b"a.example.com..", "/"),
        (b"b.example.com", "*.example.com"),
        (b"c.b.example.com", "*.example.com"),
        (b"x.deep.example.com", "*.deep.example.com"),
        (b"x.y.deep.example.com", "*.deep.example.com"),
        (b"deep.example.com", "*.example.com"),
        (b"example.com", "/"),
        (b".example.com", "/"),
        (b"badexample.com", "/"),
        (b"[::1]", "[::1]"),
        (b"[::1]:80", "[::1]"),
        (b"[::2]:80", "/"),
        (b"[::1", "/"),
        (b"127.0.0.1", "127.0.0.1"),
        (b"127.0.0.1:99", "127.0.0.1"),
        (b"", "/"),
        (b":80", "/"),
        (b"." * 300, "/"),
        (b"a." * 126 + b"example.com", "/"),
        (b"a." * 121 + b"example.com", "*.example.com"),
    ],
)
def test_host_classes(host: bytes, expected: str) -> None:
    patterns = ["a.example.com", "*.example.com", "*.deep.example.com", "[::1]", "127.0.0.1", "/"]
    assert name_of(table(*patterns).lookup(host, b"/x")) == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (b"/", "/"),
        (b"", "/"),
        (b"*", "/"),
        (b"/a", "/a"),
        (b"/a/", "/a"),
        (b"/ab", "/"),
        (b"/A", "/"),
        (b"/a/x", "/a"),
        (b"/a/b", "/a/b"),
        (b"/a/b/", "/a/b"),
        (b"/a/bc", "/a"),
        (b"/a/b/c/d", "/a/b/c"),
        (b"/x/a/b", "/"),
        (b"/" + b"a" * 5000, "/"),
        (b"/%61", "/a"),
        (b"/caf%C3%A9/x", "/caf\u00e9"),
        (b"/caf%c3%a9", "/caf\u00e9"),
        (b"/.well-known/x", "/"),
        (b"/v1.0/x", "/v1.0"),
        (b"/v1%2e0/x", "/v1.0"),
    ],
)
def test_longest_prefix_on_segment_boundaries(path: bytes, expected: str) -> None:
    patterns = ["/", "/a", "/a/b", "/a/b/c", "/caf\u00e9", "/v1.0"]
    assert name_of(table(*patterns).lookup(b"any", path)) == expected


def test_host_class_without_a_matching_prefix_is_passed_over() -> None:
    routes = table("a.example.com/x", "*.example.com/y", "*.com/z", "/w")
    for path in "xyzw":
        found = name_of(routes.lookup(b"a.example.com", b"/" + path.encode()))
        assert found is not None
        assert found.endswith("/" + path)
    assert routes.lookup(b"a.example.com", b"/") is None
    assert routes.lookup(b"b.example.com", b"/x") is None


@pytest.mark.parametrize(
    "path",
    [
        b"/a/../b",
        b"/a/%2e%2e/b",
        b"/a/.%2E/b",
        b"/a/%252e%252e/b",
        b"/a/%25%32%65./b",
        b"/x/../a",
        b"/./a",
        b"//a",
        b"/%2fa",
        b"/\\a",
        b"/%5ca",
        b"/x/..\\a",
        b"/x\\..\\a",
        b"/x/..%2fa",
        b"/x/..%255ca",
        b"/x/..;/a",
        b"/x/..;%41/a",
        b"/a;v=1",
        b"/a%3bv=1",
        b"/a/..",
        b"/a%2f..",
        b"/;x/a",
        b"/../a",
    ],
)
def test_ambiguous_paths_are_refused(path: bytes) -> None:
    with pytest.raises(ValueError, match="more than one way"):
        table("/", "/a", "/b").lookup(b"any", path)


@pytest.mark.parametrize(
    "path",
    [
        b"/a/../b",
        b"//a",
        b"/\\a",
        b"/a/b/../c;x=1",
        b"/a/%2e%2e/a",
        b"/%252e%252e/" * 40,
    ],
)
def test_where_all_readings_agree_nothing_is_refused(path: bytes) -> None:
    assert name_of(table("/").lookup(b"any", path)) == "/"
    assert name_of(table("/", "/z").lookup(b"any", path)) == "/"
    same = Target("same")
    assert RouteTable([("", "/", same), ("", "/a", same), ("", "/b", same)]).lookup(b"any", path) is same


@pytest.mark.parametrize(
    "path", [b"/a/x/../y", b"/a/./b", b"/a//b", b"/a/x\\y", b"/a/%2e/y", b"/a/b;x/..", b"/a/x%2f"]
)
def test_tricks_below_a_prefix_lead_nowhere_else(path: bytes) -> None:
    assert name_of(table("/", "/a").lookup(b"any", path)) == "/a"


def test_long_paths_full_of_tricks_are_refused_unread() -> None:
    routes = table("/", "/a")
    assert name_of(routes.lookup(b"any", b"/x" + b"/%2e;" * 1000)) == "/"
    with pytest.raises(ValueError, match="more than one way"):
        routes.lookup(b"any", b"/x" + b"/y/%252e%252e;" * 500)


def test_names() -> None:
    routes = table("/", names=("redis", "datenbank-\u00e4"))
    assert name_of(routes.lookup_name(b"redis")) == "redis"
    assert name_of(routes.lookup_name("datenbank-\u00e4".encode())) == "datenbank-\u00e4"
    assert routes.lookup_name(b"Redis") is None
    assert routes.lookup_name(b"redi") is None
    assert routes.lookup_name(b"") is None
    assert set(routes.names) == {"redis", "datenbank-\u00e4"}


def test_patterns_are_normalised() -> None:
    target = Target("t")
    routes = RouteTable([("A.Example.COM.", "/x/", target), ("", "", target), ("*.b", "/caf\u00e9", target)])
    assert routes.patterns() == [
        ("a.example.com", "/x", target),
        ("", "/", target),
        ("*.b", "/caf%C3%A9", target),
    ]


@pytest.mark.parametrize(
    "host",
    [
        "*",
        "*.",
        "a.*.b",
        "a*",
        "a b",
        "a/b",
        "a:80",
        "::1",
        "a..b",
        ".a",
        "\u00e4.de",
        "x" * 254,
        "[::1",
        "*.[::1]",
    ],
)
def test_host_patterns_that_never_match_are_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"host"):
        normal_host(host)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "a",
            "*",
            "/a?b",
            "/a#b",
            "/a;b",
            "/a\\b",
            "/a b",
            "/a//b",
            "//",
            "/a/..",
            "/./a",
            "/%2e/a",
            "/a%2fb",
        ),
        *("/a%5Cb", "/a%", "/a%g0", "/a%00", "/" + "a" * 257),
    ],
)
def test_path_prefixes_with_several_readings_are_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a path prefix"):
        normal_path(path)


def test_duplicates_and_strangers_are_refused() -> None:
    target = Target("t")
    with pytest.raises(ValueError, match="two routes"):
        RouteTable([("a", "/x", target), ("A.", "/x/", target)])
    with pytest.raises(TypeError):
        RouteTable([("a", "/x", "target")])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        RouteTable([], {"redis": None})  # type: ignore[dict-item]


def test_table_keeps_its_targets_alive_and_no_longer() -> None:
    target = Target("t")
    before = sys.getrefcount(target)
    routes = RouteTable([("a", "/x", target), ("", "/", target)], {"redis": target})
    held = sys.getrefcount(target) - before
    assert held > 0
    for _ in range(1000):
        assert routes.lookup(b"a", b"/x") is target
        assert routes.lookup_name(b"redis") is target
    assert sys.getrefcount(target) == before + held
    del routes
    gc.collect()
    assert sys.getrefcount(target) == before


def test_thousands_of_routes() -> None:
    hosts = {f"h{i}.example.com": Target(f"h{i}") for i in range(3000)}
    paths = {f"/p{i}/q": Target(f"p{i}") for i in range(3000)}
    entries = [(host, "", target) for host, target in hosts.items()]
    routes = RouteTable(entries + [("", path, target) for path, target in paths.items()])
    assert all(routes.lookup(host.encode(), b"/p1/q") is target for host, target in hosts.items())
    assert all(routes.lookup(b"x", path.encode() + b"/r") is target for path, target in paths.items())
    assert routes.lookup(b"h3000.example.com", b"/p3000/q") is None
