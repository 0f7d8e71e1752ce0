"""What a node is told to be: the resolved configuration.

Everything in here is frozen, complete and checked: defaults are filled in, limits and
timeouts are inherited (a service's over its port's over the file's), relative paths are
absolute, referenced files were read, names refer to something. Consumers read attributes
and never ask twice.

    Config(external, registration, users, services, connect, admin, limits, timeouts, ...)

In a node that has `connect`, `services` are announced by its agent and served from the
tunnels; in a node that has external ports they are local ones. A node may have both.

Units: bytes, counts and milliseconds, as ints. `None` means "no limit".
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from broker.tls.settings import ClientTls, ServerTls

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB

UPGRADES = ("websocket",)


class Secret:
    """A credential that doesn't show itself: only `reveal()` gives the text."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(self._text.encode(), other._text.encode())

    def __hash__(self) -> int:
        return hash(self._text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bytes and counts."""

    head: int = 64 * KIB
    headers: int = 100
    uri: int = 8 * KIB
    body: int | None = None
    response_head: int = 256 * KIB
    response_headers: int = 1_000
    min_rate: int | None = 240
    """Bytes per second of a body that the other side sends or reads, after `Timeouts.slow`."""
    requests: int | None = 10_000
    """On one client connection."""
    connections: int = 20_000
    connections_per_address: int | None = None
    streams: int = 10_000
    waiting: int = 1_000
    in_flight: int | None = 10_000
    memory: int = 1 * GIB

    def with_own(self, own: Mapping[str, int | None]) -> Limits:
        """These limits where a narrower place doesn't say otherwise."""
        return replace(self, **own) if own else self  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Milliseconds."""

    TCP_IDLE: ClassVar[int] = 3_600_000
    """The default of `idle` on tcp and tls ports: connections to databases rest for long."""

    head: int = 10_000
    idle: int = 75_000
    slow: int = 10_000
    upgraded: int = 3_600_000
    connect: int = 5_000
    first_byte: int = 60_000
    total: int | None = None
    agent_wait: int = 3_000
    drain: int = 30_000

    def with_own(self, own: Mapping[str, int | None]) -> Timeouts:
        return replace(self, **own) if own else self  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, kw_only=True)
class Addresses:
    """Who may connect: all of `allow` (empty: everybody) but `deny`."""

    allow: tuple[Network, ...] = ()
    deny: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """An address to listen on. `host` has no brackets; port 0 lets the kernel choose."""

    scheme: str
    host: str
    port: int

    @property
    def url(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """What those who call a port or a service have to prove."""

    kinds: tuple[str, ...] = ()
    """Of `token`, `basic` and `certificate`, any of which will do; empty: nothing."""
    users: tuple[str, ...] = ()
    """Who is let in; empty: all users."""
    pass_credentials: bool = False
    """The service gets the Authorization field too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalPort(Listen):
    """Where clients connect."""

    scheme: Literal["http", "https", "tcp", "tls"]
    tls: ServerTls | None = None
    """None unless the scheme is https."""
    name: str
    registration: str | None
    """Name of the paired registration port; None: this port has local services only."""
    service: str | None
    """The service that a tcp port leads to; None for the others."""
    addresses: Addresses = Addresses()
    trusted_proxies: tuple[Network, ...] = ()
    """Whose word counts for whom they speak."""
    proxy_protocol: bool = False
    """Connections begin with a PROXY header."""
    auth: Auth | None = None
    client_cert_fields: tuple[str, ...] = ()
    """Names of the fields that tell services of a client's certificate."""
    limits: Limits
    timeouts: Timeouts
    upgrades: tuple[str, ...] = UPGRADES
    """Protocols that a client may upgrade to, in lower case."""


LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Penalties:
    """Seconds for which connections from a network are refused, added up by failure."""

    failed: float = 5.0
    """A login with unknown credentials."""
    broken: float = 1.0
    """Something was sent, and no login came of it."""
    slow: float = 10.0
    """No login within the deadline, or before it had to give way."""
    threshold: float = 15.0
    """What is below is not enforced."""
    longest: float = 600.0
    exempt: tuple[Network, ...] = LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Strangers:
    """Connections of a registration port that have not logged in yet."""

    early: int = 512
    """From so many on some have to go, by chance."""
    most: int = 1024
    per_address: int = 256
    penalties: Penalties = Penalties()


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationPort(Listen):
    """Where agents register."""

    scheme: Literal["http", "https"]
    tls: ServerTls | None = None
    """None unless the scheme is https."""
    name: str
    addresses: Addresses = Addresses()
    trusted_proxies: tuple[Network, ...] = ()
    """Whose word counts for whom they speak."""
    proxy_protocol: bool = False
    """Connections begin with a PROXY header."""
    auth: Literal["any", "token", "certificate", "both"] = "any"
    """What agents must prove themselves by, where there are users."""
    bearer: bool = True
    """Whether a token may be sent as it is."""
    strangers: Strangers = Strangers()
    limits: Limits
    timeouts: Timeouts


@dataclass(frozen=True, slots=True, kw_only=True)
class Admin(Listen):
    """Where the node is watched and steered."""

    scheme: Literal["http", "https"]
    tls: ServerTls | None = None
    """None unless the scheme is https."""
    auth: tuple[Literal["token", "certificate"], ...] = ()
    """Any of which will do; empty: nothing is asked."""
    addresses: Addresses = Addresses()


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One address of a service: `host` and `port`, or `path` of a Unix socket."""

    scheme: Literal["http", "https", "tcp", "tls"]
    host: str = ""
    port: int = 0
    path: str = ""
    weight: int = 1
    """Its share of what is under way, beside the service's other upstreams: 1 to 1000."""

    @property
    def url(self) -> str:
        return f"unix:{self.path}" if self.path else f"{self.scheme}://{authority(self.host, self.port)}"

    @property
    def authority(self) -> str:
        return "localhost" if self.path else authority(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests: host and path prefix of http requests, or the name of a tcp service."""

    host: str = ""
    """Lower case: "" for every host, "a.example" for one, "*.example" for those below."""
    path: str = "/"
    """A prefix on segment boundaries, without a slash at its end (but "/" for everything)."""
    name: str = ""
    """Of a tcp service, or `tls/HOST` of one chosen by its server name; then host and path say nothing."""

    def __str__(self) -> str:
        if self.name:
            return self.name.replace("tls/", "tls://", 1)
        return self.host + self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthCheck:
    """How the upstreams of a service are looked at. Milliseconds and counts."""

    kind: Literal["http", "tcp"]
    path: str = "/"
    """Of the request; http only."""
    host: str = ""
    """The Host of the request; "" for that of the service or its upstream."""
    status: tuple[int, int] = (200, 399)
    """The lowest and the highest status that is well."""
    interval: int = 5_000
    timeout: int = 2_000
    rise: int = 2
    fall: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """What answers. All upstreams are of the same kind and get the same requests."""

    match: Match
    upstreams: tuple[Upstream, ...]
    limits: Limits
    """The service's own over the file's: what counts where no port has a say (an agent)."""
    timeouts: Timeouts
    own_limits: Mapping[str, int | None] = field(default_factory=dict, hash=False)
    own_timeouts: Mapping[str, int | None] = field(default_factory=dict, hash=False)
    says_idle: bool = False
    """Whether `timeouts.idle` was written, here or for the file, and is not the default."""
    own_upgrades: tuple[str, ...] | None = None
    """Protocols that may be upgraded to; None: what counts at the place where the service is offered."""
    tls: ClientTls | None = None
    """None unless the upstreams are https."""
    proxy_protocol: Literal["v1", "v2"] | None = None
    """The header that tells a tcp or tls upstream whose connection it is; None: none."""
    health: HealthCheck | None = None
    """None: nothing is looked at as long as requests succeed."""
    auth: Auth | None = None
    """In place of the port's; None: what the port asks."""
    trust_identity: bool = True
    """What a DMZ node says of callers reaches it."""

    @property
    def upgrades(self) -> tuple[str, ...]:
        """Where no port has a say (an agent)."""
        return UPGRADES if self.own_upgrades is None else self.own_upgrades

    @property
    def kind(self) -> Literal["http", "tcp"]:
        """What the core makes of it: a service that is chosen by its server name is one of TCP."""
        return "tcp" if self.match.name else "http"

    @property
    def host(self) -> str:
        return self.match.host

    @property
    def path(self) -> str:
        return self.match.path

    @property
    def name(self) -> str:
        """Of a tcp service, or `tls/HOST`; else ""."""
        return self.match.name

    def limits_at(self, port: ExternalPort) -> Limits:
        """The service's own over that port's."""
        return port.limits.with_own(self.own_limits)

    def timeouts_at(self, port: ExternalPort) -> Timeouts:
        return port.timeouts.with_own(self.own_timeouts)

    def upgrades_at(self, port: ExternalPort) -> tuple[str, ...]:
        return port.upgrades if self.own_upgrades is None else self.own_upgrades


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """What a user may do. Nothing that isn't said here."""

    services: tuple[Match, ...] = ()
    """What the user may announce: each includes all below its path; host "" stands for any ("*")."""
    tcp: tuple[str, ...] = ()
    """Names of tcp services, or "*"."""
    tls: tuple[str, ...] = ()
    """Server names, `*.HOST` for all below a host, or "*"."""
    call: tuple[Match, ...] | None = None
    """What the user may call where a port or service asks who he is; None: all that is offered there."""
    admin: Literal["none", "read", "control"] = "none"
    """At an admin port that asks who he is: nothing, see everything, or also reload, drain and stop."""
    tunnels: int | None = None
    streams: int | None = None
    """At once, in all tunnels at one registration port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PasswordHash:
    """What is kept of a password: the scrypt key (RFC 7914) of it and a salt, and what that costs."""

    salt: bytes = field(repr=False)
    key: bytes = field(repr=False)
    log_n: int
    r: int
    p: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateRule:
    """Which client certificates prove a user: one, by `fingerprint`, or those under a CA with such a name."""

    fingerprint: bytes = b""
    """SHA-256 of the certificate in DER form; b"" where it goes by names."""
    anchors: tuple[bytes, ...] = field(default=(), repr=False)
    """The CA's certificates, in DER form."""
    subject: tuple[tuple[str, str], ...] = ()
    """Attributes and patterns of their values; all must fit."""
    san: tuple[str, str] | None = None
    """A kind of subject alternative name and a pattern that one of that kind must fit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    name: str
    tokens: tuple[bytes, ...] = field(default=(), repr=False)
    """SHA-256 digests of the tokens, 32 bytes each."""
    certificates: tuple[CertificateRule, ...] = ()
    passwords: tuple[PasswordHash, ...] = ()
    """For clients that prove themselves with name and password."""
    rights: Rights


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """An HTTP proxy that is asked to CONNECT."""

    host: str
    port: int
    credentials: Secret | None = None
    """`USER:PASSWORD`."""

    @property
    def name(self) -> str:
        """For people."""
        return f"the proxy {authority(self.host, self.port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A registration port that this node dials."""

    scheme: Literal["http", "https"]
    tls: ClientTls | None = None
    """None unless the scheme is https."""
    host: str
    port: int
    token: Secret | None
    token_file: Path | None
    bearer: bool = False
    """The token is sent as it is, and not proven."""
    tunnels: int
    services: tuple[Service, ...]
    """What the agent announces there: the node's services."""
    proxy: Proxy | None = None
    """On the way there."""

    @property
    def url(self) -> str:
        return f"{self.scheme}://{authority(self.host, self.port)}"

    @property
    def authority(self) -> str:
        return authority(self.host, self.port)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """One line per request and per TCP connection."""

    path: Path | None
    """None: standard output."""
    format: Literal["json", "combined"] = "json"
    query: bool = True
    """Targets are written with their query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Spans of exchanges, sent to an OpenTelemetry collector."""

    endpoint: str
    """URL of OTLP over HTTP, with its path."""
    begin: bool = True
    """A trace is begun where a request has none."""
    sample: float = 0.1
    """The share of begun ones, from 0 to 1, that is sampled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flags:
    """What the command line said, kept so that a reload reads the file and adds the same again."""

    external: tuple[str, ...] = ()
    registration: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    connect: tuple[str, ...] = ()
    admin: str | None = None
    tunnels: int | None = None
    token_file: Path | None = None
    workers: int | None = None
    insecure: bool = False
    defaults: Literal["serve", "connect"] | None = None
    """Whose defaults stand in for what is missing, where no file was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    external: tuple[ExternalPort, ...] = ()
    registration: tuple[RegistrationPort, ...] = ()
    users: tuple[User, ...] = ()
    services: tuple[Service, ...] = ()
    connect: tuple[Connect, ...] = ()
    admin: Admin | None = None
    access_log: AccessLog | None = None
    tracing: Tracing | None = None
    workers: int = 1
    """Processes that serve."""
    congestion: str = "auto"
    """Of TCP connections: `auto`, `system`, or a name that the kernel knows."""
    limits: Limits = Limits()
    timeouts: Timeouts = Timeouts()
    source: Path | None = None
    """The file, absolute; None where everything came from the command line."""
    flags: Flags = Flags()
    warnings: tuple[str, ...] = ()
    """What is allowed but hardly meant, one sentence each: say it at start and in `broker check`."""

    def registration_named(self, name: str) -> RegistrationPort | None:
        return next((port for port in self.registration if port.name == name), None)


def authority(host: str, port: int) -> str:
    """`host:port`, with brackets around an IPv6 address."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
