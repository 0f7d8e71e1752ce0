"""Tokens: made once, kept as hashes in the DMZ node's file, and as a file beside the agent."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

from broker.config.model import Secret
from broker.errors import RunError

PREFIX = "broker_"  # lets secret scanners know what they found
HASH = re.compile(r"sha256:([0-9a-fA-F]{64})")
# What may stand after "Authorization: Bearer" (RFC 6750).
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{16,1024}=*")
MAX_FILE = 4096


def new_token() -> Secret:
    return Secret(PREFIX + secrets.token_urlsafe(32))


def token_digest(token: Secret) -> bytes:
    """What `User.tokens` holds of this token."""
    return hashlib.sha256(token.reveal().encode()).digest()


def token_hash(token: Secret) -> str:
    """The line for a configuration file."""
    return f"sha256:{token_digest(token).hex()}"


def parse_token(text: str) -> Secret:
    """The token in a line of its own; what `broker token new` printed, with the hash below, will do too."""
    lines = text.split()
    if not lines:
        raise ValueError("there is no token; `broker token new` makes one")
    token = Secret(lines[0])
    if HASH.fullmatch(lines[0]):
        raise ValueError("this is the hash of a token, not the token")
    if not TOKEN.fullmatch(lines[0]) or lines[1:] not in ([], [token_hash(token)]):
        raise ValueError("a token is one line of 16 to 1024 letters, digits or any of '._~+/-='")
    return token


def parse_token_hash(value: object) -> bytes:
    """The digest. The value itself isn't repeated in messages: it may be a token, written here by mistake."""
    found = HASH.fullmatch(value) if isinstance(value, str) else None
    if not found:
        raise ValueError(
            "must be a token's hash, `sha256:` and 64 hexadecimal digits, as `broker token hash` prints it"
        )
    return bytes.fromhex(found[1])


def read_token_file(path: Path) -> Secret:
    """Raises ValueError with a sentence."""
    try:
        with path.open(encoding="ascii") as file:
            text = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ValueError(f"the file {path} can't be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"the file {path} doesn't hold a token") from None
    if len(text) > MAX_FILE:
        raise ValueError(f"the file {path} is too long to hold one token")
    try:
        return parse_token(text)
    except ValueError as error:
        raise ValueError(f"the file {path}: {error}") from None


def write_token_file(path: Path, token: Secret) -> None:
    """A new file that only its owner can read. RunError where that can't be."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise RunError(f"{path} exists already and stays as it is; give another file") from None
    except OSError as error:
        raise RunError(f"{path} can't be written: {error.strerror}") from None
    with os.fdopen(descriptor, "w") as file:
        file.write(token.reveal() + "\n")


def readable_by_others(path: Path) -> bool:
    return bool(os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH))
