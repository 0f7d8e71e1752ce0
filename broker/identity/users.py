"""Who is it, and what may he do.

    by_token, by_proof, by_certificate, by_password   from a credential to a principal; None: it proves nobody
    renew                                             the same principal after a reload; None: nobody any more

They say who it is and nothing else: whether a port wants a credential, and which, is the port's affair.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from broker.config.model import Match, PasswordHash, Rights, Secret, User
from broker.config.passwords import LOG_N, P, R, verify_password
from broker.identity.certificates import CertificateMap, Chain
from broker.identity.proof import Binding, Proof, holds, key_of

ANONYMOUS = "anonymous"
EVERYTHING = Rights(services=(Match(),), tcp=("*",), tls=("*",))
MAX_PROVEN = 4096  # passwords whose slow proof is remembered
NOBODY = PasswordHash(salt=bytes(32), key=bytes(32), log_n=LOG_N, r=R, p=P)


def cost_of(each: PasswordHash) -> int:
    """Of one try at it, in blocks of 128 bytes that scrypt mixes."""
    return int(each.r * each.p << each.log_n)


def decoys(cost: int) -> Iterator[PasswordHash]:
    """Hashes that nothing opens, and that together cost about as much to try.

    Those of the usual cost come one by one: a single try of twice the cost takes some 5 % less time than two.
    """
    whole, rest = divmod(cost, cost_of(NOBODY))
    yield from [NOBODY] * whole
    if rest > 0:
        log_n = 10 if rest >> 10 else 1
        yield PasswordHash(salt=bytes(32), key=bytes(32), log_n=log_n, r=max(rest >> log_n, 1), p=1)


@dataclass(frozen=True, slots=True)
class Principal:
    """A proven identity with its rights, and what it was proven by."""

    name: str
    rights: Rights
    credential: bytes = field(default=b"", repr=False)  # the digest of a token
    chain: Chain = field(default=(), repr=False)  # a certificate with its chain, in DER form
    shown: Chain = field(default=(), repr=False)  # that of its connection, whether it proved anything or not
    password: PasswordHash | None = field(default=None, repr=False)


class Users:
    """All users of one configuration; immutable.

    Without any, agents are the anonymous principal. Ports without users are on loopback, or were allowed with
    --insecure: the configuration sees to it.
    """

    def __init__(self, users: Iterable[User] = ()) -> None:
        self._by_name = {user.name: user for user in users}
        self._by_token = {digest: user for user in self._by_name.values() for digest in user.tokens}
        self._by_key = {key_of(digest): digest for digest in self._by_token}
        self._certificates = CertificateMap(self._by_name.values())
        spent = [sum(cost_of(each) for each in user.passwords) for user in self._by_name.values()]
        self._dearest = max([*spent, cost_of(NOBODY)])
        self._proven: OrderedDict[bytes, None] = OrderedDict()
        self._proof_key = secrets.token_bytes(32)

    @property
    def is_open(self) -> bool:
        return not self._by_name

    def __iter__(self) -> Iterator[User]:
        return iter(self._by_name.values())

    def anonymous(self) -> Principal | None:
        """Everybody, where there are no users."""
        return Principal(ANONYMOUS, EVERYTHING) if self.is_open else None

    def by_token(self, token: str | None) -> Principal | None:
        """Whose token this is. An unknown token costs the same work as a known one.

        The table goes by the token's SHA-256: how long that takes tells of digests, which nobody can aim.
        """
        digest = hashlib.sha256((token or "").encode("utf-8", "surrogatepass")).digest()
        return self._with(digest) if token else None

    def by_proof(self, proof: Proof, binding: Binding) -> Principal | None:
        """Whose token the proof was made with, for the connection of this binding. All cost the same."""
        digest = self._by_key.get(proof.key)
        proven = holds(proof, digest or self._proof_key, binding)
        return self._with(digest) if proven and digest is not None else None

    def _with(self, digest: bytes) -> Principal | None:
        user = self._by_token.get(digest)
        return None if user is None else Principal(user.name, user.rights, credential=digest)

    def by_certificate(self, chain: Chain) -> Principal | None:
        """Whose certificate this is: `chain` as `certificates.chain_of` has it, verified by the port."""
        user = self._certificates.owner(chain)
        return None if user is None else Principal(user.name, user.rights, chain=chain)

    def by_password(self, name: str, password: Secret) -> Principal | None:
        """Who has this name and password. The first time takes tens of milliseconds: call it in a thread.

        Thread-safe. Every failure costs the same work: that of the user whose passwords cost most.
        """
        user = self._by_name.get(name)
        spent = 0
        for each in user.passwords if user is not None else ():
            if user is not None and self._proves(password, each):
                return Principal(user.name, user.rights, password=each)
            spent += cost_of(each)
        # Whoever is unknown, or has fewer or cheaper passwords, is not told apart by the time that it takes.
        for each in decoys(self._dearest - spent):
            verify_password(password, each)
        return None

    def by_known_password(self, name: str, password: Secret) -> Principal | None:
        """The same where it was proven before, at once; None says nothing."""
        user = self._by_name.get(name)
        known = user.passwords if user is not None else ()
        for each in known or (NOBODY,):
            if self._mark(password, each) in self._proven and user is not None and known:
                return Principal(user.name, user.rights, password=each)
        return None

    def follow(self, before: Users) -> None:
        """Remember what was proven before a reload: it counts for passwords that are still there."""
        self._proven, self._proof_key = before._proven, before._proof_key

    def _mark(self, password: Secret, known: PasswordHash) -> bytes:
        typed = password.reveal().encode("utf-8", "surrogatepass")
        return hmac.digest(self._proof_key, known.salt + known.key + typed, "sha256")

    def _proves(self, password: Secret, known: PasswordHash) -> bool:
        mark = self._mark(password, known)
        if mark in self._proven:
            return True
        if not verify_password(password, known):
            return False
        self._proven[mark] = None
        if len(self._proven) > MAX_PROVEN:
            self._proven.popitem(last=False)
        return True

    def renew(self, principal: Principal) -> Principal | None:
        """The same principal with the rights of today; None where a credential is good no more."""
        if self.is_open:
            return principal if principal.name == ANONYMOUS else None
        user = self._by_name.get(principal.name)
        if user is None or not (principal.credential or principal.chain or principal.password):
            return None
        if principal.credential and principal.credential not in user.tokens:
            return None
        if principal.chain and self._certificates.owner(principal.chain) is not user:
            return None
        if principal.password is not None and principal.password not in user.passwords:
            return None
        return replace(principal, rights=user.rights)
