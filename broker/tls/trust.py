"""Whose certificates are believed, and in words why one was not."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

from cryptography.x509.oid import NameOID
from OpenSSL import SSL, crypto

from broker.tls.files import Expiry, expiry_of_crl, read_crls

NO_CRL = 3  # X509_V_ERR_UNABLE_TO_GET_CRL
OTHER_NAME = (62, 64)  # X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH
UNKNOWN = "the certificate is not trusted: no known CA signed it"
FAILURES = {
    NO_CRL: "there is no revocation list of the CA of the certificate",
    8: "the revocation list is not signed by the CA of the certificate",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    11: "the revocation list of its CA is not valid yet",
    12: "the revocation list of its CA is out of date",
    18: "the certificate is not trusted: it is signed by itself",
    19: UNKNOWN,
    20: UNKNOWN,
    21: UNKNOWN,
    23: "the certificate has been revoked",
    26: "the certificate is not for this use",
    66: "the key of the certificate is too weak",
    67: "the key of a CA of the certificate is too weak",
    68: "the certificate is signed with a digest that is too weak",
    79: "the certificate is signed by something that is not a CA",
}


def believe(
    context: SSL.Context, ca: Path | None, crls: Iterable[Path], mode: int, host: str = ""
) -> list[Expiry]:
    """Trust certificates that these CAs (None: those of the system) have signed and not revoked.

    With lists, a certificate without one of its CA is refused. `host`: what was dialled, for messages.
    ValueError: a file can't be used.
    """
    if ca is None:
        context.set_default_verify_paths()
    else:
        try:
            context.load_verify_locations(str(ca))
        except SSL.Error:
            raise ValueError(f"{ca} holds no CA certificates in PEM form") from None
    context.set_verify(mode, functools.partial(judge, host=host))
    return add_crls(context, crls)


def add_crls(context: SSL.Context, paths: Iterable[Path]) -> list[Expiry]:
    store = context.get_cert_store()
    assert store is not None
    expiries = []
    for path in paths:
        for crl in read_crls(path):
            store.add_crl(crl)
            expiries.append(expiry_of_crl(path, crl))
    if expiries:
        store.set_flags(crypto.X509StoreFlags.CRL_CHECK | crypto.X509StoreFlags.CRL_CHECK_ALL)
    return [each for each in expiries if each is not None]


def judge(
    connection: SSL.Connection, certificate: crypto.X509, error: int, depth: int, good: int, *, host: str
) -> bool:
    """OpenSSL's verdict, remembered in words. Of CAs a list is used where there is one."""
    if good or (error == NO_CRL and depth > 0):
        return True
    if error in OTHER_NAME:
        words = f"the certificate is valid, but not for {host}"
    else:
        words = FAILURES.get(error, f"the certificate can't be verified (OpenSSL's error {error})")
    connection.set_app_data(f"{words} ({name_of(certificate)})")
    return False


def name_of(certificate: crypto.X509) -> str:
    try:
        subject = certificate.to_cryptography().subject
        names = [str(each.value) for each in subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    except ValueError:
        return "malformed"
    name = names[0] if names else "without a common name"
    return "".join(each if each.isprintable() else "?" for each in name[:80])


def verdict(connection: SSL.Connection) -> str:
    """Why this side did not believe the other's certificate; "" where it did, or saw none."""
    words = connection.get_app_data()
    return words if isinstance(words, str) else ""
