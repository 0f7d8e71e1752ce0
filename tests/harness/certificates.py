"""A throw-away CA and certificates of every kind that tests need."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtensionOID, NameOID

from broker.tls.development import key_usage

DAY = timedelta(days=1)
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Files:
    """PEM files of one certificate."""

    cert: Path
    key: Path

    def snippet(self) -> dict[str, str]:
        return {"cert": str(self.cert), "key": str(self.key)}


class Authority:
    """Issues certificates into a directory; `ca` is its own.

    `above`: the one that vouches for it; what it issues comes with its certificate.
    """

    def __init__(self, directory: Path, name: str = "test CA", above: Authority | None = None) -> None:
        self.directory = directory
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._count = 0
        self._certificate = (above or self)._sign(
            self._name,
            self._key,
            [(x509.BasicConstraints(ca=True, path_length=None), True), (key_usage(ca=True), True)],
            datetime.now(UTC) + 365 * DAY,
        )
        self._between = [self._certificate] if above is not None else []
        self.ca = directory / f"{name.replace(' ', '-')}.pem"
        self.ca.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(
        self,
        *hosts: str,
        names: bytes = b"",
        days: float = 30,
        key: Key | None = None,
        subject: str = "",
        since: float = -60,
        usage: x509.ObjectIdentifier | None = None,
    ) -> Files:
        """A certificate for these DNS names (none: for a client); `days` below 0: expired.

        `names`: its subjectAltName as DER instead. `since` above 0: not valid yet.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        extensions: list[tuple[x509.ExtensionType, bool]] = [
            (x509.BasicConstraints(ca=False, path_length=None), True)
        ]
        if hosts:
            extensions.append((x509.SubjectAlternativeName([x509.DNSName(name) for name in hosts]), False))
        if names:
            extensions.append(
                (x509.UnrecognizedExtension(ExtensionOID.SUBJECT_ALTERNATIVE_NAME, names), False)
            )
        if usage is not None:
            extensions.append((x509.ExtendedKeyUsage([usage]), False))
        common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject or (hosts or ("client",))[0])])
        certificate = self._sign(common, key, extensions, datetime.now(UTC) + days * DAY, since)
        self._count += 1
        files = Files(self.directory / f"{self._count}.crt", self.directory / f"{self._count}.key")
        chain = [certificate, *self._between]
        files.cert.write_bytes(b"".join(each.public_bytes(serialization.Encoding.PEM) for each in chain))
        files.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files

    def strange(self, subject: str, names: bytes = b"", version: int = 3) -> Files:
        """For a client, with subjectAltName as DER, or of another version: OpenSSL takes it."""
        files = self.issue(subject=subject, names=names, days=90)
        if version != 3:
            certificate = x509.load_pem_x509_certificate(files.cert.read_bytes())
            explicit = b"\xa0\x03\x02\x01"
            body = certificate.tbs_certificate_bytes
            body = body.replace(explicit + b"\x02", explicit + bytes([version - 1]), 1)
            algorithm = bytes.fromhex("300a06082a8648ce3d040302")  # ecdsa-with-SHA256
            signature = b"\0" + self._key.sign(body, ec.ECDSA(hashes.SHA256()))
            whole = body + algorithm + b"\x03" + bytes([len(signature)]) + signature
            der = b"\x30\x82" + len(whole).to_bytes(2, "big") + whole
            files.cert.write_text(ssl.DER_cert_to_PEM_cert(der))
        return files

    def crl(self, *revoked: Files, hours: float = 24, name: str = "") -> Path:
        """A new list of what this CA has revoked; `hours` below 0: out of date."""
        now = datetime.now(UTC)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._name)
            .last_update(now - 10 * DAY)
            .next_update(now + timedelta(hours=hours))
        )
        for files in revoked:
            serial = x509.load_pem_x509_certificate(files.cert.read_bytes()).serial_number
            entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now - DAY)
            builder = builder.add_revoked_certificate(entry.build())
        self._count += 1
        path = self.directory / (name or f"{self._count}.crl")
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
        return path

    def ocsp(self, files: Files, hours: float = 24, status: ocsp.OCSPCertStatus | None = None) -> Path:
        """A response for one certificate, as a responder of this CA would give it."""
        now = datetime.now(UTC)
        status = status or ocsp.OCSPCertStatus.GOOD
        revoked = status is ocsp.OCSPCertStatus.REVOKED
        builder = (
            ocsp.OCSPResponseBuilder()
            .add_response(
                cert=x509.load_pem_x509_certificate(files.cert.read_bytes()),
                issuer=self._certificate,
                algorithm=hashes.SHA1(),
                cert_status=status,
                this_update=now - 10 * DAY,
                next_update=now + timedelta(hours=hours),
                revocation_time=now - DAY if revoked else None,
                revocation_reason=None,
            )
            .responder_id(ocsp.OCSPResponderEncoding.HASH, self._certificate)
        )
        path = files.cert.with_suffix(".ocsp")
        path.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.DER))
        return path

    def _sign(
        self,
        subject: x509.Name,
        key: Key,
        extensions: list[tuple[x509.ExtensionType, bool]],
        until: datetime,
        since: float = -60,
    ) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) + since * DAY)
            .not_valid_after(until)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False
            )
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical=critical)
        return builder.sign(self._key, hashes.SHA256())
