"""The shape of a configuration file: which keys there are, with which values and defaults.

Consumers use `broker.config.model`; this only says what may be written.
docs/configuration.md describes every key, which a test holds.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import core_schema

from broker.config import values
from broker.config.certificates import NamePattern, as_rules, parse_fingerprint, parse_san, parse_subject
from broker.config.model import (
    GIB,
    LOOPBACK,
    MIB,
    UPGRADES,
    HealthCheck,
    Limits,
    Listen,
    Match,
    Network,
    PasswordHash,
    Strangers,
    Timeouts,
    Upstream,
)
from broker.config.passwords import parse_password_hash
from broker.config.proxy import parse_proxy
from broker.config.tokens import parse_token_hash
from broker.config.upstreams import format_statuses, parse_request_path, parse_statuses, parse_weighted

WEEK = 7 * 24 * 3600 * 1000
CHECK = HealthCheck(kind="http")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)

    def own(self) -> dict[str, Any]:
        """What was written, without the defaults."""
        return {name: getattr(self, name) for name in self.model_fields_set}


class Written:
    """How a value is written: its parser, and for the documentation its kind, range and format."""

    def __init__(
        self,
        kind: str,
        parse: Callable[[object], Any],
        show: Callable[[Any], str] = str,
        span: tuple[int, int] | None = None,
        none: bool = False,
    ) -> None:
        self.kind, self.parse, self.show, self.span, self.none = kind, parse, show, span, none

    def __get_pydantic_core_schema__(self, _source: Any, _handler: Any) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(self.read)

    def read(self, value: object) -> Any:
        if self.none and value == "none":
            return None
        result = self.parse(value)
        if self.span and not self.span[0] <= result <= self.span[1]:
            raise ValueError(f"must be {self.range}, not {self.show(result)}")
        return result

    @property
    def range(self) -> str:
        if not self.span:
            return ""
        shown = f"between {self.show(self.span[0])} and {self.show(self.span[1])}"
        return shown + (", or none" if self.none else "")


def size(low: int, high: int, none: bool = False) -> Written:
    return Written("size", values.parse_size, values.format_size, (low, high), none)


def duration(low: int, high: int, none: bool = False) -> Written:
    return Written("duration", values.parse_duration, values.format_duration, (low, high), none)


def count(low: int, high: int, none: bool = False) -> Written:
    return Written("count", values.parse_count, str, (low, high), none)


def one_or_more(value: object) -> object:
    return value if isinstance(value, list) else [value]


Name = Annotated[str, Written("name", values.parse_name)]
UserName = Annotated[str, Written("name", values.parse_user_name)]
FilePath = Annotated[Path, Written("path", lambda value: Path(values.text(value)))]
FilePaths = Annotated[list[FilePath], BeforeValidator(one_or_more)]
Right = Annotated[Match, Written("pattern", values.parse_right)]
TcpRight = Annotated[
    str, Written("name, or *", lambda value: "*" if value == "*" else values.parse_name(value))
]
ServerName = Annotated[str, Written("server name", values.parse_server_name)]
TokenHash = Annotated[bytes, Written("token hash", parse_token_hash)]
PasswordLine = Annotated[PasswordHash, Written("password hash", parse_password_hash)]
Fingerprint = Annotated[bytes, Written("sha256:HEX", parse_fingerprint)]
SubjectPattern = Annotated[tuple[NamePattern, ...], Written("subject pattern", parse_subject)]
SanPattern = Annotated[NamePattern, Written("name pattern", parse_san)]
NetworkValue = Annotated[Network, Written("address or network", values.parse_network, values.format_network)]
Networks = Annotated[list[NetworkValue], BeforeValidator(one_or_more), Field(min_length=1)]
Flag = Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)]
AuthKind = Annotated[
    str,
    Written(
        "none, token, basic or certificate", values.parse_choice("none", "token", "basic", "certificate")
    ),
]
AdminAuthKind = Annotated[str, Written("token or certificate", values.parse_choice("token", "certificate"))]
CertField = Annotated[
    str,
    Written(
        "X-Forwarded-Client-Cert or Client-Cert",
        values.parse_choice("X-Forwarded-Client-Cert", "Client-Cert"),
    ),
]
ProxyVersion = Annotated[str, Written("v1 or v2", values.parse_choice("v1", "v2"))]
Protocol = Annotated[str, Written("protocol", values.parse_protocol)]
UpstreamUrl = Annotated[Upstream, Written("upstream URL, or {url, weight}", parse_weighted)]


class LimitsSection(Section):
    """Bytes and counts. Each key may also stand at a port or a service."""

    head: Annotated[int, size(256, MIB)] = Limits().head
    headers: Annotated[int, count(1, 1000)] = Limits().headers
    uri: Annotated[int, size(16, MIB)] = Limits().uri
    body: Annotated[int | None, size(0, 1 << 50, none=True)] = Limits().body
    response_head: Annotated[int, size(256, MIB)] = Limits().response_head
    response_headers: Annotated[int, count(1, 1000)] = Limits().response_headers
    min_rate: Annotated[int | None, size(1, GIB, none=True)] = Limits().min_rate
    requests: Annotated[int | None, count(1, 1_000_000_000, none=True)] = Limits().requests
    connections: Annotated[int, count(1, 1_000_000)] = Limits().connections
    connections_per_address: Annotated[int | None, count(1, 1_000_000, none=True)] = (
        Limits().connections_per_address
    )
    streams: Annotated[int, count(1, 65_535)] = Limits().streams
    waiting: Annotated[int, count(0, 1_000_000)] = Limits().waiting
    in_flight: Annotated[int | None, count(1, 1_000_000_000, none=True)] = Limits().in_flight
    memory: Annotated[int, size(16 * MIB, 1024 * GIB)] = Limits().memory


class TimeoutsSection(Section):
    """Seconds, or with a unit. Each key may also stand at a port or a service."""

    head: Annotated[int, duration(1, WEEK)] = Timeouts().head
    idle: Annotated[int, duration(1, WEEK)] = Timeouts().idle
    slow: Annotated[int, duration(1, WEEK)] = Timeouts().slow
    upgraded: Annotated[int, duration(1, WEEK)] = Timeouts().upgraded
    connect: Annotated[int, duration(1, WEEK)] = Timeouts().connect
    first_byte: Annotated[int, duration(1, WEEK)] = Timeouts().first_byte
    total: Annotated[int | None, duration(1, WEEK, none=True)] = Timeouts().total
    agent_wait: Annotated[int, duration(0, WEEK)] = Timeouts().agent_wait
    drain: Annotated[int, duration(0, WEEK)] = Timeouts().drain


class CertificateSection(Section):
    cert: FilePath
    key: FilePath
    ocsp: FilePath | None = None


class ClientTlsSection(Section):
    """What is asked of clients."""

    mode: Annotated[
        str, Written("none, request or require", values.parse_choice("none", "request", "require"))
    ] = "none"
    ca: FilePath | None = None
    crl: FilePaths = []


class ServerTlsSection(Section):
    """TLS of a port."""

    certificates: Annotated[list[CertificateSection], Field(min_length=1)]
    min_version: Annotated[str, Written("version", values.parse_choice("1.2", "1.3"))] = "1.2"
    ciphers: Annotated[str, Written("text", values.text)] | None = None
    groups: Annotated[str, Written("text", values.text)] | None = None
    tickets: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = True
    client: ClientTlsSection = ClientTlsSection()


class AuthSection(Section):
    """What those who call have to prove."""

    kind: Annotated[list[AuthKind], BeforeValidator(one_or_more), Field(min_length=1)]
    users: Annotated[list[UserName], BeforeValidator(one_or_more)] = []
    pass_credentials: Flag = False


def as_auth(value: object) -> object:
    """A word or a list of words is the kind alone."""
    return {"kind": value} if isinstance(value, str | list) else value


class ExternalSection(Section):
    name: Name | None = None
    listen: Annotated[values.ExternalListen, Written("URL", values.parse_external)]
    registration: Name | None = None
    tls: ServerTlsSection | None = None
    allow: Networks = []
    deny: Networks = []
    trusted_proxies: Networks = []
    proxy_protocol: Flag = False
    auth: Annotated[AuthSection | None, BeforeValidator(as_auth)] = None
    client_cert_fields: Annotated[list[CertField], BeforeValidator(one_or_more)] = []
    upgrades: list[Protocol] = list(UPGRADES)
    limits: LimitsSection = LimitsSection()
    timeouts: TimeoutsSection = TimeoutsSection()


class PenaltiesSection(Section):
    """What failures cost the network that they come from."""

    failed: Annotated[int, duration(0, WEEK)] = 5_000
    broken: Annotated[int, duration(0, WEEK)] = 1_000
    slow: Annotated[int, duration(0, WEEK)] = 10_000
    threshold: Annotated[int, duration(1, WEEK)] = 15_000
    longest: Annotated[int, duration(1, WEEK)] = 600_000
    exempt: list[NetworkValue] = list(LOOPBACK)


class StrangersSection(Section):
    """Connections that have not logged in yet."""

    early: Annotated[int, count(1, 1_000_000)] = Strangers().early
    most: Annotated[int, count(1, 1_000_000)] = Strangers().most
    per_address: Annotated[int, count(1, 1_000_000)] = Strangers().per_address
    penalties: PenaltiesSection = PenaltiesSection()


class RegistrationSection(Section):
    name: Name | None = None
    listen: Annotated[Listen, Written("URL", values.parse_registration)]
    tls: ServerTlsSection | None = None
    allow: Networks = []
    deny: Networks = []
    trusted_proxies: Networks = []
    proxy_protocol: Flag = False
    auth: Annotated[
        str,
        Written(
            "any, token, certificate or both", values.parse_choice("any", "token", "certificate", "both")
        ),
    ] = "any"
    bearer: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = True
    strangers: StrangersSection = StrangersSection()
    limits: LimitsSection = LimitsSection()
    timeouts: TimeoutsSection = TimeoutsSection()


class MaySection(Section):
    services: list[Right] = []
    tcp: list[TcpRight] = []
    tls: list[ServerName] = []
    call: list[Right] = []
    admin: Annotated[
        str, Written("none, read or control", values.parse_choice("none", "read", "control"))
    ] = "none"
    tunnels: Annotated[int | None, count(1, 1_000_000, none=True)] = None
    streams: Annotated[int | None, count(1, 1_000_000_000, none=True)] = None


class UserCertificateSection(Section):
    """Which certificates prove a user."""

    fingerprint: Fingerprint | None = None
    ca: FilePath | None = None
    subject: SubjectPattern | None = None
    san: SanPattern | None = None


class UserSection(Section):
    name: UserName
    tokens: list[TokenHash] = []
    certificates: Annotated[list[UserCertificateSection], BeforeValidator(as_rules)] = []
    passwords: list[PasswordLine] = []
    may: MaySection = MaySection()


class UpstreamTlsSection(Section):
    """TLS of https upstreams."""

    ca: FilePath | None = None
    crl: FilePaths = []
    cert: FilePath | None = None
    key: FilePath | None = None
    server_name: (
        Annotated[str, Written("name", lambda value: values.parse_host(values.text(value)))] | None
    ) = None
    verify: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = True


class HealthSection(Section):
    """Checks of a service's upstreams."""

    check: Annotated[str, Written("http or tcp", values.parse_choice("http", "tcp"))] | None = None
    path: Annotated[str, Written("path", parse_request_path)] = CHECK.path
    host: Annotated[str, Written("name", lambda value: values.parse_host(values.text(value)))] | None = None
    status: Annotated[tuple[int, int], Written("statuses", parse_statuses, format_statuses)] = CHECK.status
    interval: Annotated[int, duration(100, 3_600_000)] = CHECK.interval
    timeout: Annotated[int, duration(10, 600_000)] = CHECK.timeout
    rise: Annotated[int, count(1, 100)] = CHECK.rise
    fall: Annotated[int, count(1, 100)] = CHECK.fall


