"""Sizes, durations, URLs, matches and SPECs."""

import pytest

from broker.config import values
from broker.config.model import GIB, KIB, MIB, Match, Upstream


def refused(parse, value: object) -> str:
    with pytest.raises(ValueError, match=r"\w") as caught:
        parse(value)
    assert type(caught.value) is ValueError
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (65536, 65536),
        ("17", 17),
        ("1B", 1),
        ("64KiB", 64 * KIB),
        ("64 KiB", 64 * KIB),
        ("1.5MiB", 3 * MIB // 2),
        ("1GiB", GIB),
        ("2TiB", 2048 * GIB),
        (1.0, 1),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "KiB",
        "-1",
        -1,
        "1e3",
        "64KB",
        "64K",
        "64kib",
        "0.5B",
        1.5,
        "1_000",
        "1,5KiB",
        None,
        True,
        [],
        "\N{ARABIC-INDIC DIGIT ONE}",
    ],
)
def test_no_sizes(text: object) -> None:
    refused(values.parse_size, text)


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        (10, 10_000),
        (0.5, 500),
        ("10", 10_000),
        ("10s", 10_000),
        ("500ms", 500),
        ("2m", 120_000),
        ("1.5h", 5_400_000),
        (0, 0),
    ],
)
def test_durations(text: object, milliseconds: int) -> None:
    assert values.parse_duration(text) == milliseconds


@pytest.mark.parametrize(
    "text", ["", "s", "-1s", "1d", "1min", "0.5ms", 0.0001, float("inf"), float("nan"), None, False]
)
def test_no_durations(text: object) -> None:
    refused(values.parse_duration, text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(None, "none"), (0, "0"), (1, "1"), (1023, "1023"), (1024, "1KiB"), (1536, "1536"), (GIB, "1GiB")],
)
def test_sizes_as_texts(size: int | None, text: str) -> None:
    assert values.format_size(size) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (None, "none"),
        (0, "0"),
        (1, "1ms"),
        (1500, "1500ms"),
        (10_000, "10"),
        (60_000, "1m"),
        (7_200_000, "2h"),
    ],
)
def test_durations_as_texts(milliseconds: int | None, text: str) -> None:
    assert values.format_duration(milliseconds) == text


@pytest.mark.parametrize(
    ("text", "url", "service"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080", None),
        ("HTTP://LOCALHOST:8080/", "http://localhost:8080", None),
        ("http://0.0.0.0", "http://0.0.0.0:80", None),
        ("http://[::]:0", "http://[::]:0", None),
        ("http://[0:0::1]:80", "http://[::1]:80", None),
        ("http://a.example.com.:1", "http://a.example.com:1", None),
        ("tcp://127.0.0.1:5432/db", "tcp://127.0.0.1:5432", "db"),
    ],
)
def test_external_urls(text: str, url: str, service: str | None) -> None:
    found = values.parse_external(text)
    assert (found.url, found.service) == (url, service)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http:",
        "http://",
        "http://:80",
        "http://*:80",
        "http://a:b:c",
        "http://[::1",
        "http://[::1]x",
        "http://[::1]:x",
        "http://1.2.3:80",
        "http://1.2.3.4:99999",
        "http://1.2.3.4:+1",
        "http://1.2.3.4:80#a",
        "http://-a:80",
        "http://a-:80",
        "http://" + "a" * 64 + ":80",
        "http://" + "a." * 127 + "b:80",
        "http://a b:80",
        "http://u@a:80",
        "tcp://a/x",
        "tcp://a:1/",
        "tcp://a:1/..",
        "unix:/x",
        7,
    ],
)
def test_no_external_urls(text: object) -> None:
    refused(values.parse_external, text)


