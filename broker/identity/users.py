"""Who is it, and what may he do."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from broker.config.model import Match, Rights, User

ANONYMOUS = "anonymous"
EVERYTHING = Rights(services=(Match(),), tcp=("*",), tls=("*",))


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven identity with its rights, and the digest of the credential that proved it."""

    name: str
    rights: Rights
    credential: bytes = field(default=b"", repr=False)


class Users:
    """All users of one configuration; immutable. Without any, everybody is the anonymous principal.

    Ports without users are on loopback, or were allowed with --insecure: the configuration sees to it.
    """

    def __init__(self, users: Iterable[User] = ()) -> None:
        self._by_name = {user.name: user for user in users}
        self._credentials = [(digest, user) for user in self._by_name.values() for digest in user.tokens]

    @property
    def is_open(self) -> bool:
        return not self._by_name

    def authenticate(self, token: str | None) -> Principal | None:
        """Whose token this is. An unknown token costs the same work as a known one."""
        if self.is_open:
            return Principal(ANONYMOUS, EVERYTHING)
        digest = hashlib.sha256((token or "").encode("utf-8", "surrogatepass")).digest()
        found: User | None = None
        for known, user in self._credentials:
            if hmac.compare_digest(known, digest):
                found = user
        if found is None or token is None:
            return None
        return Principal(found.name, found.rights, digest)

    def renew(self, principal: Principal) -> Principal | None:
        """The same principal with the rights of today; None where the credential is good no more."""
        if self.is_open:
            return Principal(ANONYMOUS, EVERYTHING) if principal.name == ANONYMOUS else None
        user = self._by_name.get(principal.name)
        if user is None or not any(hmac.compare_digest(known, principal.credential) for known in user.tokens):
            return None
        return Principal(user.name, user.rights, principal.credential)
