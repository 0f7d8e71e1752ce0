"""Texts of the configuration as values, and back: sizes, durations, URLs, matches, SPECs.

Every parser takes what YAML or the command line gave, and raises ValueError with a
sentence that says what was expected. `format_*` gives the shortest text that parses to
the same value.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

from broker.config.model import Listen, Match, Network, Upstream

SIZE_UNITS = {"TiB": 1 << 40, "GiB": 1 << 30, "MiB": 1 << 20, "KiB": 1 << 10, "B": 1}
TIME_UNITS = {"h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
QUANTITY = re.compile(r"(\d{1,15})(?:\.(\d{1,9}))? ?([A-Za-z]*)", re.ASCII)

URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<place>[^/?#]*)(?P<path>[^?#]*)(?P<rest>.*)")
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
PROTOCOL = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]{1,32}(?:/[a-z0-9!#$%&'*+.^_`|~-]{1,32})?")
USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,127}")
SPEC_SPLIT = re.compile(r"=(?=[A-Za-z][A-Za-z0-9+.-]*://|unix:)")
UPSTREAM_START = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://|unix:)")
PLAIN_IN_PATH = "/!$&'()*+,:=@~"
PATH_CHARACTERS = re.compile(r"(?:[!$&'()+,\-./0-9:;=@A-Z_a-z~]|%[0-9A-Fa-f]{2})*")
SEVERAL_READINGS = re.compile(r";|%(?:2f|5c|3b|0.|1.|7f)", re.IGNORECASE)
SEGMENT_SIZE = 255
MAPPED_BITS = 96  # of IPv6 addresses that stand for IPv4 ones (RFC 4291, 2.5.5.2)

DEFAULT_PORTS = {"http": 80, "https": 443, "tls": 443}
SOCKET_PATH_SIZE = 107


def text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be a text, not {describe(value)}")
    return value


def describe(value: object) -> str:
    """A value's kind in the words of a configuration file."""
    if value is None:
        return "empty"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return f"the number {value}" if isinstance(value, int | float) else repr(value)


def kind_of(value: object) -> str:
    """The same without the text, where it could be a secret."""
    return "a text" if isinstance(value, str) else describe(value)


