"""Whether the configuration makes sense as a whole."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from broker.config.document import KeyPath, format_path
from broker.config.model import Admin, Config, ExternalPort, Listen, RegistrationPort, User, authority
from broker.config.schema import AuthSection, LimitsSection, TimeoutsSection
from broker.config.validate import Draft

# What can't do anything where it stands: it may stand there, but is hardly meant.
WITHOUT_EFFECT = {
    "external": {"limits": {"streams", "memory"}, "timeouts": {"drain"}},
    "registration": {
        "limits": set(LimitsSection.model_fields) - {"connections", "streams"},
        "timeouts": set(TimeoutsSection.model_fields) - {"head"},
    },
    "services": {
        "limits": {"connections", "connections_per_address", "streams", "waiting", "requests", "memory"},
        "timeouts": {"head", "agent_wait", "drain"},
    },
}
PLACES = {"external": "an external port", "registration": "a registration port", "services": "a service"}


def check(draft: Draft, config: Config) -> None:
    check_purpose(draft, config)
    check_names(draft, config)
    check_addresses(draft, config)
    check_credentials(draft, config)
    check_users(draft, config)
    check_auth(draft, config)
    check_services(draft, config)
    check_answers(draft, config)
    check_connect(draft, config)


def check_purpose(draft: Draft, config: Config) -> None:
    sections = {"external", "registration", "connect"}
    if not (config.external or config.registration or config.connect) and not draft.incomplete & sections:
        draft.wrong(
            (), "there is nothing to listen on and nothing to dial: give external, registration or connect"
        )


def once(draft: Draft, found: Iterable[tuple[object, KeyPath]], message: str) -> None:
    """Complains of every thing that was seen before; `message` has a place for where."""
    seen: dict[object, KeyPath] = {}
    for thing, path in found:
        if thing in seen:
            draft.wrong(path, message.format(thing, where=format_path(seen[thing])))
        else:
            seen[thing] = path


def check_names(draft: Draft, config: Config) -> None:
    message = "the name {!r} is taken already, by {where}"
    once(draft, [(e.name, draft.path("external", i, "name")) for i, e in enumerate(config.external)], message)
    doors = [(each.name, draft.path("registration", i, "name")) for i, each in enumerate(config.registration)]
    once(draft, doors, message)


# --- addresses and who may reach them ----------------------------------------------


def listens(draft: Draft, config: Config) -> list[tuple[Listen, KeyPath]]:
    out: list[tuple[Listen, KeyPath]] = []
    out += [(port, draft.path("external", i, "listen")) for i, port in enumerate(config.external)]
    out += [(port, draft.path("registration", i, "listen")) for i, port in enumerate(config.registration)]
    if config.admin:
        out.append((config.admin, ("admin", "listen")))
    return out


def check_addresses(draft: Draft, config: Config) -> None:
    seen: list[tuple[Listen, KeyPath]] = []
    for port, path in listens(draft, config):
        clash = next((where for other, where in seen if overlap(port, other)), None)
        if clash:
            address = authority(port.host, port.port)
            draft.wrong(path, f"the address {address} is taken already, by {format_path(clash)}")
        seen.append((port, path))


def overlap(one: Listen, other: Listen) -> bool:
    """Whether the kernel would refuse to bind both."""
    if one.port != other.port or one.port == 0:
        return False
    if one.host == other.host:
        return True
    return (":" in one.host) == (":" in other.host) and bool({one.host, other.host} & {"0.0.0.0", "::"})


def check_credentials(draft: Draft, config: Config) -> None:
    complain = draft.warn if config.flags.insecure else draft.wrong
    mend = "" if config.flags.insecure else ", or start with --insecure"
    if not any(user.tokens or user.certificates for user in config.users) and "users" not in draft.incomplete:
        for index, port in enumerate(config.registration):
            if not port.is_loopback:
                complain(
                    draft.path("registration", index, "listen"),
                    f"{port.host} is not a loopback address and no user has a token or certificate, so that"
                    " anyone who reaches this port can announce services: add users with tokens"
                    f" (`broker token new`), listen on 127.0.0.1{mend}",
                )
    for index, port in enumerate(config.registration):
        check_registration(draft, draft.path("registration", index), port)
    if config.admin and not config.admin.is_loopback and not config.admin.auth:
        complain(
            ("admin", "listen"),
            f"{config.admin.host} is not a loopback address and the admin port asks for no credentials, so"
            " that anyone who reaches it sees all that this node does: add auth: token, and users with a"
            f" token and may: {{admin: read}} or control; or listen on 127.0.0.1{mend}",
        )
    if config.admin and config.admin.auth:
        check_admin(draft, config, config.admin)


def check_admin(draft: Draft, config: Config, admin: Admin) -> None:
    if "certificate" in admin.auth and (admin.tls is None or admin.tls.client_mode == "none"):
        draft.wrong(
            ("admin", "auth"),
            "certificate needs a port that asks for them: https with tls.client, mode request or require",
        )
    proofs = {"token": "tokens", "certificate": "certificates"}
    able = any(user.rights.admin != "none" and has_proof(user, admin.auth) for user in config.users)
    if not able and "users" not in draft.incomplete:
        draft.wrong(
            ("admin", "auth"),
            f"nobody could get in: no user has {' or '.join(proofs[kind] for kind in admin.auth)} and"
            " may: {admin: read} or {admin: control}",
        )
    if admin.tls is None and "token" in admin.auth and not admin.is_loopback:
        draft.warn(
            ("admin", "listen"),
            "tokens travel unencrypted to the admin port; anyone on the way can read and use them: use https",
        )


def has_proof(user: User, kinds: tuple[str, ...]) -> bool:
    return bool(("token" in kinds and user.tokens) or ("certificate" in kinds and user.certificates))


def check_registration(draft: Draft, path: KeyPath, port: RegistrationPort) -> None:
    asks = port.tls is not None and port.tls.client_mode != "none"
    if port.auth in ("certificate", "both") and not asks:
        draft.wrong(
            (*path, "auth"),
            f"{port.auth} needs a port that asks for certificates: https with tls.client.mode",
        )
    if port.tls is None and (port.host in ("0.0.0.0", "::") or not is_private(port.host)):
        draft.warn(
            (*path, "listen"),
            f"what passes through tunnels at {port.host} is not encrypted; where that is no private"
            " network, anyone on the way can read and change it: use https",
        )


def check_users(draft: Draft, config: Config) -> None:
    users = list(enumerate(config.users))
    names = [(user.name, draft.path("users", i, "name")) for i, user in users]
    once(draft, names, "the name {!r} is taken already, by {where}")
    tokens = [
        (token, draft.path("users", i, "tokens", place))
        for i, user in users
        for place, token in enumerate(user.tokens)
    ]
    once(draft, tokens, "this token is given already, by {where}: a token proves one user only")
    rules = [
        (repr(rule), draft.path("users", i, "certificates", place))
        for i, user in enumerate(draft.file.users)
        for place, rule in enumerate(user.certificates)
    ]
    once(draft, rules, "this certificate is given already, by {where}: it proves one user only")
    for i, user in users:
        if not (user.tokens or user.certificates or user.passwords):
            draft.warn(
                draft.path("users", i),
                f"{user.name} has no tokens, certificates or passwords and can't log in",
            )
        rights = user.rights
        if rights.admin != "none":
            if config.admin is None or not config.admin.auth:
                draft.warn(
                    draft.path("users", i, "may", "admin"),
                    "has no effect: there is no admin port that asks for credentials (admin.auth)",
                )
        elif rights.call is None and not (rights.services or rights.tcp or rights.tls):
            draft.warn(
                draft.path("users", i),
                f'{user.name} may announce nothing: say what in may, as in {{services: ["*"], tcp: ["*"]}},'
                ' or what he may call, as in {call: ["*"]}',
            )


def check_auth(draft: Draft, config: Config) -> None:
    """Of clients: that what is asked can be proven, and is asked where it works."""
    for i, port in enumerate(config.external):
        if port.auth is None:
            continue
        path = draft.path("external", i, "auth")
        check_proofs(draft, config, path, draft.file.external[i].auth)
        if port.scheme in ("tcp", "tls") and port.auth.kinds:
            draft.wrong(
                path, f"is for http and https ports: nothing on a {port.scheme} port says who a client is"
            )
        if "certificate" in port.auth.kinds and not asks_certificates(port):
            draft.wrong(
                path,
                "certificate needs a port that asks for them: https with tls.client, mode request or require",
            )
        if {"token", "basic"} & {*port.auth.kinds} and port.scheme == "http" and not is_private(port.host):
            draft.warn(
                path, "credentials travel unencrypted to this port; anyone on the way can read and use them"
            )
    for i, service in enumerate(config.services):
        if service.auth is None:
            continue
        path = draft.path("services", i, "auth")
        check_proofs(draft, config, path, draft.file.services[i].auth)
        if service.kind != "http":
            draft.wrong(path, "is for http services: nothing in a tcp or tls connection says who a client is")
        if config.connect:
            draft.wrong(
                path,
                "is for services of external ports; requests from tunnels were let in by the DMZ node's port",
            )
        if "certificate" in service.auth.kinds and not any(map(asks_certificates, config.external)):
            draft.wrong(path, "certificate needs an https port with tls.client, mode request or require")


def asks_certificates(port: ExternalPort) -> bool:
    return port.tls is not None and port.tls.client_mode != "none"


def check_proofs(draft: Draft, config: Config, path: KeyPath, entry: AuthSection | None) -> None:
    assert entry is not None
    if "users" in draft.incomplete:
        return
    if "none" in entry.kind:
        if len(entry.kind) > 1:
            draft.wrong((*path, "kind"), "none stands alone")
        return
    names = {user.name for user in config.users}
    for place, name in enumerate(entry.users):
        if name not in names:
            draft.wrong((*path, "users", place), f"there is no user {name!r}")
    proofs = {"token": "tokens", "basic": "passwords", "certificate": "certificates"}
    if not any(getattr(user, proofs[kind]) for user in config.users for kind in entry.kind):
        draft.wrong(
            path,
            f"nobody could prove himself: no user has {' or '.join(proofs[kind] for kind in entry.kind)}",
        )


# --- services ----------------------------------------------------------------------


def check_services(draft: Draft, config: Config) -> None:
    matches = [
        (str(service.match), draft.path("services", i, "name" if service.name else "match"))
        for i, service in enumerate(config.services)
    ]
    once(draft, matches, "{!r} is served already, by {where}; several addresses go into one upstream list")


def check_answers(draft: Draft, config: Config) -> None:
    """Whether something can answer behind every port, and a port leads to everything."""
    http = any(service.kind == "http" for service in config.services)
    tcp = {service.name for service in config.services if service.kind == "tcp"}
    unsure = draft.incomplete & {"services", "registration"}
    for i, port in enumerate(config.external):
        if port.registration or unsure:
            continue
        if port.scheme == "tcp" and port.service not in tcp:
            draft.wrong(
                draft.path("external", i, "listen"),
                f"there is no tcp service {port.service!r}, and no registration port to announce one at",
            )
        elif port.scheme == "tls" and not any(name.startswith("tls/") for name in tcp):
            draft.warn(
                draft.path("external", i),
                "nothing can answer: there is no tls service and no registration port",
            )
        elif port.scheme.startswith("http") and not http:
            draft.warn(
                draft.path("external", i),
                "nothing can answer: there is no http service and no registration port",
            )
    used = {port.registration for port in config.external}
    for i, door in enumerate(config.registration):
        if door.name not in used and "external" not in draft.incomplete:
            draft.warn(draft.path("registration", i), "no external port leads to what agents announce here")
    if not config.external or config.connect:
        return
    reached = {port.service for port in config.external}
    by_server_name = any(port.scheme == "tls" for port in config.external)
    for i, service in enumerate(config.services):
        if service.name.startswith("tls/"):
            if not by_server_name:
                draft.warn(draft.path("services", i), f"no tls port leads to the service {service.match}")
        elif service.name and service.name not in reached:
            draft.warn(
                draft.path("services", i), f"no external port leads to the tcp service {service.name!r}"
            )


def check_connect(draft: Draft, config: Config) -> None:
    dialled = [(each.url, draft.path("connect", i, "url")) for i, each in enumerate(config.connect)]
    once(draft, dialled, "{} is dialled already, by {where}; more tunnels are a matter of `tunnels`")
    if config.connect and not config.services and "services" not in draft.incomplete:
        draft.wrong(
            draft.path("connect", 0),
            "there is no service to announce: add one to services, or --service http://127.0.0.1:9000",
        )
    for i, each in enumerate(config.connect):
        if each.scheme != "http" or is_private(each.host):
            continue
        what = "the token travels" if each.token and each.bearer else "the tunnel goes"
        draft.warn(
            draft.path("connect", i, "url"),
            f"{what} to {each.host} unencrypted; anyone on the way can read and use what passes",
        )


def is_private(host: str) -> bool:
    """An address that the public network doesn't carry; a name may be anything, and isn't looked up here."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return True


def check_effects(draft: Draft) -> None:
    """Before anything is resolved: looks at what was written."""
    for section, kinds in WITHOUT_EFFECT.items():
        for index, entry in enumerate(getattr(draft.file, section)):
            for kind, keys in kinds.items():
                for key in sorted(getattr(entry, kind).model_fields_set & keys):
                    draft.warn(draft.path(section, index, kind, key), f"has no effect at {PLACES[section]}")
