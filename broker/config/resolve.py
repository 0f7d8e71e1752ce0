"""From what was written to what is meant: defaults, inheritance, pairing, paths and files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal, cast

from cryptography.hazmat.primitives.serialization import Encoding

from broker.config import values
from broker.config.cores import usable_cores
from broker.config.document import KeyPath
from broker.config.model import (
    AccessLog,
    Addresses,
    Admin,
    Auth,
    CertificateRule,
    Config,
    Connect,
    ExternalPort,
    Flags,
    HealthCheck,
    Limits,
    Match,
    Network,
    Penalties,
    Proxy,
    RegistrationPort,
    Rights,
    Secret,
    Service,
    Strangers,
    Timeouts,
    Tracing,
    Upstream,
    User,
)
from broker.config.proxy import proxy_for, read_credentials
from broker.config.schema import (
    AccessLogSection,
    AdminSection,
    AuthSection,
    ConnectSection,
    DialTlsSection,
    ExternalSection,
    FileSection,
    RegistrationSection,
    ServerTlsSection,
    ServiceSection,
    StrangersSection,
    UpstreamTlsSection,
    UserCertificateSection,
    UserSection,
)
from broker.config.tokens import read_token_file, readable_by_others
from broker.config.validate import Draft
from broker.tls.client import check_client
from broker.tls.files import read_certificates
from broker.tls.server import check_server
from broker.tls.settings import Certificate, ClientTls, ServerTls
from broker.tls.standard import check_standard


def resolve(draft: Draft, source: Path | None, flags: Flags) -> Config:
    """The configuration as far as it can be understood; complaints go to the draft."""
    file = draft.file
    limits, timeouts = Limits().with_own(file.limits.own()), Timeouts().with_own(file.timeouts.own())
    registration = resolve_registration(draft, limits, timeouts)
    services = resolve_services(draft, limits, timeouts)
    return Config(
        external=tuple(
            resolve_external(draft, index, entry, registration, limits, timeouts)
            for index, entry in enumerate(file.external)
        ),
        registration=registration,
        users=tuple(resolve_user(draft, index, entry) for index, entry in enumerate(file.users)),
        services=services,
        connect=tuple(resolve_connect(draft, i, entry, services) for i, entry in enumerate(file.connect)),
        admin=resolve_admin(draft, file.admin),
        access_log=resolve_access_log(draft, file.access_log),
        tracing=Tracing(**dict(file.tracing)) if file.tracing is not None else None,
        workers=resolve_workers(file),
        congestion=file.tcp.congestion,
        limits=limits,
        timeouts=timeouts,
        source=source,
        flags=flags,
    )


def resolve_workers(file: FileSection) -> int:
    """An agent has few tunnels, which one process serves."""
    if file.workers is not None:
        return file.workers
    return usable_cores() if file.external or file.registration else 1


def resolve_admin(draft: Draft, entry: AdminSection | None) -> Admin | None:
    if entry is None:
        return None
    listen, path = entry.listen, ("admin", "tls")
    tls = resolve_tls(draft, path, listen.scheme, entry.tls)
    if tls is not None:
        for problem in check_standard(tls):
            draft.wrong(path, problem)
    return Admin(
        scheme=cast(Literal["http", "https"], listen.scheme),
        host=listen.host,
        port=listen.port,
        tls=tls,
        auth=cast(tuple[Literal["token", "certificate"], ...], tuple(dict.fromkeys(entry.auth))),
        addresses=resolve_addresses(entry),
    )


def resolve_addresses(entry: ExternalSection | RegistrationSection | AdminSection) -> Addresses:
    return Addresses(allow=tuple(entry.allow), deny=tuple(entry.deny))


def resolve_access_log(draft: Draft, entry: AccessLogSection | None) -> AccessLog | None:
    if entry is None:
        return None
    path = None
    if str(entry.path) != "stdout":
        path = absolute(draft, ("access_log", "path"), entry.path)
        if not path.parent.is_dir():
            draft.wrong(("access_log", "path"), f"the directory {path.parent} does not exist")
    return AccessLog(path=path, format=cast(Literal["json", "combined"], entry.format), query=entry.query)


# --- ports -------------------------------------------------------------------------


def resolve_registration(draft: Draft, limits: Limits, timeouts: Timeouts) -> tuple[RegistrationPort, ...]:
    return tuple(
        RegistrationPort(
            scheme=cast(Literal["http", "https"], entry.listen.scheme),
            tls=resolve_tls(draft, draft.path("registration", index, "tls"), entry.listen.scheme, entry.tls),
            host=entry.listen.host,
            port=entry.listen.port,
            name=entry.name or f"registration-{draft.indexes['registration'][index] + 1}",
            addresses=resolve_addresses(entry),
            trusted_proxies=resolve_proxies(draft, draft.path("registration", index), entry),
            proxy_protocol=entry.proxy_protocol,
            auth=cast(Literal["any", "token", "certificate", "both"], entry.auth),
            bearer=entry.bearer,
            strangers=resolve_strangers(
                draft, draft.path("registration", index, "strangers"), entry.strangers
            ),
            limits=limits.with_own(entry.limits.own()),
            timeouts=timeouts.with_own(entry.timeouts.own()),
        )
        for index, entry in enumerate(draft.file.registration)
    )


def resolve_strangers(draft: Draft, path: KeyPath, entry: StrangersSection) -> Strangers:
    if entry.early > entry.most:
        draft.wrong((*path, "early"), "must not be above `most`")
    given = entry.penalties
    return Strangers(
        early=entry.early,
        most=entry.most,
        per_address=entry.per_address,
        penalties=Penalties(
            failed=given.failed / 1000,
            broken=given.broken / 1000,
            slow=given.slow / 1000,
            threshold=given.threshold / 1000,
            longest=given.longest / 1000,
            exempt=tuple(given.exempt),
        ),
    )


def resolve_external(
    draft: Draft,
    index: int,
    entry: ExternalSection,
    registration: tuple[RegistrationPort, ...],
    limits: Limits,
    timeouts: Timeouts,
) -> ExternalPort:
    return ExternalPort(
        scheme=cast(Literal["http", "https", "tcp", "tls"], entry.listen.scheme),
        tls=resolve_tls(draft, draft.path("external", index, "tls"), entry.listen.scheme, entry.tls),
        host=entry.listen.host,
        port=entry.listen.port,
        name=entry.name or f"external-{draft.indexes['external'][index] + 1}",
        registration=paired(draft, index, entry, [port.name for port in registration]),
        service=entry.listen.service,
        addresses=resolve_addresses(entry),
        trusted_proxies=resolve_proxies(draft, draft.path("external", index), entry),
        proxy_protocol=entry.proxy_protocol,
        auth=resolve_auth(entry.auth),
        client_cert_fields=tuple(entry.client_cert_fields),
        upgrades=tuple(entry.upgrades),
        limits=limits.with_own(entry.limits.own()),
        timeouts=resolve_timeouts(draft, entry, timeouts),
    )


def resolve_timeouts(draft: Draft, entry: ExternalSection, timeouts: Timeouts) -> Timeouts:
    """Of an external port: its connections may rest as long as is written, or as its protocol is used to."""
    if entry.listen.scheme in ("tcp", "tls") and "idle" not in draft.file.timeouts.own():
        timeouts = replace(timeouts, idle=Timeouts.TCP_IDLE)
    return timeouts.with_own(entry.timeouts.own())


def resolve_auth(entry: AuthSection | None) -> Auth | None:
    if entry is None:
        return None
    kinds = tuple(kind for kind in dict.fromkeys(entry.kind) if kind != "none")
    return Auth(kinds=kinds, users=tuple(entry.users), pass_credentials=entry.pass_credentials)


def resolve_proxies(
    draft: Draft, path: KeyPath, entry: ExternalSection | RegistrationSection
) -> tuple[Network, ...]:
    """The proxies that are believed, where there is something to believe."""
    trusted = tuple(entry.trusted_proxies)
    if entry.proxy_protocol and not trusted:
        draft.wrong(
            (*path, "proxy_protocol"),
            "needs trusted_proxies: whoever may send a PROXY header says who he is",
        )
    if trusted and not entry.proxy_protocol and entry.listen.scheme in ("tcp", "tls"):
        draft.wrong(
            (*path, "trusted_proxies"),
            f"can tell a {entry.listen.scheme} port whose a connection is by PROXY headers only:"
            " add proxy_protocol: true",
        )
    return trusted


def resolve_tls(draft: Draft, path: KeyPath, scheme: str, entry: ServerTlsSection | None) -> ServerTls | None:
    """The TLS of a port. Its files are tried, so that what is wrong with them is told with all the rest."""
    if scheme != "https":
        if entry is not None:
            draft.wrong(path, f"is for https ports; this one speaks {scheme}")
        return None
    if entry is None:
        draft.wrong(path, "is missing: an https port needs tls: {certificates: [{cert: FILE, key: FILE}]}")
        return None
    client = entry.client
    if client.mode != "none" and client.ca is None:
        draft.wrong(
            (*path, "client", "ca"), f"is missing: client.mode {client.mode} needs the CA of the clients"
        )
    settings = ServerTls(
        certificates=tuple(
            Certificate(
                cert=absolute(draft, (*path, "certificates", number, "cert"), each.cert),
                key=absolute(draft, (*path, "certificates", number, "key"), each.key),
                ocsp=absolute(draft, (*path, "certificates", number, "ocsp"), each.ocsp)
                if each.ocsp
                else None,
            )
            for number, each in enumerate(entry.certificates)
        ),
        min_version=cast(Literal["1.2", "1.3"], entry.min_version),
        ciphers=entry.ciphers,
        groups=entry.groups,
        tickets=entry.tickets,
        client_mode=cast(Literal["none", "request", "require"], client.mode),
        client_ca=absolute(draft, (*path, "client", "ca"), client.ca) if client.ca else None,
        client_crl=tuple(absolute(draft, (*path, "client", "crl"), each) for each in client.crl),
    )
    say(draft, path, check_server(settings))
    return settings


def say(draft: Draft, path: KeyPath, found: tuple[list[str], list[str]]) -> None:
    problems, warnings = found
    for problem in problems:
        draft.wrong(path, problem)
    for warning in warnings:
        draft.warn(path, warning)


def paired(draft: Draft, index: int, entry: ExternalSection, names: list[str]) -> str | None:
    """The registration port that takes what has no local service here."""
    path = draft.path("external", index, "registration")
    if entry.registration:
        if entry.registration not in names and "registration" not in draft.incomplete:
            known = f"known are {', '.join(names)}" if names else "there is none"
            draft.wrong(path, f"there is no registration port {entry.registration!r}; {known}")
        return entry.registration
    if len(names) > 1:
        draft.wrong(
            path, f"is missing: there are several registration ports; name one: {values.choices(names)}"
        )
    return names[0] if names else None


# --- users -------------------------------------------------------------------------


def resolve_user(draft: Draft, index: int, entry: UserSection) -> User:
    may = entry.may
    rights = Rights(
        services=tuple(may.services),
        tcp=tuple(may.tcp),
        tls=tuple(may.tls),
        call=tuple(may.call) if "call" in may.model_fields_set else None,
        admin=cast(Literal["none", "read", "control"], may.admin),
        tunnels=may.tunnels,
        streams=may.streams,
    )
    path = draft.path("users", index, "certificates")
    rules = [resolve_rule(draft, (*path, place), each) for place, each in enumerate(entry.certificates)]
    return User(
        name=entry.name,
        tokens=tuple(entry.tokens),
        certificates=tuple(rule for rule in rules if rule is not None),
        passwords=tuple(entry.passwords),
        rights=rights,
    )


def resolve_rule(draft: Draft, path: KeyPath, entry: UserCertificateSection) -> CertificateRule | None:
    named = entry.subject is not None or entry.san is not None
    if (entry.fingerprint is not None) == (entry.ca is not None or named):
        draft.wrong(path, "is either a fingerprint, or a ca with a subject or san")
        return None
    if entry.fingerprint is not None:
        return CertificateRule(fingerprint=entry.fingerprint)
    if entry.ca is None or not named:
        draft.wrong(path, "ca belongs together with subject or san")
        return None
    try:
        anchors = read_certificates(absolute(draft, (*path, "ca"), entry.ca))
    except ValueError as error:
        draft.wrong((*path, "ca"), str(error))
        return None
    der = tuple(each.public_bytes(Encoding.DER) for each in anchors)
    return CertificateRule(anchors=der, subject=entry.subject or (), san=entry.san)


# --- services ----------------------------------------------------------------------


def resolve_services(draft: Draft, limits: Limits, timeouts: Timeouts) -> tuple[Service, ...]:
    places, out = [], []
    for index, entry in enumerate(draft.file.services):
        path = draft.path("services", index)
        match = resolve_match(draft, path, entry)
        if not match:
            continue
        own_limits, own_timeouts = entry.limits.own(), entry.timeouts.own()
        places.append(draft.indexes["services"][index])
        out.append(
            Service(
                match=match,
                upstreams=resolve_upstreams(draft, path, entry),
                limits=limits.with_own(own_limits),
                timeouts=timeouts.with_own(own_timeouts),
                own_limits=own_limits,
                own_timeouts=own_timeouts,
                says_idle="idle" in own_timeouts or "idle" in draft.file.timeouts.own(),
                own_upgrades=tuple(entry.upgrades) if "upgrades" in entry.model_fields_set else None,
                tls=resolve_upstream_tls(draft, path, entry),
                proxy_protocol=resolve_proxy_header(draft, path, entry),
                health=resolve_health(draft, path, entry),
                auth=resolve_auth(entry.auth),
                trust_identity=entry.trust_identity,
            )
        )
    if len(out) < len(draft.file.services):
        draft.incomplete |= {"services"}
    draft.indexes["services"] = places
    return tuple(out)


def resolve_health(draft: Draft, path: KeyPath, entry: ServiceSection) -> HealthCheck | None:
    given, speaks_http = entry.health, entry.upstream[0].scheme in ("http", "https")
    if given is None:
        return None
    kind = given.check or ("http" if speaks_http else "tcp")
    if kind == "http" and not speaks_http:
        draft.wrong((*path, "health", "check"), "http is for http services: this one can be checked with tcp")
    for key in {"path", "host", "status"} & given.model_fields_set:
        if kind != "http":
            draft.wrong((*path, "health", key), "is for checks of the kind http")
    return HealthCheck(
        kind=cast(Literal["http", "tcp"], kind),
        path=given.path,
        host=given.host or "",
        status=given.status,
        interval=given.interval,
        timeout=given.timeout,
        rise=given.rise,
        fall=given.fall,
    )


def resolve_upstream_tls(draft: Draft, path: KeyPath, entry: ServiceSection) -> ClientTls | None:
    given, here = entry.tls, (*path, "tls")
    if entry.upstream[0].scheme != "https":
        if given.own():
            draft.wrong(here, "is for https upstreams")
        return None
    if not given.verify:
        draft.warn((*here, "verify"), "whoever answers at the upstream's address is believed")
    return resolve_client_tls(draft, here, given, given.server_name or "", given.verify)


def resolve_proxy_header(draft: Draft, path: KeyPath, entry: ServiceSection) -> Literal["v1", "v2"] | None:
    if entry.proxy_protocol is not None and entry.upstream[0].scheme not in ("tcp", "tls"):
        draft.wrong((*path, "proxy_protocol"), "is for tcp and tls upstreams; http ones get X-Forwarded-For")
        return None
    return cast(Literal["v1", "v2"] | None, entry.proxy_protocol)


def resolve_client_tls(
    draft: Draft,
    path: KeyPath,
    given: DialTlsSection | UpstreamTlsSection,
    server_name: str = "",
    verify: bool = True,
) -> ClientTls | None:
    """What this node believes and shows where it dials. Its files are tried."""
    cert, key = given.cert, given.key
    if (cert is None) != (key is None):
        draft.wrong(path, "cert and key belong together")
        return None
    certificate = None
    if cert is not None and key is not None:
        certificate = Certificate(
            cert=absolute(draft, (*path, "cert"), cert), key=absolute(draft, (*path, "key"), key)
        )
    settings = ClientTls(
        ca=absolute(draft, (*path, "ca"), given.ca) if given.ca else None,
        crl=tuple(absolute(draft, (*path, "crl"), each) for each in given.crl),
        certificate=certificate,
        server_name=server_name,
        verify=verify,
    )
    say(draft, path, check_client(settings))
    return settings


def resolve_match(draft: Draft, path: KeyPath, entry: ServiceSection) -> Match | None:
    scheme = entry.upstream[0].scheme
    if scheme == "tcp":
        return resolve_name(draft, path, entry)
    if entry.name is not None:
        draft.wrong((*path, "name"), "is for tcp services; an http service has match: [HOST][/PATH]")
        return None
    try:
        if scheme == "tls":
            return values.parse_server_match("*" if entry.match is None else entry.match)
        return values.parse_match("/" if entry.match is None else entry.match)
    except ValueError as error:
        draft.wrong((*path, "match"), str(error))
        return None


def resolve_name(draft: Draft, path: KeyPath, entry: ServiceSection) -> Match | None:
    """A tcp service has a name; `match` may hold it too, as it stands left of the `=` in a SPEC."""
    if entry.name is not None and entry.match is not None:
        draft.wrong((*path, "match"), "is for http services; a tcp service has a name only")
        return None
    if entry.name is None and entry.match is None:
        draft.wrong((*path, "name"), "is missing: a tcp service needs a name, as in db=tcp://127.0.0.1:5432")
        return None
    try:
        return Match(name=values.parse_name(entry.match if entry.name is None else entry.name))
    except ValueError as error:
        draft.wrong((*path, "match"), str(error))
        return None


def resolve_upstreams(draft: Draft, path: KeyPath, entry: ServiceSection) -> tuple[Upstream, ...]:
    for index, each in enumerate(entry.upstream):
        here = (*path, "upstream", index)
        if each.scheme != entry.upstream[0].scheme:
            draft.wrong(here, "is of another kind than the first; all upstreams of a service are alike")
        elif each.url in [other.url for other in entry.upstream[:index]]:
            draft.wrong(here, "stands twice")
    return tuple(absolute_upstream(draft, path, each) for each in entry.upstream)


def absolute_upstream(draft: Draft, path: KeyPath, upstream: Upstream) -> Upstream:
    if not upstream.path:
        return upstream
    try:
        found = values.parse_unix(str(absolute(draft, path, Path(upstream.path))))
        return replace(found, weight=upstream.weight)
    except ValueError as error:
        draft.wrong((*path, "upstream"), str(error))
        return upstream


# --- what is dialled ---------------------------------------------------------------


def resolve_connect(
    draft: Draft, index: int, entry: ConnectSection, services: tuple[Service, ...]
) -> Connect:
    path = draft.path("connect", index, "token_file")
    token_file = entry.token_file and absolute(draft, path, entry.token_file)
    return Connect(
        scheme=cast(Literal["http", "https"], entry.url.scheme),
        tls=resolve_dial_tls(draft, draft.path("connect", index, "tls"), entry),
        host=entry.url.host,
        port=entry.url.port,
        token=read_token(draft, path, token_file) if token_file else None,
        token_file=token_file,
        bearer=entry.bearer,
        tunnels=entry.tunnels,
        services=services,
        proxy=resolve_proxy(draft, draft.path("connect", index, "proxy"), entry),
    )


def resolve_proxy(draft: Draft, path: KeyPath, entry: ConnectSection) -> Proxy | None:
    if entry.proxy is None:
        try:
            return proxy_for(entry.url.scheme, entry.url.host, entry.url.port)
        except ValueError as error:
            draft.wrong(path, str(error))
            return None
    host, port = entry.proxy.url
    credentials = None
    if entry.proxy.credentials_file is not None:
        path = (*path, "credentials_file")
        file = absolute(draft, path, entry.proxy.credentials_file)
        try:
            credentials = read_credentials(file)
        except ValueError as error:
            draft.wrong(path, str(error))
        else:
            warn_of_readers(draft, path, file)
    return Proxy(host=host, port=port, credentials=credentials)


def resolve_dial_tls(draft: Draft, path: KeyPath, entry: ConnectSection) -> ClientTls | None:
    given = entry.tls
    if entry.url.scheme != "https":
        if given.own():
            draft.wrong(path, "is for https URLs; this one is http")
        return None
    return resolve_client_tls(draft, path, given)


def read_token(draft: Draft, path: KeyPath, file: Path) -> Secret | None:
    try:
        token = read_token_file(file)
    except ValueError as error:
        draft.wrong(path, str(error))
        return None
    warn_of_readers(draft, path, file)
    return token


def warn_of_readers(draft: Draft, path: KeyPath, file: Path) -> None:
    if readable_by_others(file):
        draft.warn(path, f"the file {file} can be read by other users of this machine; chmod 600 mends it")


def absolute(draft: Draft, path: KeyPath, given: Path) -> Path:
    """Relative to the file that says so; on the command line, to the current directory."""
    file = draft.document.origin(path).file
    return (file.parent if file else Path()).absolute() / given
