"""A certificate as an entry of `users[].certificates`: what `broker tls map` prints."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding

from broker.config.certificates import parse_san, parse_subject
from broker.config.model import CertificateRule
from broker.identity.certificates import ATTRIBUTES, fits, stands_under
from broker.tls.describe import fingerprint


def by_fingerprint(user: str, certificate: x509.Certificate) -> str:
    """YAML."""
    return entry(user, f'"{fingerprint(certificate)}"')


def by_names(
    user: str,
    chain: list[x509.Certificate],
    ca: Path,
    anchors: list[x509.Certificate],
    subject: str | None,
    san: str | None,
) -> str:
    """YAML. "" as subject or san: the certificate's own. ValueError: the rule would not fit it."""
    leaf = chain[0]
    subject = own_subject(leaf) if subject == "" else subject
    san = own_san(leaf) if san == "" else san
    trusted = tuple(each.public_bytes(Encoding.DER) for each in anchors)
    rule = CertificateRule(
        anchors=trusted,
        subject=parse_subject(subject) if subject is not None else (),
        san=parse_san(san) if san is not None else None,
    )
    if not stands_under(leaf, tuple(each.public_bytes(Encoding.DER) for each in proven(chain)), trusted):
        raise ValueError(f"no CA in {ca} has signed the certificate")
    if not fits(rule, leaf):
        raise ValueError("the certificate's own names don't fit the pattern")
    parts = [f"ca: {json.dumps(str(ca))}"]
    parts += [f"{key}: {json.dumps(value)}" for key, value in (("subject", subject), ("san", san)) if value]
    return entry(user, "{" + ", ".join(parts) + "}")


def proven(chain: list[x509.Certificate]) -> list[x509.Certificate]:
    """A file's chain as far as each certificate is signed by the next."""
    out = chain[:1]
    for lower, upper in pairwise(chain):
        try:
            lower.verify_directly_issued_by(upper)
        except (ValueError, TypeError, InvalidSignature):
            break
        out.append(upper)
    return out


def own_subject(leaf: x509.Certificate) -> str:
    parts = []
    for name, oid in ATTRIBUTES.items():
        for each in leaf.subject.get_attributes_for_oid(oid):
            value = str(each.value).replace(",", "\\,")
            parts.append(f"{name}={value}")
    if not parts:
        raise ValueError("the certificate has no subject: map it by san, or by fingerprint")
    return ",".join(parts)


def own_san(leaf: x509.Certificate) -> str:
    names = names_by_kind(leaf)
    if not names:
        raise ValueError(
            "the certificate has no subject alternative name: map it by subject, or by fingerprint"
        )
    return names[0]


def names_by_kind(leaf: x509.Certificate) -> list[str]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = [f"URI:{each}" for each in found.get_values_for_type(x509.UniformResourceIdentifier)]
    names += [f"DNS:{each}" for each in found.get_values_for_type(x509.DNSName)]
    names += [f"EMAIL:{each}" for each in found.get_values_for_type(x509.RFC822Name)]
    return names + [f"IP:{each}" for each in found.get_values_for_type(x509.IPAddress)]


def entry(user: str, rule: str) -> str:
    return f"users:\n  - name: {user}\n    certificates: [{rule}]\n"
