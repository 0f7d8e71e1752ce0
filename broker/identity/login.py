"""Whether what an agent shows is enough for a port, and who it is then."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from broker.identity.certificates import Chain, describe
from broker.identity.proof import EXPORTER, Binding, Proof
from broker.identity.users import Principal, Users

# What a port wants of agents: a token or a certificate, one of the two by name, or both of the same user.
Auth = Literal["any", "token", "certificate", "both"]


@dataclass(frozen=True, slots=True)
class Wants:
    """What a registration port wants of agents."""

    auth: Auth = "any"
    bearer: bool = True  # a token may be sent as it is


@dataclass(frozen=True, slots=True)
class Evidence:
    """All that an agent has shown: unproven, but for the chain, which TLS has verified."""

    token: str | None = field(default=None, repr=False)
    proof: Proof | None = None
    binding: Binding | None = None  # of its connection
    chain: Chain = field(default=(), repr=False)


class Denied(Exception):
    """A status and code of the contract, and one sentence that says why and gives nothing away."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.code = "unauthenticated" if status == 401 else "forbidden"
        self.sentence = sentence


def log_in(users: Users, wants: Wants, shown: Evidence) -> Principal:
    """Raises Denied."""
    return replace(_who(users, wants, shown), shown=shown.chain)


def _who(users: Users, wants: Wants, shown: Evidence) -> Principal:
    anonymous = users.anonymous()
    if anonymous is not None:
        return anonymous
    by_token = _by_token(users, wants, shown)
    by_certificate = users.by_certificate(shown.chain)
    if by_token and by_certificate and by_token.name != by_certificate.name:
        raise Denied(403, "The certificate is that of another user than the token.")
    if wants.auth in ("certificate", "both") and by_certificate is None:
        raise _without_certificate(shown)
    if wants.auth in ("token", "both") and by_token is None:
        raise Denied(401, "The token is missing: this port wants one.")
    if by_token and by_certificate and wants.auth == "both":
        return Principal(by_token.name, by_token.rights, by_token.credential, by_certificate.chain)
    found = by_certificate if wants.auth == "certificate" else by_token or by_certificate
    if found is None:
        raise _without_certificate(shown) if shown.chain else Denied(401, "The token is missing or unknown.")
    return found


def still_enough(principal: Principal, wants: Wants) -> bool:
    """Whether who logged in under other rules would have got in under these."""
    if not (principal.credential or principal.chain):
        return True  # anonymous: there were no rules
    return bool(
        (principal.credential or wants.auth not in ("token", "both"))
        and (principal.chain or wants.auth not in ("certificate", "both"))
    )


def _by_token(users: Users, wants: Wants, shown: Evidence) -> Principal | None:
    if shown.token is not None:
        if not wants.bearer:
            raise Denied(
                401, "This port takes no bare tokens: the agent must prove its token (bearer: false)."
            )
        found = users.by_token(shown.token)
        if found is None:
            raise Denied(401, "The token is missing or unknown.")
        return found
    if shown.proof is None:
        return None
    if shown.binding is None or shown.proof.kind != shown.binding.kind:
        raise Denied(401, _unbound(shown.proof))
    found = users.by_proof(shown.proof, shown.binding)
    if found is None:
        raise Denied(
            401,
            "The token is unknown, or its proof was made for another connection"
            " (does something between agent and node open TLS?).",
        )
    return found


def _unbound(proof: Proof) -> str:
    if proof.kind == EXPORTER:
        return (
            "The token's proof belongs to a TLS 1.3 connection, and this is none: where something before this"
            " node opens TLS, the agent must send its token as it is (connect, bearer: true)."
        )
    return "The token's proof is of another kind than this connection asks for."


def _without_certificate(shown: Evidence) -> Denied:
    if not shown.chain:
        return Denied(401, "No certificate was shown, and this port wants one that belongs to a user.")
    return Denied(
        403, f"The certificate {describe(shown.chain)} is valid, but belongs to no user: map it to one."
    )