def choices(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


# --- sizes, durations, counts ------------------------------------------------------


def quantity(value: object, units: dict[str, int], plain: str, example: str) -> int:
    """A number with an optional unit, exactly, as an int of the smallest unit."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"must be {example}, not {describe(value)}")
    found = QUANTITY.fullmatch(str(value))
    if not found:
        raise ValueError(f"must be {example}, not {describe(value)}")
    whole, fraction, unit = found[1], found[2] or "", found[3] or plain
    if unit not in units:
        raise ValueError(f"has the unit {unit!r}; known units are {choices(sorted(units, key=units.get))}")  # type: ignore[arg-type]
    scaled = int(whole + fraction) * units[unit]
    if scaled % 10 ** len(fraction):
        raise ValueError(f"{value} is finer than {choices(list(units)[-1:])}, the smallest unit")
    return cast(int, scaled // 10 ** len(fraction))


def parse_size(value: object) -> int:
    """Bytes."""
    return quantity(value, SIZE_UNITS, "B", "a size such as 65536, 64KiB or 1MiB")


def parse_duration(value: object) -> int:
    """Milliseconds; a number without unit counts seconds."""
    return quantity(value, TIME_UNITS, "s", "a duration such as 10 (seconds), 500ms or 2m")


def parse_count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"must be a whole number, not {describe(value)}")
    return value


def parse_share(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"must be a number between 0 and 1, not {describe(value)}")
    return float(value)


def format_share(value: float) -> str:
    return f"{value:g}"


def format_quantity(value: int, units: dict[str, int], bare: str) -> str:
    unit = next(each for each, size in units.items() if value % size == 0) if value else bare
    return f"{value // units[unit]}{'' if unit == bare else unit}"


def format_size(value: int | None) -> str:
    return "none" if value is None else format_quantity(value, SIZE_UNITS, "B")


def format_duration(value: int | None) -> str:
    return "none" if value is None else format_quantity(value, TIME_UNITS, "s")


# --- names and hosts ---------------------------------------------------------------


def parse_name(value: object) -> str:
    if not NAME.fullmatch(text(value)):
        raise ValueError("must be 1 to 64 letters, digits, '.', '_' or '-', and begin with a letter or digit")
    return text(value)


def parse_congestion(value: object) -> str:
    """`auto`, `system`, or a congestion control that this kernel offers to this user."""
    name = text(value)
    if name in ("auto", "system"):
        return name
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, name.encode())
    except (OSError, ValueError):
        raise ValueError(
            f"must be auto, system or a congestion control that this user may choose, not {name!r}:"
            " see /proc/sys/net/ipv4/tcp_allowed_congestion_control"
        ) from None
    return name


def parse_protocol(value: object) -> str:
    """A name for Upgrade (RFC 9110, 7.8), in lower case. HTTP/2 is no HTTP/1.1 any more: it never passes."""
    name = text(value).lower()
    if not PROTOCOL.fullmatch(name):
        raise ValueError(f"must be the name of a protocol such as websocket, not {value!r}")
    if name.split("/")[0] in ("h2c", "h2", "http", "tls"):
        raise ValueError(f"{name} can't be allowed: what follows would be requests that nobody has checked")
    return name


def parse_flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"must be true or false, not {describe(value)}")
    return value


def format_flag(value: bool) -> str:
    return "true" if value else "false"


def parse_choice(*choices: str) -> Callable[[object], str]:
    def parse(value: object) -> str:
        if value not in choices:
            shown = value if isinstance(value, str) else kind_of(value)
            raise ValueError(f"must be {' or '.join(choices)} (as a text, in quotes), not {shown}")
        return str(value)

    return parse


def parse_user_name(value: object) -> str:
    if not USER.fullmatch(text(value)):
        raise ValueError(
            "must be 1 to 128 letters, digits or any of '._@+-', and begin with a letter or digit"
        )
    return text(value)


def parse_host(value: str) -> str:
    """A name or address, lower case, without brackets."""
    if not value:
        raise ValueError("has no host")
    if value.startswith("["):
        return parse_ipv6(value)
    if re.fullmatch(r"[0-9.]+", value):
        try:
            return str(ipaddress.IPv4Address(value))
        except ValueError:
            raise ValueError(f"{value} is not an IPv4 address") from None
    name = value.lower().removesuffix(".")
    if not name.isascii():
        raise ValueError(f"{value} must be written in its ASCII form (xn--…)")
    if len(name) > 253 or not all(LABEL.fullmatch(label) for label in name.split(".")):
        raise ValueError(f"{value} is not a host name or address")
    return name


def parse_ipv6(value: str) -> str:
    if not value.endswith("]"):
        raise ValueError(f"{value} lacks the closing bracket of an IPv6 address")
    try:
        return str(ipaddress.IPv6Address(value[1:-1]))
    except ValueError:
        raise ValueError(f"{value} is not an IPv6 address") from None


def parse_network(value: object) -> Network:
    """An address, or a network as ADDRESS/BITS. IPv4 in IPv6 clothes (::ffff:10.0.0.0/104) is IPv4."""
    given = text(value)
    try:
        network = ipaddress.ip_network(given)
    except ValueError:
        raise ValueError(explain_network(given)) from None
    mapped = network.network_address.ipv4_mapped if isinstance(network, ipaddress.IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED_BITS:
        return network
    return ipaddress.IPv4Network((mapped, network.prefixlen - MAPPED_BITS))


def explain_network(given: str) -> str:
    try:
        meant = ipaddress.ip_network(given, strict=False)
    except ValueError:
        return (
            f"must be an address or a network such as 192.0.2.7, 10.0.0.0/8 or 2001:db8::/32, not {given!r}"
        )
    return f"{given} has bits set behind its prefix; did you mean {meant}?"


def format_network(value: Network) -> str:
    whole = value.prefixlen == value.max_prefixlen
    return str(value.network_address if whole else value)


# --- URLs --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Url:
    scheme: str
    host: str
    port: int
    path: str


def parse_url(value: object, schemes: list[str], example: str, lowest_port: int = 1) -> Url:
    """SCHEME://HOST[:PORT][/PATH], where the scheme is one of `schemes`."""
    found = URL.fullmatch(text(value))
    if not found:
        shown = kind_of(value) if "@" in str(value) else describe(value)
        raise ValueError(f"must be a URL such as {example}, not {shown}")
    scheme = found["scheme"].lower()
    if scheme not in schemes:
        raise ValueError(f"{scheme}:// can't be used here; use {choices([each + '://' for each in schemes])}")
    if "@" in found["place"]:
        raise ValueError("must not hold credentials; use token_file")
    if found["rest"]:
        raise ValueError(f"must end before {found['rest'][0]!r}")
    host, port = parse_place(found["place"], DEFAULT_PORTS.get(scheme), example, lowest_port)
    return Url(scheme, host, port, found["path"])


def parse_place(place: str, default_port: int | None, example: str, lowest_port: int) -> tuple[str, int]:
    if place.startswith("[") and "]" in place:
        end = place.index("]") + 1
        host, colon, port = place[:end], *place[end:].partition(":")[1:]
        if place[end:] and not place[end:].startswith(":"):
            raise ValueError(f"{place} is not HOST:PORT")
    else:
        host, colon, port = place.partition(":")
        if ":" in port:
            raise ValueError(
                f"{place} is not HOST:PORT; an IPv6 address stands in brackets, as in [::1]:8080"
            )
    if not host:
        raise ValueError(f"has no host; write {example}, or 0.0.0.0 or [::] for every address")
    if not colon and default_port is not None:
        return parse_host(host), default_port
    if not re.fullmatch(r"\d{1,5}", port, re.ASCII) or not lowest_port <= int(port) <= 65535:
        raise ValueError(f"needs a port from {lowest_port} to 65535, as in {example}")
    return parse_host(host), int(port)


def bare(url: Url) -> Url:
    if url.path not in ("", "/"):
        raise ValueError(f"must not have a path ({url.path})")
    return url


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalListen(Listen):
    service: str | None


def parse_external(value: object) -> ExternalListen:
    url = parse_url(value, ["http", "https", "tcp", "tls"], "http://127.0.0.1:8080", lowest_port=0)
    if url.scheme != "tcp":
        bare(url)
        return ExternalListen(scheme=url.scheme, host=url.host, port=url.port, service=None)
    service = url.path.removeprefix("/")
    if not service:
        raise ValueError("must name the service that the port leads to, as in tcp://127.0.0.1:5432/db")
    if not NAME.fullmatch(service):
        raise ValueError(f"{service} is not the name of a tcp service")
    return ExternalListen(scheme="tcp", host=url.host, port=url.port, service=service)


def parse_registration(value: object) -> Listen:
    url = bare(parse_url(value, ["http", "https"], "http://127.0.0.1:7000", lowest_port=0))
    return Listen(scheme=url.scheme, host=url.host, port=url.port)


def parse_admin(value: object) -> Listen:
    url = bare(parse_url(value, ["http", "https"], "http://127.0.0.1:7001", lowest_port=0))
    return Listen(scheme=url.scheme, host=url.host, port=url.port)


def parse_dial(value: object) -> Listen:
    """The registration port of another node."""
    url = bare(parse_url(value, ["http", "https"], "http://dmz.example.com:7000"))
    return Listen(scheme=url.scheme, host=url.host, port=url.port)


def parse_receiver(value: object) -> str:
    """Where spans are sent to; without a path it is that of OTLP over HTTP."""
    url = parse_url(value, ["http", "https"], "http://127.0.0.1:4318")
    host = f"[{url.host}]" if ":" in url.host else url.host
    return f"{url.scheme}://{host}:{url.port}{url.path if url.path not in ('', '/') else '/v1/traces'}"


def parse_upstream(value: object) -> Upstream:
    """A Unix socket's path may be relative: whoever knows to what makes it absolute."""
    given = text(value)
    if given.startswith("unix:"):
        return parse_unix(given.removeprefix("unix:"))
    if not UPSTREAM_START.match(given):
        examples = "http://127.0.0.1:9000, unix:PATH or tcp://127.0.0.1:6379"
        raise ValueError(f"must be an upstream such as {examples}, not {given!r}")
    url = parse_url(given, ["http", "https", "tcp", "tls"], "http://127.0.0.1:9000")
    if url.path not in ("", "/"):
        raise ValueError(
            f"must not have a path ({url.path}): the request's own path reaches the service as sent"
        )
    return Upstream(
        scheme=cast(Literal["http", "https", "tcp", "tls"], url.scheme), host=url.host, port=url.port
    )


def parse_unix(path: str) -> Upstream:
    if not path or "\0" in path:
        raise ValueError("needs the path of a socket, as in unix:/run/app.sock")
    if path.startswith("//"):
        raise ValueError("has no host: write unix:/run/app.sock")
    if len(path.encode()) > SOCKET_PATH_SIZE:
        raise ValueError(f"has a path of more than {SOCKET_PATH_SIZE} bytes, which a Unix socket can't have")
    return Upstream(scheme="http", path=path)


# --- matches and SPECs -------------------------------------------------------------


def parse_match(value: object) -> Match:
    """[HOST][/PATH] of http requests."""
    given = text(value)
    if "://" in given:
        raise ValueError("is [HOST][/PATH] without a scheme, as in api.example.com/status")
    host, slash, rest = given.partition("/")
    if not given:
        raise ValueError("is empty; leave it out, or write / for every request")
    return Match(host=parse_host_pattern(host), path=parse_prefix(slash + rest))


def parse_host_pattern(value: str) -> str:
    """ "" for every host, a host, or *.HOST. An IPv6 address keeps its brackets."""
    if not value:
        return ""
    if value.startswith("["):
        return f"[{parse_ipv6(value)}]"
    if ":" in value:
        raise ValueError("must not have a port: a service answers on every external port that leads to it")
    if value.startswith("*."):
        return "*." + parse_host(value[2:])
    if "*" in value:
        raise ValueError(f"{value}: a wildcard stands for whole names at the beginning, as in *.example.com")
    return parse_host(value)


def parse_prefix(path: str) -> str:
    """A path prefix as the routing table has it: one reading only, no slash at its end, plainly encoded."""
    if path in ("", "/"):
        return "/"
    if "*" in path:
        raise ValueError(f"the path {path} covers all that is below it: leave out '*'")
    if not PATH_CHARACTERS.fullmatch(path):
        raise ValueError(
            f"the path {path} has characters that can't stand in a path, or must be percent-encoded"
        )
    if SEVERAL_READINGS.search(path):
        raise ValueError(f"the path {path} has an escape or a ';' that services read in different ways")
    raw = urllib.parse.unquote_to_bytes(path.removesuffix("/"))
    if any(segment in (b"", b".", b"..") for segment in raw.split(b"/")[1:]):
        raise ValueError(f"the path {path} must not have empty, '.' or '..' segments")
    if any(len(segment) > SEGMENT_SIZE for segment in raw.split(b"/")):
        raise ValueError(f"the path {path[:40]}… has a segment of more than {SEGMENT_SIZE} bytes")
    return urllib.parse.quote(raw, safe=PLAIN_IN_PATH)


def parse_server_name(value: object) -> str:
    """A name that TLS clients ask for, `*.HOST` for all below a host, or `*`."""
    given = text(value)
    if not given:
        raise ValueError("must be the name that TLS clients ask for, as in app.example.com, or *")
    host = "*" if given == "*" else parse_host_pattern(given)
    if host.startswith("[") or re.fullmatch(r"[0-9.]+", host):
        raise ValueError(
            f"{given} is an address, which TLS clients never ask for by name: write a name, or *"
        )
    return host


def parse_server_match(value: object) -> Match:
    return Match(name=f"tls/{parse_server_name(value)}")


def parse_right(value: object) -> Match:
    """Hosts and paths that may be announced: a match, or with `*` or `/*` for all that is below."""
    given = text(value)
    if given == "*":
        return Match()
    return parse_match(given.removesuffix("*") if given.endswith("/*") else given)


@dataclass(frozen=True, slots=True)
class Spec:
    """A service on the command line, taken apart: what stands left and right of `=`."""

    match: str
    upstream: str


def split_spec(value: str) -> Spec:
    """`[HOST][/PATH]=UPSTREAM`, `NAME=tcp://HOST:PORT`, or just `UPSTREAM`, unchecked."""
    if UPSTREAM_START.match(value):
        return Spec("", value)
    found = SPEC_SPLIT.search(value)
    if found:
        return Spec(value[: found.start()], value[found.end() :])
    match, _, upstream = value.rpartition("=")
    return Spec(match, upstream)


def parse_spec(value: str) -> tuple[Match, Upstream]:
    spec = split_spec(value)
    upstream = parse_upstream(spec.upstream)
    if upstream.scheme == "tcp":
        return Match(name=parse_name(spec.match)), upstream
    if upstream.scheme == "tls":
        return parse_server_match(spec.match), upstream
    return parse_match(spec.match or "/"), upstream


def format_spec(match: Match, upstream: Upstream) -> str:
    left = match.name.removeprefix("tls/") or match.host + ("" if match.path == "/" else match.path)
    return f"{left}={upstream.url}" if left else upstream.url
