"""How a service is told of the certificate that a client has shown.

X-Forwarded-Client-Cert    as Envoy writes it: a hash and names, for people and simple rules
Client-Cert                RFC 9440: the certificate itself; Client-Cert-Chain: those between it and the root
"""

from __future__ import annotations

import base64

from cryptography import x509
from OpenSSL import SSL

from _fastpath.gate import ClientCertificate
from broker.identity.certificates import Chain, chain_of, fingerprint_of

FIELDS = {"X-Forwarded-Client-Cert": 1, "Client-Cert": 2}
MAX_CHAIN = 4  # certificates behind the client's own
MAX_NAMES = 20
MAX_LINES = 12 * 1024  # bytes of all fields together; what would be longer is left out


def certify(connection: SSL.Connection) -> ClientCertificate | None:
    """What a client has proven in its handshake; None where it has shown nothing."""
    chain = chain_of(connection)
    return ClientCertificate(chain, lines_of) if chain else None


def lines_of(chain: Chain, fields: int) -> bytes:
    """Header lines that tell of the certificate, by the bits of FIELDS."""
    lines = []
    if fields & FIELDS["X-Forwarded-Client-Cert"]:
        lines.append(f"X-Forwarded-Client-Cert: {envoy(chain[0])}\r\n".encode("ascii"))
    if fields & FIELDS["Client-Cert"]:
        lines.append(b"Client-Cert: %b\r\n" % item(chain[0]))
        between = [each for each in chain[1:] if not is_root(each)][:MAX_CHAIN]
        if between:
            lines.append(b"Client-Cert-Chain: %b\r\n" % b", ".join(map(item, between)))
    while sum(map(len, lines)) > MAX_LINES:
        lines.pop()
    return b"".join(lines)


def item(der: bytes) -> bytes:
    """A byte sequence of structured fields (RFC 8941, 3.3.5)."""
    return b":%b:" % base64.b64encode(der)


def is_root(der: bytes) -> bool:
    found = x509.load_der_x509_certificate(der)
    return found.subject == found.issuer


def envoy(der: bytes) -> str:
    """Hash=…;Subject="…";URI=…;DNS=…

    A CA can sign names that can't be read (a DNS name with bytes above 0x7F): those are left out.
    """
    leaf = x509.load_der_x509_certificate(der)
    parts = [f"Hash={fingerprint_of(der).hex()}", f"Subject={quoted(leaf.subject.rfc4514_string())}"]
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return ";".join(parts)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)[:MAX_NAMES]
    parts += [f"URI={quoted(each)}" for each in uris]
    parts += [f"DNS={quoted(each)}" for each in names.get_values_for_type(x509.DNSName)[:MAX_NAMES]]
    return ";".join(parts)


def quoted(text: str) -> str:
    """In quotes, so that no name can look like another part; odd bytes as `\\XX` (RFC 4514, 2.4)."""
    out = "".join(
        chr(byte)
        if 0x20 <= byte < 0x7F and byte not in b'"\\'
        else f"\\{byte:02X}"
        if byte != 0x22
        else '\\"'
        for byte in text.encode()
    )
    return f'"{out}"'
