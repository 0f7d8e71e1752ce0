"""Proving a token without sending it, and what a port takes as proof of whom."""

import hashlib
import hmac
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.config.model import CertificateRule, Rights, User
from broker.identity.login import Denied, Evidence, Wants, log_in, still_enough
from broker.identity.proof import EXPORTER, NONCE, Binding, Proof, holds, key_of, prove
from broker.identity.users import Users
from broker.tunnel.credentials import (
    format_challenge,
    format_proof,
    parse_authorization,
    parse_challenge,
)

TOKEN = "broker_a-token-for-the-tests"
OTHER = "broker_another-token-for-the-tests"
HERE = Binding(EXPORTER, bytes(range(32)))
THERE = Binding(EXPORTER, bytes(range(1, 33)))
PARAMETERS = b"cGFyYW1ldGVycw"


def digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


# --- proofs -------------------------------------------------------------------------------------


def test_a_proof_is_what_the_specification_says() -> None:
    """Made with HMAC alone, from docs/protocol.md (HKDF-Expand is RFC 5869, 2.3)."""
    info = b"broker-login-1\0tls-exporter\0" + hashlib.sha256(PARAMETERS).digest() + HERE.value
    stream, block, count = b"", b"", 1
    while len(stream) < len(TOKEN):
        block = hmac.digest(digest(TOKEN), block + info + bytes([count]), "sha256")
        stream += block
        count += 1
    sealed = bytes(one ^ other for one, other in zip(TOKEN.encode(), stream, strict=False))
    assert prove(TOKEN, HERE, PARAMETERS).sealed == sealed
    assert key_of(digest(TOKEN)) == hashlib.sha256(b"broker-key-1\0" + digest(TOKEN)).digest()[:8]


def test_a_proof_holds_on_its_connection_only() -> None:
    proof = prove(TOKEN, HERE, PARAMETERS)
    assert holds(proof, digest(TOKEN), HERE)
    assert not holds(proof, digest(TOKEN), THERE)
    assert not holds(proof, digest(TOKEN), Binding(NONCE, HERE.value))
    assert not holds(proof, digest(OTHER), HERE)
    assert not holds(replace(proof, parameters=hashlib.sha256(b"x").digest()), digest(TOKEN), HERE)
    assert not holds(replace(proof, sealed=b""), digest(TOKEN), HERE)
    assert not holds(replace(proof, sealed=proof.sealed + b"x"), digest(TOKEN), HERE)


def test_the_stored_hash_makes_no_proof() -> None:
    """Who has the node's file has the stream, but not the token that it is to be laid over."""
    known = digest(TOKEN)
    for guess in (known, bytes(len(TOKEN)), known.hex().encode()):
        stolen = prove(TOKEN, HERE, PARAMETERS)
        assert not holds(replace(stolen, sealed=guess), known, HERE)


@given(st.text("abcXYZ09._~+/-", min_size=16, max_size=200), st.binary(min_size=16, max_size=32))
def test_every_token_has_its_proof(token: str, value: bytes) -> None:
    binding = Binding(NONCE, value)
    proof = prove(token, binding, PARAMETERS)
    read = parse_authorization(format_proof(proof).encode(), PARAMETERS).proof
    assert read == proof
    assert holds(read, digest(token), binding)
    assert token.encode() not in proof.sealed


def test_the_field() -> None:
    assert parse_authorization(None, b"").token is None
    assert parse_authorization(b"Bearer abc=", b"").token == "abc="
    assert parse_authorization(b"broker", b"").asks
    assert parse_challenge([b'Bearer realm="x"', format_challenge(bytes(16)).encode()]) == bytes(16)
    assert parse_challenge([b"Broker nonce=00"]) is None
    shown = repr(parse_authorization(format_proof(prove(TOKEN, HERE, b"")).encode(), b""))
    assert "sealed" not in shown and TOKEN not in repr(parse_authorization(b"Bearer " + TOKEN.encode(), b""))


