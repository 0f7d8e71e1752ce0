"""Which HTTP proxy a dialled URL goes through: the file's, or the environment's.

`HTTPS_PROXY` is for https URLs, `HTTP_PROXY` for http ones, `ALL_PROXY` for both, `NO_PROXY` names what is
reached directly; each in lower case, too. The environment never sends loopback addresses through a proxy,
the file does.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote

from broker.config.model import Proxy, Secret, authority, is_loopback
from broker.config.values import parse_place, parse_url

DEFAULT_PORT = 80
EXAMPLE = "http://proxy.example.com:3128"
MAX_FILE = 4096
# What Basic can carry (RFC 7617 2): no colon in the name, no control characters in either.
CREDENTIALS = re.compile(r"[^:\x00-\x1f\x7f]+:[^\x00-\x1f\x7f]*")


def proxy_for(scheme: str, host: str, port: int, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """What the environment says. Raises ValueError, without the value: it may hold a password."""
    for name in (f"{scheme}_proxy", "all_proxy"):
        key = next((each for each in (name, name.upper()) if environ.get(each)), "")
        if key:
            bypass = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
            return None if is_direct(host, port, bypass) else parse_environment(key, environ[key])
    return None


def parse_environment(name: str, value: str) -> Proxy:
    """`[http://][USER:PASSWORD@]HOST[:PORT][/]`"""
    scheme, mark, rest = value.rpartition("://")
    if mark and scheme.lower() != "http":
        raise ValueError(
            f"the environment variable {name} names a proxy that is spoken to by {scheme.lower()}://;"
            f" only http:// is understood, as in {EXAMPLE}"
        )
    user, _, place = rest.rstrip("/").rpartition("@")
    credentials = None
    try:
        host, port = parse_place(place, DEFAULT_PORT, EXAMPLE, 1)
        if user:
            name_part, colon, password = user.partition(":")
            credentials = parse_credentials(f"{unquote(name_part)}{colon}{unquote(password)}")
    except ValueError:
        raise ValueError(f"the environment variable {name} is not a proxy's URL such as {EXAMPLE}") from None
    return Proxy(host=host, port=port, credentials=credentials)


def is_direct(host: str, port: int, bypass: str) -> bool:
    """Whether NO_PROXY names it: `*`, a host with all below it, an address, a network; a port may follow."""
    if is_loopback(host):
        return True
    for entry in re.split(r"[\s,]+", bypass.strip().lower()):
        if entry == "*" or entry == authority(host, port):
            return True
        name = entry
        if entry.count(":") == 1:
            name, _, wanted = entry.partition(":")
            if wanted != str(port):
                continue
        name = name.strip("[]").removeprefix("*").removeprefix(".")
        if name and (host == name or host.endswith("." + name) or in_network(host, name)):
            return True
    return False


def in_network(host: str, network: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(network, strict=False)
    except ValueError:
        return False


def parse_proxy(value: object) -> tuple[str, int]:
    """Of the file: host and port."""
    try:
        url = parse_url(value, ["http"], EXAMPLE)
    except ValueError as error:
        if "credentials" in str(error):
            raise ValueError("must not hold credentials; use credentials_file") from None
        raise
    if url.path not in ("", "/"):
        raise ValueError(f"must not have a path ({url.path})")
    return url.host, url.port


def parse_credentials(text: str) -> Secret:
    if not CREDENTIALS.fullmatch(text) or len(text) > MAX_FILE:
        raise ValueError("proxy credentials are one line, USER:PASSWORD")
    return Secret(text)


def read_credentials(path: Path) -> Secret:
    """Raises ValueError with a sentence."""
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"the file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} is not a text") from None
    try:
        return parse_credentials(text.rstrip("\r\n"))
    except ValueError as error:
        raise ValueError(f"the file {path}: {error}") from None
