"""A CA and certificates for development, and a configuration that uses them."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CA_DAYS = 3650
DAYS = 365  # what Mozilla allows a server, at most
LOCAL = ("localhost", "127.0.0.1", "::1")

DMZ = """\
# A DMZ node that speaks TLS on every port: broker serve {directory}/dmz.yaml
external:
  - name: web
    listen: https://127.0.0.1:8443
    tls:
      certificates: [{{cert: server.crt, key: server.key}}]
      # client: {{mode: require, ca: ca.crt}}        # then: curl --cert client.crt --key client.key ...
registration:
  - name: green
    listen: https://127.0.0.1:7000
    tls:
      certificates: [{{cert: server.crt, key: server.key}}]
      client: {{mode: require, ca: ca.crt}}
users:
  - name: agent
    certificates: ["{fingerprint}"]
    may: {{services: ["*"], tcp: ["*"], tls: ["*"]}}
admin: {{listen: "http://127.0.0.1:7001"}}
"""
GREEN = """\
# An agent that offers the service on port 9000: broker connect {directory}/green.yaml
connect:
  - url: https://localhost:7000
    tls: {{ca: ca.crt, cert: agent.crt, key: agent.key}}
services:
  - upstream: http://127.0.0.1:9000
"""


@dataclass(frozen=True, slots=True)
class Issuer:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def create(directory: Path, names: Iterable[str]) -> list[Path]:
    """Make all files; those with keys are their owner's alone. `names`: of the server, beside the local ones.

    Raises FileExistsError, and then nothing was written, ValueError for a name that is none.
    """
    ca = make_ca()
    server = alternative_names([*names, *LOCAL])
    leaves = {
        "server": issue(ca, "broker development server", ExtendedKeyUsageOID.SERVER_AUTH, server),
        "agent": issue(ca, "agent", ExtendedKeyUsageOID.CLIENT_AUTH),
        "client": issue(ca, "client", ExtendedKeyUsageOID.CLIENT_AUTH),
    }
    files: dict[str, bytes] = {}
    for name, owner in {"ca": ca, **leaves}.items():
        files[f"{name}.crt"] = owner.certificate.public_bytes(serialization.Encoding.PEM)
        files[f"{name}.key"] = private_bytes(owner.key)
    fingerprint = f"sha256:{leaves['agent'].certificate.fingerprint(hashes.SHA256()).hex()}"
    files["dmz.yaml"] = DMZ.format(directory=directory, fingerprint=fingerprint).encode()
    files["green.yaml"] = GREEN.format(directory=directory).encode()
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    taken = [name for name in files if (directory / name).exists()]
    if taken:
        raise FileExistsError(f"{directory / taken[0]} exists already; nothing was written")
    for name, data in files.items():
        write(directory / name, data, 0o600 if name.endswith(".key") else 0o644)
    return [directory / name for name in files]


def write(path: Path, data: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(data)


def make_ca() -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    name = common_name(f"broker development CA {datetime.now(UTC):%Y-%m-%d}")
    builder = begin(name, name, key, CA_DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(key_usage(ca=True), critical=True)
    return Issuer(builder.sign(key, hashes.SHA256()), key)


def issue(
    ca: Issuer, name: str, purpose: x509.ObjectIdentifier, names: Iterable[x509.GeneralName] = ()
) -> Issuer:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = begin(common_name(name), ca.certificate.subject, key, DAYS)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(key_usage(ca=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.key.public_key())
    builder = builder.add_extension(authority, critical=False)
    if names := list(names):
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return Issuer(builder.sign(ca.key, hashes.SHA256()), key)


def begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=days))
    return builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)


def common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def key_usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def alternative_names(names: Iterable[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys(names):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))  # ValueError where it is not ASCII
    return found


def private_bytes(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
