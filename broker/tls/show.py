"""What the ports of a configuration present, and ask of clients."""

from __future__ import annotations

from typing import Any

from broker.tls.describe import describe
from broker.tls.files import read_certificates, read_crls, read_staple
from broker.tls.profile import GROUPS, INTERMEDIATE
from broker.tls.settings import Certificate, ClientTls, ServerTls


def show_server(settings: ServerTls) -> dict[str, Any]:
    """As plain values. Raises ValueError for files that can't be used."""
    client: dict[str, Any] = {"mode": settings.client_mode}
    if settings.client_ca is not None:
        client["ca"] = [
            describe(each) | {"file": str(settings.client_ca)}
            for each in read_certificates(settings.client_ca)
        ]
    if settings.client_crl:
        client["crl"] = [
            {"file": str(path), "next_update": crl.next_update_utc and crl.next_update_utc.isoformat()}
            for path in settings.client_crl
            for crl in read_crls(path)
        ]
    return {
        "certificates": [show_certificate(each) for each in settings.certificates],
        "min_version": settings.min_version,
        "ciphers": settings.ciphers or INTERMEDIATE,
        "groups": settings.groups or ":".join(GROUPS),
        "tickets": settings.resumes,
        "client": client,
    }


def show_certificate(certificate: Certificate) -> dict[str, Any]:
    chain = read_certificates(certificate.cert)
    shown = describe(chain[0]) | {
        "file": str(certificate.cert),
        "chain": [describe(each) for each in chain[1:]],
    }
    if certificate.ocsp is not None:
        staple = read_staple(certificate.ocsp, chain[0])
        until = staple.expiry.until.isoformat() if staple.expiry else None
        shown["ocsp"] = {"file": str(certificate.ocsp), "next_update": until}
    return shown


def show_client(settings: ClientTls) -> dict[str, Any]:
    return {
        "certificates": [show_certificate(settings.certificate)] if settings.certificate else [],
        "ca": str(settings.ca) if settings.ca else "those of the system",
        "verify": settings.verify,
    }