@pytest.mark.parametrize(
    "value",
    [
        b"Basic Zm9v",
        b"Broker key=00, binding=nonce, proof=AAAA",
        b"Broker key=0000000000000000, binding=other, proof=AAAA",
        b"Broker key=0000000000000000, binding=nonce, proof=A",
        b"Broker key=0000000000000000, binding=nonce, proof=AAAAA",
        b"Broker key=0000000000000000, binding=nonce, proof=" + b"A" * 3000,
        b"Broker key=0000000000000000, binding=nonce, proof=AA=",
        b"Broker nonce=00",
        b"",
    ],
)
def test_fields_that_say_nothing(value: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_authorization(value, b"")


# --- who gets in --------------------------------------------------------------------------------

CERTIFICATE = (b"a certificate, in DER form",)
STRANGE = (b"another one",)


def user(name: str, token: str, certificate: tuple[bytes, ...] = ()) -> User:
    rules = tuple(CertificateRule(fingerprint=hashlib.sha256(each).digest()) for each in certificate)
    return User(name=name, tokens=(digest(token),), certificates=rules, rights=Rights())


USERS = Users([user("ann", TOKEN, CERTIFICATE), user("bob", OTHER)])
PROOF = Evidence(proof=prove(TOKEN, HERE, PARAMETERS), binding=HERE)


def entered(wants: Wants, shown: Evidence) -> str:
    """Who, or the status of the refusal."""
    try:
        return log_in(USERS, wants, shown).name
    except Denied as error:
        denied = error
    assert TOKEN not in denied.sentence and denied.sentence.endswith((".", ")."))
    assert denied.code == {401: "unauthenticated", 403: "forbidden"}[denied.status]
    return str(denied.status)


@pytest.mark.parametrize(
    ("auth", "shown", "answer"),
    [
        ("any", Evidence(), "401"),
        ("any", Evidence(token=TOKEN), "ann"),
        ("any", Evidence(token="nobody's"), "401"),
        ("any", Evidence(token=""), "401"),
        ("any", PROOF, "ann"),
        ("any", replace(PROOF, binding=THERE), "401"),
        ("any", replace(PROOF, binding=None), "401"),
        ("any", Evidence(chain=CERTIFICATE), "ann"),
        ("any", Evidence(chain=STRANGE), "403"),
        ("any", Evidence(token=OTHER, chain=STRANGE), "bob"),
        ("any", Evidence(token=OTHER, chain=CERTIFICATE), "403"),
        ("any", Evidence(token="nobody's", chain=CERTIFICATE), "401"),
        ("token", Evidence(chain=CERTIFICATE), "401"),
        ("token", Evidence(token=TOKEN, chain=CERTIFICATE), "ann"),
        ("certificate", Evidence(token=TOKEN), "401"),
        ("certificate", Evidence(chain=CERTIFICATE), "ann"),
        ("certificate", Evidence(chain=STRANGE), "403"),
        ("certificate", Evidence(token=OTHER, chain=CERTIFICATE), "403"),
        ("both", Evidence(token=TOKEN), "401"),
        ("both", Evidence(chain=CERTIFICATE), "401"),
        ("both", Evidence(token=OTHER, chain=STRANGE), "403"),
        ("both", Evidence(token=TOKEN, chain=CERTIFICATE), "ann"),
        ("both", replace(PROOF, chain=CERTIFICATE), "ann"),
    ],
)
def test_who_gets_in(auth, shown: Evidence, answer: str) -> None:
    assert entered(Wants(auth), shown) == answer


def test_a_bare_token_where_only_proofs_are_taken() -> None:
    wants = Wants(bearer=False)
    assert entered(wants, Evidence(token=TOKEN)) == entered(wants, Evidence(token="nobody's")) == "401"
    assert entered(wants, PROOF) == "ann"


def test_unknown_and_misplaced_proofs_get_one_answer() -> None:
    stranger = Evidence(proof=prove("broker_nobody-s-token-at-all", HERE, PARAMETERS), binding=HERE)
    sentences = set()
    for shown in (stranger, replace(PROOF, binding=THERE)):
        with pytest.raises(Denied) as caught:
            log_in(USERS, Wants(), shown)
        sentences.add(caught.value.sentence)
    assert len(sentences) == 1


def test_a_key_without_a_token_proves_nobody() -> None:
    forged = Evidence(proof=Proof(key_of(digest(TOKEN)), EXPORTER, b"x" * 28, b""), binding=HERE)
    assert entered(Wants(), forged) == "401"


def test_a_port_that_wants_more_after_a_reload() -> None:
    by_token = log_in(USERS, Wants(), Evidence(token=TOKEN))
    by_both = log_in(USERS, Wants("both"), Evidence(token=TOKEN, chain=CERTIFICATE))
    anonymous = log_in(Users(), Wants("both"), Evidence())
    assert [still_enough(by_token, Wants(auth)) for auth in ("any", "token", "certificate", "both")] == [
        True,
        True,
        False,
        False,
    ]
    assert all(still_enough(by_both, Wants(auth)) for auth in ("any", "token", "certificate", "both"))
    assert still_enough(anonymous, Wants("both"))
    bare = Users([user("ann", TOKEN)])
    assert bare.renew(by_token) is not None
    assert bare.renew(by_both) is None
