"""Certificates in words: for `broker tls show` and `check`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa

DAY_S = 86400


def describe(certificate: x509.Certificate) -> dict[str, Any]:
    """As plain values, for JSON."""
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    return {
        "subject": printable(certificate.subject.rfc4514_string()),
        "issuer": printable(certificate.issuer.rfc4514_string()),
        "names": [printable(name) for name in alternative_names(certificate)],
        "key": key_of(certificate),
        "not_before": certificate.not_valid_before_utc.isoformat(),
        "not_after": certificate.not_valid_after_utc.isoformat(),
        "days_left": round(left.total_seconds() / DAY_S, 1),
        "fingerprint": fingerprint(certificate),
    }


def fingerprint(certificate: x509.Certificate) -> str:
    """As `users[].certificates` takes it."""
    return f"sha256:{certificate.fingerprint(hashes.SHA256()).hex()}"


def alternative_names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    names = [*found.get_values_for_type(x509.DNSName), *found.get_values_for_type(x509.RFC822Name)]
    names += found.get_values_for_type(x509.UniformResourceIdentifier)
    return [*names, *(str(address) for address in found.get_values_for_type(x509.IPAddress))]


def key_of(certificate: x509.Certificate) -> str:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        return f"RSA {key.key_size}"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return f"EC {key.curve.name}"
    return type(key).__name__.strip("_").removesuffix("PublicKey")


def until(described: dict[str, Any]) -> str:
    left = described["days_left"]
    when = described["not_after"][:10]
    return f"until {when}, {left:.0f} days left" if left >= 0 else f"EXPIRED on {when}"


def printable(text: str) -> str:
    """One line, whatever a stranger's certificate holds."""
    return "".join(each if each.isprintable() else "?" for each in text[:300])
