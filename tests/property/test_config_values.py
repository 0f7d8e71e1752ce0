"""What is written as a text is read as the same value; no text does worse than being refused."""

import contextlib
import ipaddress

from hypothesis import assume, given
from hypothesis import strategies as st

from _fastpath.route import normal_host, normal_path
from broker.config import values
from broker.config.model import Match, Upstream, authority

LABELS = st.from_regex(r"[a-z0-9_]([a-z0-9_-]{0,10}[a-z0-9_])?", fullmatch=True)
NAMES = st.from_regex(values.NAME, fullmatch=True)
HOSTS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)
PORTS = st.integers(1, 65535)
TEXTS = st.text(alphabet=st.sampled_from("aB0.*/:=[]%2fF;@? #-_\\é{}unix:htp"), max_size=30) | st.text(
    max_size=20
)


@st.composite
def hosts(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["name", "v4", "v6"]))
    if kind == "v4":
        return str(draw(st.ip_addresses(v=4)))
    if kind == "v6":
        return str(draw(st.ip_addresses(v=6)))
    host = draw(HOSTS)
    assume(not all(each in "0123456789." for each in host))
    return host


@st.composite
def upstreams(draw: st.DrawFn, scheme: str = "http") -> Upstream:
    if scheme == "http" and draw(st.booleans()):
        path = draw(st.text(min_size=1, max_size=20).filter(lambda text: "\0" not in text))
        assume(not path.startswith("//") and path.isascii())
        return Upstream(scheme="http", path=path)
    return Upstream(scheme=scheme, host=draw(hosts()), port=draw(PORTS))


@st.composite
def matches(draw: st.DrawFn) -> Match:
    host = draw(st.just("") | hosts())
    if ":" in host:
        host = f"[{host}]"
    elif host and draw(st.booleans()):
        host = f"*.{host}"
    segments = draw(st.lists(st.from_regex(r"[A-Za-z0-9_~=@-][A-Za-z0-9._~=-]*", fullmatch=True), max_size=4))
    return Match(host=host, path="/" + "/".join(segments))


@given(st.integers(0, 1 << 49))
def test_sizes(size: int) -> None:
    assert values.parse_size(values.format_size(size)) == size


@given(st.integers(0, 10**12))
def test_durations(milliseconds: int) -> None:
    assert values.parse_duration(values.format_duration(milliseconds)) == milliseconds


@given(st.integers(0, 10**9), st.sampled_from(list(values.SIZE_UNITS)))
def test_units(number: int, unit: str) -> None:
    assert values.parse_size(f"{number}{unit}") == number * values.SIZE_UNITS[unit]


@given(hosts(), PORTS)
def test_urls(host: str, port: int) -> None:
    url = values.parse_external(f"http://{authority(host, port)}")
    assert (url.host, url.port) == (host, port)
    assert values.parse_external(url.url) == url


@given(matches())
def test_matches_are_what_the_routing_table_calls_normal(match: Match) -> None:
    assert values.parse_match(str(match)) == match
    assert (normal_host(match.host), normal_path(match.path)) == (match.host, match.path)


@given(TEXTS)
def test_the_routing_table_takes_every_match(text: str) -> None:
    with contextlib.suppress(ValueError):
        match = values.parse_match(text)
        assert (normal_host(match.host), normal_path(match.path)) == (match.host, match.path)
        assert values.parse_match(str(match)) == match


@given(matches(), upstreams())
def test_specs(match: Match, upstream: Upstream) -> None:
    assert values.parse_spec(values.format_spec(match, upstream)) == (match, upstream)


@given(NAMES, upstreams("tcp"))
def test_tcp_specs(name: str, upstream: Upstream) -> None:
    assert values.parse_spec(values.format_spec(Match(name=name), upstream)) == (Match(name=name), upstream)


@given(TEXTS)
def test_no_text_breaks_a_parser(text: str) -> None:
    for parse in (values.parse_external, values.parse_upstream, values.parse_right, values.parse_spec):
        with contextlib.suppress(ValueError):
            parse(text)
    for parse_number in (values.parse_size, values.parse_duration):
        with contextlib.suppress(ValueError):
            assert parse_number(text) >= 0


@given(st.ip_addresses())
def test_loopback(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    url = values.parse_external(f"http://{authority(str(address), 1)}")
    assert url.is_loopback == address.is_loopback
