"""The command line as part of the document, so that flags pass the same checks as a file.

URLs and SPECs are added to what the file has; `--admin` replaces the file's admin port;
`--tunnels` and `--token-file` hold for the URLs of the command line or, where there are
none, for every registration port that the file dials.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from broker.config.document import Document, KeyPath, Origin
from broker.config.model import Flags
from broker.config.values import split_spec
from broker.errors import UsageError

DEFAULT_EXTERNAL = "http://127.0.0.1:8080"
DEFAULT_REGISTRATION = "http://127.0.0.1:7000"
DEFAULT_ADMIN = "http://127.0.0.1:7001"

USER_INFO = re.compile(r"//[^/]*@")


def split_where(where: tuple[str, ...]) -> tuple[Path | None, tuple[str, ...]]:
    """`[CONFIG] [URL]...`: what has a scheme is a URL."""
    urls = tuple(each for each in where if "://" in each)
    files = [each for each in where if "://" not in each]
    for each in files:
        if not Path(each).exists():
            raise UsageError(f"{each} is neither a file nor a URL such as {DEFAULT_REGISTRATION}")
    if len(files) > 1:
        raise UsageError(f"there can be one configuration file, not {len(files)}: {', '.join(files)}")
    return (Path(files[0]) if files else None), urls


def add_flags(document: Document, flags: Flags) -> None:
    listens = any(document.root.get(section) for section in ("external", "registration", "connect"))
    for url in flags.external:
        append(document, "external", port_entry(url), f"--external {url}")
    for url in flags.registration:
        append(document, "registration", port_entry(url), f"--registration {url}")
    for spec in flags.services:
        append(document, "services", service_entry(spec), f"--service {spec}")
    for url in flags.connect:
        append(document, "connect", {"url": url}, url)
    if flags.admin is not None:
        put_admin(document, flags.admin)
    if flags.workers is not None:
        put(document, ("workers",), flags.workers, "--workers")
    if not listens and flags.defaults:
        add_defaults(document, flags)
    override_connect(document, flags)


def put_admin(document: Document, url: str) -> None:
    """Another address; who may come there stays as the file says."""
    flag = f"--admin {url}"
    if isinstance(document.root.get("admin"), dict):
        put(document, ("admin", "listen"), url, flag)
    else:
        put(document, ("admin",), {"listen": url}, flag)


def add_defaults(document: Document, flags: Flags) -> None:
    """What stands in where neither a file nor a flag says where to listen or what to dial."""
    if flags.defaults == "connect":
        if not flags.connect:
            append(document, "connect", {"url": DEFAULT_REGISTRATION}, DEFAULT_REGISTRATION)
        return
    if not flags.external:
        append(document, "external", {"listen": DEFAULT_EXTERNAL}, f"--external {DEFAULT_EXTERNAL}")
    # An external port that has local services needs no agents.
    if not flags.registration and not (flags.external and document.root.get("services")):
        append(
            document,
            "registration",
            {"listen": DEFAULT_REGISTRATION},
            f"--registration {DEFAULT_REGISTRATION}",
        )
    # Where ports were chosen, the default address may belong to another node.
    if not flags.external and not flags.registration and "admin" not in document.root:
        put(document, ("admin",), {"listen": DEFAULT_ADMIN}, f"--admin {DEFAULT_ADMIN}")


def override_connect(document: Document, flags: Flags) -> None:
    entries = document.root.get("connect")
    if not isinstance(entries, list):
        return
    first = len(entries) - len(flags.connect) if flags.connect else 0
    for index, entry in enumerate(entries):
        if index < first or not isinstance(entry, dict):
            continue
        if flags.tunnels is not None:
            put(document, ("connect", index, "tunnels"), flags.tunnels, "--tunnels")
        if flags.token_file is not None:
            put(document, ("connect", index, "token_file"), str(flags.token_file), "--token-file")


def append(document: Document, section: str, entry: dict[str, Any], flag: str) -> None:
    entries = document.root.setdefault(section, [])
    if isinstance(entries, list):  # else the file's own mistake will be reported
        entries.append(entry)
        document.values[(section, len(entries) - 1)] = flag_origin(flag)


def put(document: Document, path: KeyPath, value: object, flag: str) -> None:
    """Sets what stands at the path, in place of what a file said."""
    for marks in (document.keys, document.values):
        for known in [each for each in marks if each[: len(path)] == path]:
            del marks[known]
    target: Any = document.root
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    document.values[path] = flag_origin(flag)


def flag_origin(flag: str) -> Origin:
    return Origin(None, flag=USER_INFO.sub("//***@", flag))


def port_entry(url: str) -> dict[str, Any]:
    """`URL?name=…&registration=…`: the query holds the other keys of a port."""
    listen, mark, query = url.partition("?")
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        return {"listen": url}
    entry: dict[str, Any] = dict(pairs)
    if len(entry) != len(pairs) or "listen" in entry or (mark and not query):
        return {"listen": url}
    files = {key: entry.pop(key) for key in ("cert", "key") if key in entry}
    if files:
        entry["tls"] = {"certificates": [files]}
    return {"listen": listen, **entry}


def service_entry(spec: str) -> dict[str, Any]:
    parts = split_spec(spec)
    entry: dict[str, Any] = {"upstream": parts.upstream}
    if parts.match:
        entry["name" if is_tcp(parts.upstream) else "match"] = parts.match
    return entry


def is_tcp(upstream: str) -> bool:
    return upstream[:6].lower() == "tcp://"
