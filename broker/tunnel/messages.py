"""msgpack from strangers: parameters of the handshake, control messages, and the services in both.

All that arrives is measured before it is decoded, decoded under limits and checked value by value.
Unknown keys and unknown message types are ignored, so that a newer and an older node work together.
Every function here raises ValueError, and only that, for what it refuses; the text is a clause for
people, safe to log and to send back.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgpack  # type: ignore[import-untyped]

from broker.config.model import Match
from broker.identity.patterns import SERVER_PREFIX, parse_match, parse_name, parse_server_name

MAX_CONTROL = 262144  # bytes of a control message: MAX_CONTROL of _fastpath/frame.pxd
MAX_SERVICES = 2000  # services that one agent announces
MAX_TEXT = 2048  # bytes of one text
MAX_KEYS = 64
MAX_SENTENCE = 256  # characters of a stranger's text that we show

_CODE = re.compile(r"[a-z][a-z-]{0,39}")


@dataclass(frozen=True, slots=True)
class Announce:
    """Agent to DMZ node: these are my services now, all of them."""

    services: tuple[Match, ...]
    down: tuple[Match, ...] = ()
    """Not in `services`, but they will come back: requests for them may wait."""


@dataclass(frozen=True, slots=True)
class RefusedService:
    service: str
    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class Refused:
    """DMZ node to agent: these of your services I do not take."""

    services: tuple[RefusedService, ...]


@dataclass(frozen=True, slots=True)
class Redial:
    """DMZ node to agent: another process takes over here; dial once more, and keep this tunnel meanwhile."""


Control: TypeAlias = Announce | Refused | Redial


# --- msgpack, decoded under limits --------------------------------------------------------------


def pack(value: Mapping[str, Any]) -> bytes:
    packed: bytes = msgpack.packb(value)
    return packed


def unpack_map(data: bytes) -> dict[str, Any]:
    """One msgpack map with text keys."""
    try:
        value = msgpack.unpackb(
            data,
            strict_map_key=True,
            ext_hook=_refuse_extension,
            max_str_len=MAX_TEXT,
            max_bin_len=MAX_TEXT,
            max_array_len=MAX_SERVICES,
            max_map_len=MAX_KEYS,
            max_ext_len=0,
        )
    except ValueError as error:
        raise ValueError(f"not the msgpack that was expected ({_shown(error)})") from None
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError("not a map with text keys")
    return value


def _refuse_extension(code: int, _data: bytes) -> Any:
    raise ValueError(f"extension type {code}")


def _shown(error: ValueError) -> str:
    return printable(str(error), 80) or type(error).__name__


def printable(text: str, limit: int = MAX_SENTENCE) -> str:
    """A stranger's text, safe to log: no control characters, no line ends, bounded."""
    shown = "".join(char if char.isprintable() else "\ufffd" for char in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "\u2026"


def integer(values: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = values.get(key)
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"'{key}' must be a number from {low} to {high}")
    return value


def text(values: Mapping[str, Any], key: str, form: re.Pattern[str], wanted: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not form.fullmatch(value):
        raise ValueError(f"'{key}' must be {wanted}")
    return value


# --- services -----------------------------------------------------------------------------------


def pack_service(service: Match) -> dict[str, str]:
    if service.name.startswith(SERVER_PREFIX):
        return {"tls": service.name.removeprefix(SERVER_PREFIX)}
    return {"name": service.name} if service.name else {"match": str(service)}


def pack_services(services: Iterable[Match]) -> list[dict[str, str]]:
    return [pack_service(service) for service in services]


def parse_services(value: Any) -> tuple[Match, ...]:
    """The announced services, each once, in their order."""
    if not isinstance(value, list):
        raise ValueError("'services' must be a list")
    if len(value) > MAX_SERVICES:
        raise ValueError(f"more than {MAX_SERVICES} services")
    return tuple(dict.fromkeys(parse_service(item) for item in value))


def parse_service(item: Any) -> Match:
    if not isinstance(item, dict):
        raise ValueError("a service must be a map")
    given = [key for key in _KEYS if key in item]
    if len(given) != 1 or not isinstance(item[given[0]], str):
        raise ValueError("a service must have either 'match', 'name' or 'tls', as text")
    return _parse_key(_KEYS[given[0]], item[given[0]])


_KEYS = {"match": parse_match, "name": parse_name, "tls": parse_server_name}


def _parse_key(parse: Callable[[str], Match], key: str) -> Match:
    try:
        return parse(key)
    except ValueError as error:
        raise ValueError(f"service '{printable(key, 80)}': {error}") from None


# --- control messages ---------------------------------------------------------------------------


def announce_bytes(services: Iterable[Match], down: Iterable[Match] = ()) -> bytes:
    message = {"type": "announce", "services": pack_services(services)}
    if absent := pack_services(down):
        message["down"] = absent
    return pack(message)


def refused_bytes(refused: Iterable[tuple[Match, str, str]]) -> bytes:
    items = [pack_service(service) | {"code": code, "reason": reason} for service, code, reason in refused]
    return pack({"type": "refused", "services": items})


def redial_bytes() -> bytes:
    return pack({"type": "redial"})


def read_control(payload: bytes) -> Control | None:
    """The message; None for a type that this version does not know."""
    if len(payload) > MAX_CONTROL:
        raise ValueError("a control message over the limit")
    message = unpack_map(payload)
    kind = message.get("type")
    if kind == "announce":
        return Announce(parse_services(message.get("services")), parse_services(message.get("down", [])))
    if kind == "refused":
        return Refused(_parse_refused(message.get("services")))
    if kind == "redial":
        return Redial()
    if not isinstance(kind, str):
        raise ValueError("'type' must be a text")
    return None


def _parse_refused(value: Any) -> tuple[RefusedService, ...]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("'services' must be a list of maps")
    return tuple(_parse_refused_service(item) for item in value)


def _parse_refused_service(item: dict[Any, Any]) -> RefusedService:
    service = item.get("match", item.get("name"))
    if service is None and isinstance(item.get("tls"), str):
        service = f"tls://{item['tls']}"
    reason = item.get("reason", "")
    if not isinstance(service, str) or not isinstance(reason, str):
        raise ValueError("a refused service must be named, and its reason be a text")
    return RefusedService(printable(service), text(item, "code", _CODE, "a code"), printable(reason))
