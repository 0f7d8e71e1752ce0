"""A configuration in words: what `broker check` prints."""

from __future__ import annotations

from collections.abc import Iterable

from broker.config.model import (
    Admin,
    Config,
    Connect,
    ExternalPort,
    Match,
    RegistrationPort,
    Service,
    User,
)

Row = tuple[str, ...]


def describe(config: Config) -> str:
    listens: list[Row] = [
        ("external", each.name, each.url, leads_to(each, config)) for each in config.external
    ]
    listens += [("registration", each.name, each.url, login(each, config)) for each in config.registration]
    if config.admin:
        listens.append(("admin", "", config.admin.url, watchers(config.admin)))
    parts = [
        part("listens", listens),
        part("dials", map(dials, config.connect)),
        part("services", (serves(each) for each in config.services)),
        part("users", map(may, config.users)),
    ]
    source = config.source or "the command line"
    return "\n".join([f"{source} is right", *(line for lines in parts for line in lines)])


def part(title: str, rows: Iterable[Row]) -> list[str]:
    table = [[cell.strip() for cell in row] for row in rows]
    if not table:
        return []
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in table]
    return [f"{title}:", *(f"  {line.rstrip()}" for line in lines)]


def leads_to(port: ExternalPort, config: Config) -> str:
    if port.service:
        local = any(service.name == port.service for service in config.services)
        where = "here" if local else f"behind {port.registration}"
        return f"-> the tcp service {port.service}, {where}"
    if port.scheme == "tls":
        goals = ["local services"] if any(each.name.startswith("tls/") for each in config.services) else []
        goals += [f"agents at {port.registration}"] if port.registration else []
        return f"-> by server name, unopened: {', then '.join(goals) or 'nothing'}"
    goals = ["local services"] if any(each.kind == "http" for each in config.services) else []
    goals += [f"agents at {port.registration}"] if port.registration else []
    return f"-> {', then '.join(goals) or 'nothing'}"


def login(port: RegistrationPort, config: Config) -> str:
    if not config.users:
        return "agents need no credentials"
    if port.auth == "both":
        return "agents need a token and a certificate"
    tokens = port.auth != "certificate" and any(user.tokens for user in config.users)
    certificates = port.auth != "token" and any(user.certificates for user in config.users)
    kinds = ["a token"] * tokens + ["a certificate"] * (certificates and port.scheme == "https")
    return (
        f"agents need {' or '.join(kinds)}" if kinds else "no agent can log in: no user has what it asks for"
    )


def watchers(admin: Admin) -> str:
    return f"needs a {' or '.join(admin.auth)}" if admin.auth else ""


def dials(connect: Connect) -> Row:
    return (
        connect.url,
        plural(connect.tunnels, "tunnel"),
        shows(connect),
        f"through {connect.proxy.name}" if connect.proxy else "",
    )


def shows(connect: Connect) -> str:
    certificate = connect.tls is not None and connect.tls.certificate is not None
    kinds = ["a token"] * (connect.token is not None) + ["a certificate"] * certificate
    return f"with {' and '.join(kinds)}" if kinds else "without credentials"


def serves(service: Service) -> Row:
    return shown(service.match), "-> " + ", ".join(upstream.url for upstream in service.upstreams)


def may(user: User) -> Row:
    rights = user.rights
    names = [shown(match) for match in rights.services]
    names += ["every tcp service" if name == "*" else f"tcp {name}" for name in rights.tcp]
    names += ["every tls service" if name == "*" else f"tls://{name}" for name in rights.tls]
    bounds = [f"at most {plural(rights.tunnels, 'tunnel')}"] if rights.tunnels is not None else []
    bounds += [f"at most {plural(rights.streams, 'stream')}"] if rights.streams is not None else []
    announces = "may announce " + (", ".join(names) or "nothing")
    seen = {"read": ["may read the admin port"], "control": ["may steer this node"]}.get(rights.admin, [])
    return user.name, credentials(user), "; ".join([announces, *bounds, *seen])


def credentials(user: User) -> str:
    counts = {
        "token": len(user.tokens),
        "certificate": len(user.certificates),
        "password": len(user.passwords),
    }
    return ", ".join(plural(count, kind) for kind, count in counts.items() if count) or "no credentials"


def shown(match: Match) -> str:
    return "every host and path" if match == Match() else str(match)


def plural(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
