"""Who is it, and what may he announce."""

import hashlib

import pytest

from _fastpath.route import RouteTable, Target
from broker.config.model import Match, Rights, User
from broker.identity.patterns import (
    covers,
    may_announce,
    may_split,
    parse_match,
    parse_name,
    parse_server_name,
    wider_hosts,
    wider_paths,
)
from broker.identity.users import ANONYMOUS, Principal, Users


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


ORDERS = User(
    name="orders", tokens=(digest("one"), digest("two")), rights=Rights(services=(Match(host="o.example"),))
)
STOCK = User(name="stock", tokens=(digest("three"),), rights=Rights(tcp=("redis",)))


# --- users --------------------------------------------------------------------------------------


def test_without_users_everybody_is_anonymous_and_may_do_everything():
    principal = Users().anonymous()
    assert principal is not None and principal.name == ANONYMOUS
    assert may_announce(principal.rights, Match())
    assert may_announce(principal.rights, Match(name="redis"))


@pytest.mark.parametrize(("token", "name"), [("one", "orders"), ("two", "orders"), ("three", "stock")])
def test_a_token_proves_its_user(token, name):
    principal = Users([ORDERS, STOCK]).by_token(token)
    assert principal is not None and principal.name == name


@pytest.mark.parametrize("token", [None, "", "four", "ONE", "\ud800"])
def test_other_tokens_prove_nothing(token):
    assert Users([ORDERS, STOCK]).by_token(token) is None


def test_an_empty_token_is_no_token_even_where_its_digest_is_listed():
    careless = User(name="careless", tokens=(digest(""),), rights=Rights())
    assert Users([careless]).by_token(None) is None


def test_a_reload_renews_or_ends_a_login():
    before = Users([ORDERS]).by_token("one")
    assert before is not None
    wider = User(name="orders", tokens=ORDERS.tokens, rights=Rights(services=(Match(),)))
    renewed = Users([wider]).renew(before)
    assert renewed is not None and renewed.rights == wider.rights
    rotated = User(name="orders", tokens=(digest("new"),), rights=ORDERS.rights)
    assert Users([rotated]).renew(before) is None
    assert Users([STOCK]).renew(before) is None
    assert Users().renew(before) is None
    anonymous = Users().anonymous()
    assert anonymous is not None
    assert Users().renew(anonymous) == anonymous
    assert Users([ORDERS]).renew(anonymous) is None


def test_a_principal_does_not_show_its_credential():
    assert "secret" not in repr(Principal("a", Rights(), b"secret"))


# --- rights -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("granted", "asked", "answer"),
    [
        ("", "", True),
        ("", "a.example/x", True),
        ("", "*.example", True),
        ("a.example", "a.example", True),
        ("a.example", "a.example/x", True),
        ("a.example", "b.example", False),
        ("a.example", "", False),
        ("a.example", "*.example", False),
        ("a.example", "x.a.example", False),
        ("*.example", "a.example", True),
        ("*.example", "b.a.example", True),
        ("*.example", "*.example", True),
        ("*.example", "*.a.example", True),
        ("*.example", "example", False),
        ("*.example", "badexample", False),
        ("*.a.example", "*.example", False),
        ("*.example", "", False),
        ("/api", "/api", True),
        ("/api", "/api/v1", True),
        ("/api", "/apis", False),
        ("/api", "/", False),
        ("/api", "a.example/api", True),
        ("a.example/api", "a.example", False),
        ("a.example/api", "/api", False),
    ],
)
def test_one_pattern_inside_another(granted, asked, answer):
    assert covers(parse_match(granted), parse_match(asked)) is answer


def test_what_covers_routes():
    """A request that the asked pattern matches is matched by the granted one: the routing table agrees."""
    texts = ["", "a.example", "*.example", "*.a.example", "/api", "a.example/api", "*.example/api/v1"]
    hosts = [b"a.example", b"b.a.example", b"example", b"x.example", b"other"]
    paths = [b"/", b"/api", b"/api/v1", b"/apis"]
    for granted in map(parse_match, texts):
        for asked in map(parse_match, texts):
            outer = RouteTable([(granted.host, granted.path, Target("granted"))])
            inner = RouteTable([(asked.host, asked.path, Target("asked"))])
            inside = all(
                outer.lookup(host, path) is not None
                for host in hosts
                for path in paths
                if inner.lookup(host, path) is not None
            )
            if covers(granted, asked):
                assert inside, (granted, asked)


def test_names_need_their_own_right():
    rights = Rights(services=(Match(),), tcp=("redis",))
    assert may_announce(rights, Match(name="redis"))
    assert not may_announce(rights, Match(name="postgres"))
    assert not may_announce(Rights(tcp=("*",)), Match(host="redis"))
    assert may_announce(Rights(tcp=("*",)), Match(name="anything"))
    assert not may_announce(Rights(), Match(host="a.example"))


@pytest.mark.parametrize(
    "text",
    [
        "a b",
        "a\n",
        "a/\x00",
        "a/b?c",
        "a/b#c",
        "/a//b",
        "/a/./b",
        "/%zz",
        "*",
        "a.*",
        "\u00e4.example",
        "x" * 300,
        "/" + "x" * 1100,
    ],
)
def test_texts_that_name_nothing(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_match(text)


@pytest.mark.parametrize("text", ["", "a b", "-a", "a-", "a/b", "x" * 129, "\u00e4"])
def test_names_that_are_none(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse_name(text)


# --- parts of what others have ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "asked", "held", "answer"),
    [
        ("a.example/x", "a.example/x", "a.example", True),
        ("a.example/x", "a.example/x/y", "a.example", True),
        ("a.example", "a.example/x", "a.example", False),
        ("*.example", "a.example/x", "a.example", False),
        ("", "a.example/x", "a.example", False),
        ("b.example", "b.example", "", True),
        ("*.example", "b.example", "", True),
        ("", "b.example", "", False),
        ("a.example/x", "a.example/x", "a.example/x/y", False),
    ],
)
def test_who_may_have_a_part(right, asked, held, answer):
    rights = Rights(services=(parse_match(right),))
    assert may_split(rights, parse_match(asked), parse_match(held)) is answer


def test_who_may_have_a_server_name_below_another():
    def may(right: str, asked: str, held: str) -> bool:
        return may_split(Rights(tls=(right,)), parse_server_name(asked), parse_server_name(held))

    assert may("a.example", "a.example", "*.example")
    assert may("*.example", "a.example", "*")
    assert not may("*.example", "a.example", "*.example")
    assert not may("*", "a.example", "*")


@pytest.mark.parametrize("text", ["", "a.example", "*.a.example/x/y", "/x/y", "a/b/c", "[2001:db8::1]/x"])
def test_wider_patterns_are_those_that_cover(text):
    """All of them, the narrowest first, and nothing else: `covers` is the judge."""
    asked = parse_match(text)
    wider = [
        Match(host=host, path=path) for host in wider_hosts(asked.host) for path in wider_paths(asked.path)
    ]
    assert wider[0] == asked and len(set(wider)) == len(wider)
    assert all(covers(each, asked) for each in wider)
    hosts = ["", "*.example", "*.a.example", "a.example", "*.com", "a", "[2001:db8::1]", "*.db8"]
    paths = ["/", "/x", "/x/y", "/b", "/b/c", "/y"]
    everything = {Match(host=host, path=path) for host in hosts for path in paths}
    assert {each for each in everything if covers(each, asked)} <= set(wider)