class ServiceSection(Section):
    match: Annotated[str | None, Written("[HOST][/PATH]", values.text)] = None
    name: Name | None = None
    upstream: Annotated[list[UpstreamUrl], BeforeValidator(one_or_more), Field(min_length=1)]
    tls: UpstreamTlsSection = UpstreamTlsSection()
    proxy_protocol: ProxyVersion | None = None
    trust_identity: Flag = True
    auth: Annotated[AuthSection | None, BeforeValidator(as_auth)] = None
    upgrades: list[Protocol] = list(UPGRADES)
    health: HealthSection | None = None
    limits: LimitsSection = LimitsSection()
    timeouts: TimeoutsSection = TimeoutsSection()


class DialTlsSection(Section):
    """TLS of what is dialled."""

    ca: FilePath | None = None
    crl: FilePaths = []
    cert: FilePath | None = None
    key: FilePath | None = None


class ProxySection(Section):
    """An HTTP proxy on the way to a registration port."""

    url: Annotated[tuple[str, int], Written("URL", parse_proxy)]
    credentials_file: FilePath | None = None


class ConnectSection(Section):
    url: Annotated[Listen, Written("URL", values.parse_dial)]
    tls: DialTlsSection = DialTlsSection()
    token_file: FilePath | None = None
    bearer: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = False
    proxy: ProxySection | None = None
    tunnels: Annotated[int, count(1, 64)] = 2


