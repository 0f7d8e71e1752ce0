"""Keyed hashes, failures by address, what is shown of certificates, and Basic credentials."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from _fastpath.failures import Failures
from _fastpath.gate import Caller, Gate
from _fastpath.siphash import keyed_hash
from broker.identity.gates import read_basic, table_of
from broker.identity.shown import FIELDS, MAX_LINES, envoy, lines_of, quoted

# The first, and some more, of vectors_sip128 of the reference implementation: the input is 00, 01, 02 ...
VECTORS = {
    0: "a3817f04ba25a8e66df67214c7550293",
    1: "da87c1d86b99af44347659119b22fc45",
    2: "8177228da4a45dc7fca38bdef60affe4",
}


def test_siphash_is_that_of_its_authors() -> None:
    for size, expected in VECTORS.items():
        assert keyed_hash(bytes(range(16)), bytes(range(size))).hex() == expected
    seen = {keyed_hash(bytes(16), bytes([1]) * size) for size in range(100)}
    assert len(seen) == 100
    with pytest.raises(ValueError, match="16 bytes"):
        keyed_hash(b"short", b"")


def test_failures_are_paid_off_by_time() -> None:
    failures = Failures()
    assert [failures.failed("192.0.2.1", 1000) for _ in range(12)] == [True] * 10 + [False] * 2
    assert failures.failed("192.0.2.2", 1000)
    assert not failures.failed("192.0.2.1", 5999)
    assert failures.failed("192.0.2.1", 6000)
    assert not failures.failed("192.0.2.1", 6000)
    assert all(failures.failed("192.0.2.1", 1_000_000) for _ in range(10))


def test_failures_of_one_ipv6_network_are_one() -> None:
    failures = Failures()
    assert sum(failures.failed(f"2001:db8::{number:x}", 1000) for number in range(20)) == 10
    assert failures.failed("2001:db8:0:1::1", 1000)
    with pytest.raises(ValueError, match="not an address"):
        failures.failed("example.com", 1)


def test_many_addresses_take_no_more_memory_and_old_debts_go_first() -> None:
    failures = Failures()
    for _ in range(11):
        failures.failed("192.0.2.1", 1000)
    for number in range(20_000):
        failures.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 1000)
    assert not failures.failed("192.0.2.1", 1000)  # owes most: not pushed out by those that owe one


def certificate(subject: x509.Name, *names: x509.GeneralName, issuer: x509.Name | None = None) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer or subject)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now).not_valid_after(now + timedelta(days=1))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)


def named(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def test_what_is_shown_of_a_certificate() -> None:
    names = [x509.DNSName("a.example"), x509.UniformResourceIdentifier("spiffe://x/a;Hash=1")]
    root, issuer = certificate(named("root")), certificate(named("between"), issuer=named("root"))
    leaf = certificate(named("alice"), *names, issuer=named("between"))
    shown = envoy(leaf)
    assert shown.endswith(';Subject="CN=alice";URI="spiffe://x/a;Hash=1";DNS="a.example"')
    lines = lines_of((leaf, issuer, root), sum(FIELDS.values())).split(b"\r\n")
    assert lines[0] == b"X-Forwarded-Client-Cert: " + shown.encode()
    assert lines[1] == b"Client-Cert: :" + base64.b64encode(leaf) + b":"
    assert lines[2] == b"Client-Cert-Chain: :" + base64.b64encode(issuer) + b":"  # without the root
    assert lines[3:] == [b""]


@pytest.mark.parametrize("text", ['a"b', "a\\b", "a\r\nBroker-User: root", "a\0b", "ä", '";Hash=0;X="'])
def test_names_can_not_break_out(text: str) -> None:
    shown = quoted(text)
    assert shown.isascii() and shown.isprintable()
    assert '"' not in shown[1:-1].replace('\\"', "")
    line = lines_of((certificate(named(text)),), FIELDS["X-Forwarded-Client-Cert"])
    assert line.count(b"\r\n") == 1 and line.count(b";") == 1 + text.count(";")


def test_a_large_certificate_is_left_out() -> None:
    names = [x509.DNSName(f"{'x' * 60}.{number}.example") for number in range(300)]
    lines = lines_of((certificate(named("big"), *names),), sum(FIELDS.values()))
    assert len(lines) <= MAX_LINES
    assert lines.startswith(b"X-Forwarded-Client-Cert: ") and b"Client-Cert: :" not in lines


@pytest.mark.parametrize(
    "text", [b"", b"!", b"YQ", b"YQ==", b"Y Q==", b"YTpi=", b"YTpiAA==", base64.b64encode(b"\xff:x")]
)
def test_basic_credentials_that_are_none(text: bytes) -> None:
    assert read_basic(text) is None


def test_basic_credentials() -> None:
    found = read_basic(base64.b64encode("näme:a:b".encode()))
    assert found is not None
    assert (found[0], found[1].reveal()) == ("näme", "a:b")


def test_gates_know_their_words() -> None:
    callers = {"a": Caller("a", b"Broker-User: a\r\n", table_of([]))}
    gate = Gate(["token", "certificate"], callers, lambda *_: None)
    assert (gate.proofs, gate.keeps, gate.asked) == (5, False, 0)
    assert callers["a"].name == "a"
    with pytest.raises(KeyError):
        Gate(["magic"], callers, lambda *_: None)
    assert table_of(None) is None
