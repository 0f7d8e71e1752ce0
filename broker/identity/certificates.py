"""Certificates that prove users: what was verified on a TLS connection, and whom it belongs to.

TLS has verified a chain against the port's CAs before anything here is asked; here is decided whose it is.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from broker.config.model import CertificateRule, User
from broker.tls.files import UNREADABLE

Chain = tuple[bytes, ...]  # certificates in DER form, the peer's own first

ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "DC": NameOID.DOMAIN_COMPONENT,
    "UID": NameOID.USER_ID,
    "SERIALNUMBER": NameOID.SERIAL_NUMBER,
    "EMAIL": NameOID.EMAIL_ADDRESS,
}
# What `*` does not stand for.
SEPARATORS = {"DNS": ".", "URI": "/", "EMAIL": "@", "IP": ".:"}


def chain_of(connection: SSL.Connection) -> Chain:
    """What the peer has proven, after a handshake on a port that verifies; () where it showed nothing.

    A resumed session has the peer's own certificate only. What OpenSSL accepts and `cryptography` can't
    read proves nothing.
    """
    try:
        verified = connection.get_verified_chain(as_cryptography=True)
        if not verified:
            alone = connection.get_peer_certificate(as_cryptography=True)
            verified = [alone] if alone is not None else []
    except UNREADABLE:
        return ()
    return tuple(each.public_bytes(Encoding.DER) for each in verified)


def fingerprint_of(der: bytes) -> bytes:
    return hashlib.sha256(der).digest()


def is_revoked(chain: Chain, lists: Sequence[x509.CertificateRevocationList]) -> bool:
    """Whether one of the certificates stands in a list of its issuer's."""
    if not lists:
        return False
    for certificate in map(_read, chain):
        for each in lists:
            if each.issuer != certificate.issuer:
                continue
            if each.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None:
                return True
    return False


def describe(chain: Chain) -> str:
    """The certificate, in words that a person finds it by."""
    try:
        subject = x509.load_der_x509_certificate(chain[0]).subject.rfc4514_string()
    except UNREADABLE:
        subject = "an unreadable subject"
    return f"{subject[:200] or 'no subject'} (sha256:{fingerprint_of(chain[0]).hex()})"


class CertificateMap:
    """From certificates to users: fingerprints first, then rules by name in the order of the file."""

    def __init__(self, users: Iterable[User]) -> None:
        self._by_fingerprint: dict[bytes, User] = {}
        self._rules: list[tuple[CertificateRule, User]] = []
        for user in users:
            for rule in user.certificates:
                if rule.fingerprint:
                    self._by_fingerprint.setdefault(rule.fingerprint, user)
                else:
                    self._rules.append((rule, user))

    def owner(self, chain: Chain) -> User | None:
        if not chain:
            return None
        found = self._by_fingerprint.get(fingerprint_of(chain[0]))
        if found is not None or not self._rules:
            return found
        try:
            leaf = x509.load_der_x509_certificate(chain[0])
        except UNREADABLE:
            return None
        for rule, user in self._rules:
            if fits(rule, leaf) and stands_under(leaf, chain, rule.anchors):
                return user
        return None


def fits(rule: CertificateRule, leaf: x509.Certificate) -> bool:
    """Whether the names in the certificate are those of the rule."""
    try:
        return all(_has_attribute(leaf, key, pattern) for key, pattern in rule.subject) and (
            rule.san is None or _has_name(leaf, *rule.san)
        )
    except ValueError:  # names that can't be read are nobody's
        return False


def stands_under(leaf: x509.Certificate, chain: Chain, anchors: Sequence[bytes]) -> bool:
    """Whether one of the anchors is in the verified chain, or has signed the certificate itself."""
    if not set(anchors).isdisjoint(chain[1:]):
        return True
    return any(_signed(leaf, anchor) for anchor in map(_read, anchors))


def _signed(leaf: x509.Certificate, anchor: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(anchor)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _has_attribute(leaf: x509.Certificate, key: str, pattern: str) -> bool:
    accepts = _compiled(pattern, "").fullmatch
    return any(accepts(str(each.value)) for each in leaf.subject.get_attributes_for_oid(ATTRIBUTES[key]))


def _has_name(leaf: x509.Certificate, kind: str, pattern: str) -> bool:
    accepts = _compiled(pattern, SEPARATORS[kind]).fullmatch
    return any(accepts(name) for name in _names(leaf, kind))


def _names(leaf: x509.Certificate, kind: str) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    if kind == "DNS":
        return [name.lower() for name in found.get_values_for_type(x509.DNSName)]
    if kind == "URI":
        return found.get_values_for_type(x509.UniformResourceIdentifier)
    if kind == "EMAIL":
        return found.get_values_for_type(x509.RFC822Name)
    return [str(address) for address in found.get_values_for_type(x509.IPAddress)]


@lru_cache(maxsize=1024)
def _compiled(pattern: str, separators: str) -> re.Pattern[str]:
    star = f"[^{re.escape(separators)}]+" if separators else ".+"
    return re.compile(star.join(re.escape(part) for part in pattern.split("*")), re.DOTALL)


@lru_cache(maxsize=256)
def _read(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)