class AdminSection(Section):
    listen: Annotated[Listen, Written("URL", values.parse_admin)]
    tls: ServerTlsSection | None = None
    auth: Annotated[list[AdminAuthKind], BeforeValidator(one_or_more)] = []
    allow: Networks = []
    deny: Networks = []


MAX_WORKERS = 256


class AccessLogSection(Section):
    """One line per request and per TCP connection."""

    path: FilePath
    format: Annotated[str, Written("json or combined", values.parse_choice("json", "combined"))] = "json"
    query: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = True


class TracingSection(Section):
    """Spans of exchanges, sent to an OpenTelemetry collector."""

    endpoint: Annotated[str, Written("URL", values.parse_receiver)]
    begin: Annotated[bool, Written("true or false", values.parse_flag, values.format_flag)] = True
    sample: Annotated[float, Written("share", values.parse_share, values.format_share, (0, 1))] = 0.1


class TcpSection(Section):
    """Of all TCP connections of the node."""

    congestion: Annotated[str, Written("name", values.parse_congestion)] = "auto"


class FileSection(Section):
    """The whole file."""

    external: list[ExternalSection] = []
    registration: list[RegistrationSection] = []
    users: list[UserSection] = []
    services: list[ServiceSection] = []
    connect: list[ConnectSection] = []
    admin: AdminSection | None = None
    access_log: AccessLogSection | None = None
    tracing: TracingSection | None = None
    workers: Annotated[int | None, count(1, MAX_WORKERS)] = None
    tcp: TcpSection = TcpSection()
    limits: LimitsSection = LimitsSection()
    timeouts: TimeoutsSection = TimeoutsSection()
