"""A certificate for the contestants that speak TLS: self-signed, EC P-256."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

NAME = "localhost"
ADDRESSES = ("127.0.0.1", "10.77.0.1")  # the loopback, and the near side of a link
PASSWORD = "1234"  # of the PKCS#12 file: rathole insists on one


@dataclass(frozen=True)
class Certificate:
    """The same certificate in the files that one or another program wants."""

    cert: Path
    key: Path
    bundle: Path  # both in one
    archive: Path  # both as PKCS#12


def make(directory: Path) -> Certificate:
    files = Certificate(*(directory / name for name in ("tls.crt", "tls.key", "tls.pem", "tls.p12")))
    if files.archive.exists():
        return files
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _sign(key)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    files.cert.write_bytes(pem)
    files.key.write_bytes(secret)
    files.bundle.write_bytes(pem + secret)
    encryption = serialization.BestAvailableEncryption(PASSWORD.encode())
    files.archive.write_bytes(
        pkcs12.serialize_key_and_certificates(NAME.encode(), key, certificate, None, encryption)
    )
    return files


def _sign(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    names: list[x509.GeneralName] = [x509.DNSName(NAME)]
    names += [x509.IPAddress(ipaddress.ip_address(address)) for address in ADDRESSES]
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=365))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(key, hashes.SHA256())
    )
