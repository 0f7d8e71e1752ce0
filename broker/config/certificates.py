"""Which client certificates prove a user, as a configuration file says it.

    sha256:HEX                                       one certificate, by the SHA-256 of its DER form
    {ca: FILE, subject: "CN=agent-*,O=Example"}      those that a CA has signed, by names in their subject
    {ca: FILE, san: "DNS:*.agents.example"}          or by a subject alternative name

In patterns `*` stands for one or more characters, but not for what separates parts of a name: dots in DNS
names, slashes in URIs, the @ of mail addresses. So a pattern means what it looks like.
"""

from __future__ import annotations

import re

SUBJECT_KEYS = ("CN", "O", "OU", "C", "ST", "L", "DC", "UID", "SERIALNUMBER", "EMAIL")
SAN_KINDS = ("DNS", "URI", "EMAIL", "IP")

_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64}|[0-9a-fA-F]{2}(?::[0-9a-fA-F]{2}){31})")
_COMMA = re.compile(r"(?<!\\),")
_LONGEST = 500  # characters of a pattern

NamePattern = tuple[str, str]  # an attribute or kind, and the pattern of its value


def parse_fingerprint(value: object) -> bytes:
    """Also with colons, as `openssl x509 -fingerprint -sha256` prints it."""
    found = _FINGERPRINT.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(
            "must be a certificate's fingerprint, `sha256:` and 64 hexadecimal digits,"
            " as `broker tls map` prints it"
        )
    return bytes.fromhex(found[1].replace(":", ""))


def parse_subject(value: object) -> tuple[NamePattern, ...]:
    """`CN=agent-*,O=Example`; without an attribute: the common name. A comma in a value is written `\\,`."""
    given = _checked(value)
    if "=" not in given:
        given = f"CN={given}"
    out = []
    for part in _COMMA.split(given):
        key, equals, pattern = part.strip().partition("=")
        if not equals or key.upper() not in SUBJECT_KEYS or not pattern:
            raise ValueError(
                f"{part.strip()!r} is not ATTRIBUTE=PATTERN; attributes: {', '.join(SUBJECT_KEYS)}"
            )
        out.append((key.upper(), pattern.replace("\\,", ",")))
    return tuple(out)


def parse_san(value: object) -> NamePattern:
    """`DNS:*.agents.example`, `URI:spiffe://example/agent/*`, `EMAIL:…`, `IP:…`; without a kind: DNS."""
    given = _checked(value)
    kind, colon, pattern = given.partition(":")
    if colon and kind.upper() in SAN_KINDS:
        kind = kind.upper()
    elif colon:
        raise ValueError(f"{kind!r} is not a kind of name: {', '.join(SAN_KINDS)}, as in DNS:a.example")
    else:
        kind, pattern = "DNS", given
    if not pattern:
        raise ValueError("has no name")
    return kind, pattern.lower() if kind in ("DNS", "IP") else pattern


def _checked(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("must be a text")
    if len(value) > _LONGEST or not value.isprintable():
        raise ValueError(f"must be at most {_LONGEST} printable characters")
    return value.strip()


def as_rules(value: object) -> object:
    """A rule that is a text alone is a fingerprint."""
    if not isinstance(value, list):
        return value
    return [{"fingerprint": each} if not isinstance(each, dict) else each for each in value]
