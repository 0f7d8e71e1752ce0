"""Certificates, keys, revocation lists and OCSP responses from files; ValueError says what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import dsa, ec, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import ocsp
from cryptography.x509.oid import NameOID
from OpenSSL import SSL

from broker.tls.settings import Certificate

SMALLEST_RSA = 2048
SMALLEST_CURVE = 224
DAY = timedelta(days=1)
# What `cryptography` raises for certificates that OpenSSL accepts all the same.
UNREADABLE = (ValueError, x509.InvalidVersion)


@dataclass(frozen=True, slots=True)
class Expiry:
    """Until when something from a file is of use."""

    kind: str  # "certificate", "revocation list" or "OCSP response"
    path: Path
    since: datetime
    until: datetime

    def days_left(self, now: datetime | None = None) -> float:
        return (self.until - (now or datetime.now(UTC))) / DAY

    def warning(self, now: datetime | None = None) -> str:
        """One sentence; "" while there is time. Short-lived ones are given a third of their life."""
        now = now or datetime.now(UTC)
        if now < self.since:
            since = f"{self.since:%Y-%m-%d %H:%M} UTC"
            return f"the {self.kind} {self.path} is not valid before {since}; is this machine's clock right?"
        early = min(30 * DAY if self.kind == "certificate" else DAY, (self.until - self.since) / 3)
        if self.until - now >= early:
            return ""
        past = self.until < now
        when = f"{self.until:%Y-%m-%d %H:%M} UTC"
        if self.kind == "certificate":
            return f"the certificate {self.path} {'has expired' if past else 'expires'} on {when}"
        if not past:
            return f"the {self.kind} {self.path} must be replaced by {when}"
        effect = (
            "is not stapled" if self.kind == "OCSP response" else "makes every certificate of its CA invalid"
        )
        return f"the {self.kind} {self.path} had to be replaced by {when}; until then it {effect}"


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from None


def read_certificates(path: Path) -> list[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(read(path))
    except x509.InvalidVersion as error:
        raise ValueError(f"{path} holds a certificate that can't be read: {error}") from None
    except ValueError as error:
        if str(error).startswith(str(path)):
            raise
        found = []
    if not found:
        raise ValueError(f"{path} holds no certificate in PEM form")
    return found


def read_own(path: Path) -> x509.Certificate:
    """The first of a file: its owner's. Refuses what browsers would."""
    leaf = read_certificates(path)[0]
    weakness = weakness_of(leaf)
    if weakness:
        raise ValueError(f"{path} has a weak key: {weakness}")
    return leaf


def weakness_of(leaf: x509.Certificate) -> str:
    """What is wrong with a certificate's key, and what to use; "" where nothing is."""
    key = leaf.public_key()
    use = f"use EC P-256 or RSA of {SMALLEST_RSA} bits or more"
    if isinstance(key, dsa.DSAPublicKey):
        return f"DSA is not used any more; {use}"
    if isinstance(key, rsa.RSAPublicKey) and key.key_size < SMALLEST_RSA:
        return f"RSA of {key.key_size} bits; {use}"
    if isinstance(key, ec.EllipticCurvePublicKey) and key.key_size < SMALLEST_CURVE:
        return f"EC of {key.key_size} bits; {use}"
    return ""


def names_of(leaf: x509.Certificate) -> Iterator[str]:
    """DNS names of a certificate, in lower case; its common name where it has none (RFC 6125 6.4.4)."""
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = found.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        names = [str(each.value) for each in leaf.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    for name in names:
        yield name.lower().rstrip(".")


def expiry_of(path: Path, certificate: x509.Certificate) -> Expiry:
    return Expiry("certificate", path, certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def use_certificate(context: SSL.Context, certificate: Certificate) -> None:
    try:
        context.use_certificate_chain_file(str(certificate.cert))
    except SSL.Error:
        raise ValueError(
            f"{certificate.cert} is not a certificate chain in PEM form, or its key is too weak"
        ) from None
    data = read(certificate.key)
    try:
        load_pem_private_key(data, None)  # first: OpenSSL would ask a terminal for a passphrase
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise ValueError(f"{certificate.key} is not a private key in PEM form without a passphrase") from None
    try:
        context.use_privatekey_file(str(certificate.key))
        context.check_privatekey()
    except SSL.Error:
        raise ValueError(f"{certificate.key} is not the key of {certificate.cert}") from None


def read_crls(path: Path) -> list[x509.CertificateRevocationList]:
    """All of a PEM file, or the one of a DER file (RFC 5280 5)."""
    data = read(path)
    begin, end = b"-----BEGIN X509 CRL-----", b"-----END X509 CRL-----"
    try:
        if begin not in data:
            return [x509.load_der_x509_crl(data)]
        blocks = data.split(begin)[1:]
        return [x509.load_pem_x509_crl(begin + block.partition(end)[0] + end) for block in blocks]
    except ValueError:
        raise ValueError(f"{path} holds no certificate revocation list in PEM or DER form") from None


def expiry_of_crl(path: Path, crl: x509.CertificateRevocationList) -> Expiry | None:
    if crl.next_update_utc is None:
        return None
    return Expiry("revocation list", path, crl.last_update_utc, crl.next_update_utc)


@dataclass(frozen=True, slots=True)
class Staple:
    """An OCSP response that is presented with a certificate (RFC 6066 8)."""

    data: bytes
    expiry: Expiry | None

    def current(self) -> bytes:
        """b"" where it is too old: clients would refuse the connection."""
        return self.data if self.expiry is None or self.expiry.days_left() > 0 else b""


def read_staple(path: Path, leaf: x509.Certificate) -> Staple:
    data = read(path)
    try:
        response = ocsp.load_der_ocsp_response(data)
    except ValueError:
        raise ValueError(f"{path} is not an OCSP response in DER form") from None
    if response.response_status is not ocsp.OCSPResponseStatus.SUCCESSFUL:
        raise ValueError(f"{path} is an OCSP response without an answer: {response.response_status.name}")
    if response.serial_number != leaf.serial_number:
        raise ValueError(f"{path} is the OCSP response of another certificate")
    if response.certificate_status is not ocsp.OCSPCertStatus.GOOD:
        raise ValueError(f"{path} says that the certificate is {response.certificate_status.name.lower()}")
    until = response.next_update_utc
    expiry = Expiry("OCSP response", path, response.this_update_utc, until) if until else None
    return Staple(data, expiry)