@pytest.mark.parametrize("parse", [values.parse_registration, values.parse_admin, values.parse_dial])
def test_other_urls(parse) -> None:
    assert parse("http://127.0.0.1:7000/").url == "http://127.0.0.1:7000"
    assert "must not have a path" in refused(parse, "http://127.0.0.1:7000/tunnel")


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("/", Match()),
        ("example.com", Match(host="example.com")),
        ("Example.COM./", Match(host="example.com")),
        ("*.example.com/x", Match(host="*.example.com", path="/x")),
        ("/x/y/", Match(path="/x/y")),
        ("[::1]/x", Match(host="[::1]", path="/x")),
        ("127.0.0.1", Match(host="127.0.0.1")),
        ("my_host", Match(host="my_host")),
        ("/%7euser/%C3%A9", Match(path="/~user/%C3%A9")),
        ("/a:b@c", Match(path="/a:b@c")),
    ],
)
def test_matches(text: str, match: Match) -> None:
    assert values.parse_match(text) == match


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://a",
        "a:80",
        "*",
        "*a.b",
        "a.*",
        "*.",
        "a//b",
        "/a//b",
        "/./a",
        "/..",
        "/a;b",
        "/a%2fb",
        "/a%00",
        "/a%",
        "/a%zz",
        "/é",
        "/a b",
        "/a?b",
        "/a#b",
        "/a\\b",
        "/*",
        "bücher.example",
        "/" + "a" * 256,
        None,
        5,
    ],
)
def test_no_matches(text: object) -> None:
    refused(values.parse_match, text)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("*", Match()),
        ("/*", Match()),
        ("/", Match()),
        ("a.example.com/*", Match(host="a.example.com")),
        ("a.example.com/x/*", Match(host="a.example.com", path="/x")),
        ("*.example.com", Match(host="*.example.com")),
        ("*.example.com/x", Match(host="*.example.com", path="/x")),
    ],
)
def test_rights(text: str, match: Match) -> None:
    assert values.parse_right(text) == match


@pytest.mark.parametrize("text", ["", "**", "a/x*", "a/*/b", "a*"])
def test_no_rights(text: str) -> None:
    refused(values.parse_right, text)


LOCAL = Upstream(scheme="http", host="127.0.0.1", port=9000)


@pytest.mark.parametrize(
    ("text", "match", "upstream"),
    [
        ("http://127.0.0.1:9000", Match(), LOCAL),
        ("http://127.0.0.1", Match(), Upstream(scheme="http", host="127.0.0.1", port=80)),
        ("=http://127.0.0.1:9000", Match(), LOCAL),
        ("/=http://127.0.0.1:9000", Match(), LOCAL),
        ("a.example.com=http://127.0.0.1:9000", Match(host="a.example.com"), LOCAL),
        ("*.a/x=http://127.0.0.1:9000", Match(host="*.a", path="/x"), LOCAL),
        ("/a=b=http://127.0.0.1:9000", Match(path="/a=b"), LOCAL),
        ("/x=http://[::1]:9000/", Match(path="/x"), Upstream(scheme="http", host="::1", port=9000)),
        ("unix:/run/a=b.sock", Match(), Upstream(scheme="http", path="/run/a=b.sock")),
        ("/x=unix:run/app.sock", Match(path="/x"), Upstream(scheme="http", path="run/app.sock")),
        (
            "db=tcp://db.internal:5432",
            Match(name="db"),
            Upstream(scheme="tcp", host="db.internal", port=5432),
        ),
        (
            "*.apps.example=tls://10.0.0.7",
            Match(name="tls/*.apps.example"),
            Upstream(scheme="tls", host="10.0.0.7", port=443),
        ),
        ("*=tls://h:8443", Match(name="tls/*"), Upstream(scheme="tls", host="h", port=8443)),
        ("a.example=https://h", Match(host="a.example"), Upstream(scheme="https", host="h", port=443)),
    ],
)
def test_specs(text: str, match: Match, upstream: Upstream) -> None:
    assert values.parse_spec(text) == (match, upstream)
    assert values.parse_spec(values.format_spec(match, upstream)) == (match, upstream)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "=",
        "a.example.com",
        "a=b",
        "a=127.0.0.1:9000",
        "tcp://127.0.0.1:1",
        "=tcp://127.0.0.1:1",
        "a/b=tcp://a:1",
        "db=tcp://127.0.0.1",
        "a=http://",
        "a=unix:",
        "a=http://b/c",
        "a=ftp://b",
    ],
)
def test_no_specs(text: str) -> None:
    refused(values.parse_spec, text)


def test_names() -> None:
    assert values.parse_name("a.b-c_D9") == "a.b-c_D9"
    for text in ("", "a b", "-a", "a/b", "é", "a" * 65, "a\n", None):
        refused(values.parse_name, text)
    assert values.parse_user_name("orders+team@example.com") == "orders+team@example.com"
    for text in ("", "@a", "a/b", "a" * 129, 1):
        refused(values.parse_user_name, text)
