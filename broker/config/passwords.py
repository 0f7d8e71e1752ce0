"""Passwords of people: kept as salted scrypt hashes (RFC 7914), in PHC string format, as others do.

    $scrypt$ln=15,r=8,p=1$SALT$KEY        salt and key in base64 without padding

A token of 256 random bits needs no salt and no slow function; what a person can remember needs both.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
import unicodedata

from broker.config.model import PasswordHash, Secret

# 32 MiB and some 80 ms of one processor for each try.
LOG_N, R, P = 15, 8, 1
SALT_SIZE = KEY_SIZE = 32
SHORTEST = 8
LONGEST = 1024  # bytes
# What a configuration file may ask for: a mistake in it must not stop the node.
MAX_MEMORY = 256 << 20
MAX_P = 16

_HASH = re.compile(
    r"\$scrypt\$ln=([0-9]{1,2}),r=([0-9]{1,2}),p=([0-9]{1,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})"
)


def hash_password(password: Secret) -> PasswordHash:
    salt = secrets.token_bytes(SALT_SIZE)
    blank = PasswordHash(salt=salt, key=bytes(KEY_SIZE), log_n=LOG_N, r=R, p=P)
    return PasswordHash(salt=salt, key=_derive(password, blank), log_n=LOG_N, r=R, p=P)


def verify_password(password: Secret, known: PasswordHash) -> bool:
    """Takes tens of milliseconds, whatever the answer, and lets other threads run meanwhile."""
    return hmac.compare_digest(_derive(password, known), known.key)


def format_password_hash(known: PasswordHash) -> str:
    """The line for a configuration file."""
    return f"$scrypt$ln={known.log_n},r={known.r},p={known.p}${_text(known.salt)}${_text(known.key)}"


def parse_password(text: str) -> Secret:
    """A password as it was typed, without the end of its line. ValueError, which does not repeat it."""
    line = text.removesuffix("\n").removesuffix("\r")
    if len(line) < SHORTEST or len(line.encode()) > LONGEST:
        raise ValueError(f"a password has {SHORTEST} or more characters, and at most {LONGEST} bytes")
    if not line.isprintable():
        raise ValueError("a password is one line without control characters")
    return Secret(line)


def parse_password_hash(value: object) -> PasswordHash:
    """The value isn't repeated in messages: it may be a password, written here by mistake."""
    found = _HASH.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(
            "must be a password's hash, `$scrypt$…`, as `broker token hash --password` prints it"
        )
    log_n, r, p = (int(found[place]) for place in (1, 2, 3))
    if not (log_n and r and 0 < p <= MAX_P and 128 * r * 2**log_n <= MAX_MEMORY):
        raise ValueError(f"must not take more than {MAX_MEMORY >> 20} MiB for each try, nor p above {MAX_P}")
    try:
        return PasswordHash(salt=_bytes(found[4]), key=_bytes(found[5]), log_n=log_n, r=r, p=p)
    except binascii.Error:
        raise ValueError("has a salt or key that is not base64 without padding") from None


def _derive(password: Secret, how: PasswordHash) -> bytes:
    # The same characters, however a keyboard composes them (RFC 8265, 4.2: OpaqueString).
    typed = unicodedata.normalize("NFC", password.reveal()).encode("utf-8", "surrogatepass")
    n = 1 << how.log_n
    memory = 128 * how.r * (n + how.p) + (1 << 20)
    return hashlib.scrypt(typed, salt=how.salt, n=n, r=how.r, p=how.p, maxmem=memory, dklen=len(how.key))


def _text(data: bytes) -> str:
    return base64.b64encode(data).rstrip(b"=").decode("ascii")


def _bytes(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
