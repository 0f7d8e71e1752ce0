"""The Authorization field of a registration, and the challenge that may come before it. Sans-IO.

Authorization: Bearer TOKEN
Authorization: Broker            asks for a nonce: 401 with WWW-Authenticate: Broker nonce=HEX
Authorization: Broker key=HEX, binding=KIND, proof=BASE64URL
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field

from broker.identity.proof import EXPORTER, KEY_SIZE, NONCE, NONCE_SIZE, Proof

SCHEME = "Broker"

_BEARER = re.compile(rb"(?i:bearer) +([A-Za-z0-9._~+/-]{1,4096}=*)")
_PROOF = re.compile(
    rb"(?i:broker) +key=([0-9a-f]{%d}), *binding=(%s|%s), *proof=([A-Za-z0-9_-]{2,2732})"
    % (2 * KEY_SIZE, EXPORTER.encode(), NONCE.encode())
)
_ASKS = re.compile(rb"(?i:broker) *")
_CHALLENGE = re.compile(rb"(?i:broker) +nonce=([0-9a-f]{%d})" % (2 * NONCE_SIZE))


@dataclass(frozen=True, slots=True)
class Authorization:
    """What the field holds: one of the three, or nothing."""

    token: str | None = field(default=None, repr=False)
    proof: Proof | None = None
    asks: bool = False  # for a nonce


def parse_authorization(value: bytes | None, parameters: bytes) -> Authorization:
    """`parameters`: the value of Broker-Parameters, which a proof covers. ValueError for anything else."""
    if value is None:
        return Authorization()
    if _ASKS.fullmatch(value):
        return Authorization(asks=True)
    bearer = _BEARER.fullmatch(value)
    if bearer is not None:
        return Authorization(token=bearer[1].decode("ascii"))
    proof = _PROOF.fullmatch(value)
    if proof is None:
        raise ValueError("neither a bearer token nor a proof of one")
    try:
        sealed = base64.urlsafe_b64decode(proof[3] + b"=" * (-len(proof[3]) % 4))
    except binascii.Error:
        raise ValueError("not base64url without padding") from None
    about = hashlib.sha256(parameters).digest()
    return Authorization(proof=Proof(bytes.fromhex(proof[1].decode()), proof[2].decode(), sealed, about))


def format_proof(proof: Proof) -> str:
    sealed = base64.urlsafe_b64encode(proof.sealed).rstrip(b"=").decode("ascii")
    return f"{SCHEME} key={proof.key.hex()}, binding={proof.kind}, proof={sealed}"


def format_challenge(nonce: bytes) -> str:
    return f"{SCHEME} nonce={nonce.hex()}"


def parse_challenge(values: list[bytes]) -> bytes | None:
    """The nonce among the WWW-Authenticate fields of a 401."""
    found = next((match for value in values if (match := _CHALLENGE.fullmatch(value))), None)
    return bytes.fromhex(found[1].decode()) if found is not None else None
