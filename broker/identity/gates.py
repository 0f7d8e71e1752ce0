"""What ports and services ask of those who call them, compiled: whose a credential is, and what he may call.

Slow proofs (passwords) run in a thread of their own, one after another and a bounded number of them: whoever
guesses passwords delays others who log in for the first time, and nobody else.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import unicodedata
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import EllipsisType

from _fastpath.gate import PROOFS, Caller, Gate, Pending
from _fastpath.route import RouteTable, Target
from broker.config.model import Auth, Match, PasswordHash, Secret
from broker.identity.certificates import Chain
from broker.identity.users import Principal, Users

Key = str | tuple[str, bytes | PasswordHash]
REALM = "broker"
CHALLENGES = {"token": f'Bearer realm="{REALM}"', "basic": f'Basic realm="{REALM}", charset="UTF-8"'}
NOTHING = RouteTable([])
MAX_PENDING = 64  # passwords that wait to be looked at
CODE_OVERLOADED = 5  # end.pxd


@functools.cache
def slow_thread() -> ThreadPoolExecutor:
    """One: each try takes a processor and tens of MiB of memory."""
    return ThreadPoolExecutor(1, thread_name_prefix="passwords")


class Gates:
    """Makes the gates of one configuration; all of them know the same users."""

    def __init__(self, users: Users) -> None:
        self._users = users
        self._waiting: dict[bytes, list[Pending]] = {}

    def gate(self, auth: Auth | None) -> Gate | None:
        """None where nothing is asked."""
        if auth is None or not auth.kinds:
            return None
        challenges = [CHALLENGES[kind] for kind in auth.kinds if kind in CHALLENGES]
        return Gate(
            auth.kinds,
            self._callers(auth),
            self._verify,
            keeps=auth.pass_credentials,
            challenges=challenges or [f'Certificate realm="{REALM}"'],
        )

    def _callers(self, auth: Auth) -> dict[Key, Caller]:
        """By all credentials of the kinds that are asked for."""
        found: dict[Key, Caller] = {}
        for user in self._users:
            lines = f"Broker-User: {user.name}\r\n".encode()
            admitted = not auth.users or user.name in auth.users
            may = table_of(user.rights.call) if admitted else NOTHING
            if "certificate" in auth.kinds:
                found[user.name] = Caller(user.name, lines, may)
            keys: list[Key] = []
            if "token" in auth.kinds:
                keys += [(user.name, digest) for digest in user.tokens]
            if "basic" in auth.kinds:
                keys += [(user.name, password) for password in user.passwords]
            found.update((key, Caller(user.name, lines, may, key)) for key in keys)
        return found

    def _verify(
        self, proof: int, credential: bytes | Chain, pending: Pending | None
    ) -> Key | int | EllipsisType | None:
        if isinstance(credential, tuple):
            return key_of(self._users.by_certificate(credential))
        if proof == PROOFS["token"]:
            return key_of(self._users.by_token(credential.decode("latin-1")))
        return self._verify_password(credential, pending)

    def _verify_password(self, credential: bytes, pending: Pending | None) -> Key | int | EllipsisType | None:
        pair = read_basic(credential)
        if pair is None or pending is None:
            return None
        known = self._users.by_known_password(*pair)
        if known is not None:
            return key_of(known)
        waiting = self._waiting.get(credential)
        if waiting is not None:
            waiting.append(pending)
            return ...
        if len(self._waiting) >= MAX_PENDING:
            return CODE_OVERLOADED
        self._waiting[credential] = [pending]
        work = asyncio.get_running_loop().run_in_executor(slow_thread(), self._users.by_password, *pair)
        work.add_done_callback(functools.partial(self._settle, credential))
        return ...

    def _settle(self, credential: bytes, work: asyncio.Future[Principal | None]) -> None:
        failed = work.cancelled() or work.exception() is not None
        key = None if failed else key_of(work.result())
        for pending in self._waiting.pop(credential):
            pending.settle(key)


def key_of(principal: Principal | None) -> Key | None:
    """Of a caller: by what he has proven who he is."""
    if principal is None:
        return None
    credential = principal.credential or principal.password
    return principal.name if credential is None else (principal.name, credential)


def table_of(patterns: Iterable[Match] | None) -> RouteTable | None:
    """Hosts and paths that may be called; None is everything."""
    if patterns is None:
        return None
    target = Target("call")
    return RouteTable([(each.host, each.path, target) for each in dict.fromkeys(patterns)])


def read_basic(credential: bytes) -> tuple[str, Secret] | None:
    """Name and password of `Authorization: Basic` (RFC 7617)."""
    if len(credential) % 4:
        return None  # b64decode takes padding that should not be there
    try:
        pair = base64.b64decode(credential, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    if any(unicodedata.category(each) == "Cc" for each in pair):
        return None  # RFC 7617, 2; and to scrypt a password with zeros behind it is the same one
    name, colon, password = pair.partition(":")
    return (name, Secret(password)) if colon else None
