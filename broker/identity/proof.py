"""A token proven without being sent: bound to one connection, worthless on any other.

    stream = HKDF-Expand(SHA-256(token), "broker-login-1" 0 KIND 0 SHA-256(parameters) VALUE, length of token)
    sealed = token XOR stream

VALUE is the connection's channel binding (KIND "tls-exporter", RFC 9266), or a nonce of the node's where
there is no TLS (KIND "nonce"). The node knows SHA-256(token), makes the same stream, and sees whether what
is left is a text with that digest. As in SCRAM (RFC 5802) the stored digest opens a proof, but makes none:
whoever steals a node's file can't log in with it. Who sits between and ends TLS himself has another VALUE
than the node, and learns nothing of the token.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL

LABEL = b"broker-login-1"
EXPORTER = "tls-exporter"
NONCE = "nonce"
NONCE_SIZE = 16
KEY_SIZE = 8
MAX_SEALED = 2048  # bytes; the longest token is shorter

_EXPORTER_LABEL = b"EXPORTER-Channel-Binding"
_EXPORTER_SIZE = 32


@dataclass(frozen=True, slots=True)
class Binding:
    """What is this connection's alone."""

    kind: str
    value: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Proof:
    """As it is sent, with the digest of the parameters that it was sent with."""

    key: bytes  # which token it is: see `key_of`
    kind: str
    sealed: bytes = field(repr=False)
    parameters: bytes = field(repr=False)


def exporter_of(connection: SSL.Connection) -> Binding | None:
    """The binding of a TLS connection after its handshake.

    None below TLS 1.3, where two connections can be made to have the same one (RFC 9266, 4.1).
    """
    if connection.get_protocol_version_name() != "TLSv1.3":
        return None
    return Binding(EXPORTER, connection.export_keying_material(_EXPORTER_LABEL, _EXPORTER_SIZE))


def key_of(digest: bytes) -> bytes:
    """Names a token's digest without telling it."""
    return hashlib.sha256(b"broker-key-1\0" + digest).digest()[:KEY_SIZE]


def prove(token: str, binding: Binding, parameters: bytes) -> Proof:
    text = token.encode("ascii")
    digest = hashlib.sha256(text).digest()
    about = hashlib.sha256(parameters).digest()
    return Proof(key_of(digest), binding.kind, _xor(text, _stream(digest, binding, about, len(text))), about)


def holds(proof: Proof, digest: bytes, binding: Binding) -> bool:
    """Whether the proof was made with the token of this digest, for this connection."""
    if proof.kind != binding.kind or not 0 < len(proof.sealed) <= MAX_SEALED:
        return False
    text = _xor(proof.sealed, _stream(digest, binding, proof.parameters, len(proof.sealed)))
    return hmac.compare_digest(hashlib.sha256(text).digest(), digest)


def _stream(digest: bytes, binding: Binding, about: bytes, size: int) -> bytes:
    info = b"\0".join([LABEL, binding.kind.encode("ascii"), about + binding.value])
    return HKDFExpand(algorithm=SHA256(), length=size, info=info).derive(digest)


def _xor(one: bytes, other: bytes) -> bytes:
    size = len(one)
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(size, "big")
