"""Certificates mapped to users: fingerprints, names under a CA, and the text that says so."""

import ipaddress
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broker.config.certificates import parse_fingerprint, parse_san, parse_subject
from broker.config.model import CertificateRule, Rights, User
from broker.identity.certificates import describe, fingerprint_of
from broker.identity.users import Users


class Signer:
    """A CA, or one below another."""

    def __init__(self, name: str, above: "Signer | None" = None) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.above = above or self
        self.certificate = self.above.sign(self.name, self.key, ca=True)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def sign(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePrivateKey,
        names: list[x509.GeneralName] | None = None,
        ca: bool = False,
    ) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca, None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(
        self, common: str, *names: x509.GeneralName, organization: str = "Example"
    ) -> tuple[bytes, ...]:
        """A verified chain, as TLS would hand it over."""
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.COMMON_NAME, common),
                x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization),
            ]
        )
        leaf = self.sign(subject, ec.generate_private_key(ec.SECP256R1()), list(names))
        chain = [leaf.public_bytes(Encoding.DER), self.der]
        if self.above is not self:
            chain.append(self.above.der)
        return tuple(chain)


ROOT = Signer("root")
BELOW = Signer("below", ROOT)
OTHER = Signer("other")


def rule(*anchors: Signer, subject: str = "", san: str = "") -> CertificateRule:
    return CertificateRule(
        anchors=tuple(each.der for each in anchors),
        subject=parse_subject(subject) if subject else (),
        san=parse_san(san) if san else None,
    )


def owner(chain: tuple[bytes, ...], *rules: CertificateRule) -> str | None:
    users = Users(
        User(name=f"user-{place}", certificates=(each,), rights=Rights()) for place, each in enumerate(rules)
    )
    found = users.by_certificate(chain)
    return found.name if found else None


def test_a_fingerprint_goes_before_names() -> None:
    chain = ROOT.issue("agent-1")
    exact = CertificateRule(fingerprint=fingerprint_of(chain[0]))
    assert owner(chain, exact) == "user-0"
    assert owner(chain, rule(ROOT, subject="agent-*"), exact) == "user-1"
    assert owner(ROOT.issue("agent-1"), exact) is None
    assert owner((), exact) is None


def test_names_count_under_their_ca_only() -> None:
    wanted = rule(ROOT, subject="agent-*")
    assert owner(ROOT.issue("agent-1"), wanted) == "user-0"
    assert owner(BELOW.issue("agent-1"), wanted) == "user-0"
    assert owner(OTHER.issue("agent-1"), wanted) is None
    assert owner(OTHER.issue("agent-1"), rule(ROOT, OTHER, subject="agent-*")) == "user-0"
    assert owner(BELOW.issue("agent-1"), rule(BELOW, subject="agent-*")) == "user-0"


def test_a_resumed_session_has_the_leaf_alone() -> None:
    chain = ROOT.issue("agent-1")
    assert owner(chain[:1], rule(ROOT, subject="agent-*")) == "user-0"
    assert owner(chain[:1], rule(OTHER, subject="agent-*")) is None


def test_a_ca_of_the_same_name_is_another_one() -> None:
    impostor = Signer("root")
    assert owner(impostor.issue("agent-1")[:1], rule(ROOT, subject="agent-*")) is None


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("agent-1", True),
        ("agent-*", True),
        ("*", True),
        ("agent", False),
        ("agent-1*", False),
        ("Agent-1", False),
        ("CN=agent-1,O=Example", True),
        ("cn=agent-1, o=Exam*", True),
        ("CN=agent-1,O=Other", False),
        ("O=Example", True),
        ("OU=Example", False),
        ("a.ent-1", False),
    ],
)
def test_patterns_of_subjects(pattern: str, fits: bool) -> None:
    assert (owner(ROOT.issue("agent-1"), rule(ROOT, subject=pattern)) == "user-0") is fits


NAMES = (
    x509.DNSName("a.agents.example"),
    x509.UniformResourceIdentifier("spiffe://example/agent/one"),
    x509.RFC822Name("ann@example.com"),
    x509.IPAddress(ipaddress.ip_address("10.0.0.7")),
)


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("a.agents.example", True),
        ("*.agents.example", True),
        ("A.Agents.Example", True),
        ("DNS:*.example", False),
        ("*", False),
        ("URI:spiffe://example/agent/*", True),
        ("URI:spiffe://example/*", False),
        ("EMAIL:*@example.com", True),
        ("EMAIL:*", False),
        ("IP:10.0.0.7", True),
        ("IP:10.0.0.*", True),
        ("ann@example.com", False),
    ],
)
def test_patterns_of_alternative_names(pattern: str, fits: bool) -> None:
    assert (owner(ROOT.issue("agent-1", *NAMES), rule(ROOT, san=pattern)) == "user-0") is fits


def test_subject_and_name_must_both_fit() -> None:
    both = rule(ROOT, subject="agent-1", san="a.agents.example")
    assert owner(ROOT.issue("agent-1", *NAMES), both) == "user-0"
    assert owner(ROOT.issue("agent-1"), both) is None
    assert owner(ROOT.issue("agent-2", *NAMES), both) is None


def test_a_reload_renews_a_certificate_as_long_as_it_is_the_users() -> None:
    chain = ROOT.issue("agent-1")
    named = User(name="a", certificates=(rule(ROOT, subject="agent-*"),), rights=Rights())
    principal = Users([named]).by_certificate(chain)
    assert principal is not None
    pinned = User(
        name="a",
        certificates=(CertificateRule(fingerprint=fingerprint_of(chain[0])),),
        rights=Rights(tcp=("x",)),
    )
    renewed = Users([pinned]).renew(principal)
    assert renewed is not None and renewed.rights.tcp == ("x",)
    assert Users([User(name="a", rights=Rights())]).renew(principal) is None
    assert Users([User(name="b", certificates=pinned.certificates, rights=Rights())]).renew(principal) is None


def test_what_a_person_is_told() -> None:
    chain = ROOT.issue("agent-1")
    told = describe(chain)
    assert "CN=agent-1" in told and fingerprint_of(chain[0]).hex() in told
    assert "unreadable" in describe((b"\x00",))
    assert owner((b"\x00",), rule(ROOT, subject="*")) is None


def test_fingerprints_as_openssl_prints_them() -> None:
    digest = bytes(range(32))
    for text in (digest.hex(), "sha256:" + digest.hex().upper(), digest.hex(":").upper()):
        assert parse_fingerprint(text) == digest
    for wrong in ("sha256:00", digest.hex()[:-1], "sha1:" + digest.hex(), 5, None):
        with pytest.raises(ValueError, match="fingerprint"):
            parse_fingerprint(wrong)


def test_commas_in_values() -> None:
    assert parse_subject(r"CN=a,O=Example\, Ltd") == (("CN", "a"), ("O", "Example, Ltd"))
    for wrong in ("", "CN=", "=x", "CN=a,b", "XX=a", "x" * 600, 5):
        with pytest.raises(ValueError, match=r"\w"):
            parse_subject(wrong)
    for wrong in ("", "DNS:", "FTP:x"):
        with pytest.raises(ValueError, match=r"\w"):
            parse_san(wrong)
