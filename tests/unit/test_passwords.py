"""Passwords of people: their hashes, and proving them."""

import pytest

from broker.config.model import PasswordHash, Rights, Secret, User
from broker.config.passwords import (
    _derive,
    format_password_hash,
    hash_password,
    parse_password,
    parse_password_hash,
    verify_password,
)
from broker.identity import users as users_module
from broker.identity.users import NOBODY, Users, cost_of, decoys

# RFC 7914, 12: scrypt("pleaseletmein", "SodiumChloride", 16384, 8, 1, 64)
KNOWN = (
    "7023bdcb3afd7348461c06cd81fd38ebfda8fbba904f8e3ea9b543f6545da1f2"
    "d5432955613f0fcf62d49705242a9af9e61e85dc0d651e40dfcf017b45575887"
)


def cheap(text: str) -> PasswordHash:
    """A hash that costs nothing, for the tests."""
    blank = PasswordHash(salt=b"salt-of-the-tests", key=bytes(32), log_n=2, r=1, p=1)
    return PasswordHash(salt=blank.salt, key=_derive(Secret(text), blank), log_n=2, r=1, p=1)


def test_it_is_scrypt() -> None:
    known = PasswordHash(salt=b"SodiumChloride", key=bytes.fromhex(KNOWN), log_n=14, r=8, p=1)
    assert verify_password(Secret("pleaseletmein"), known)
    assert not verify_password(Secret("pleaseletmeout"), known)


def test_a_hash_is_salted_and_reads_back() -> None:
    one, two = (hash_password(Secret("correct horse")) for _ in range(2))
    assert one != two
    line = format_password_hash(one)
    assert line.startswith("$scrypt$ln=15,r=8,p=1$")
    assert parse_password_hash(line) == one
    assert verify_password(Secret("correct horse"), one)
    assert "salt" not in repr(one) and "key" not in repr(one)


@pytest.mark.parametrize(
    "value",
    [
        "secret-in-the-wrong-place",
        "$scrypt$ln=15,r=8,p=1$AAAA$AAAA",
        "$scrypt$ln=0,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=24,r=8,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=15,r=8,p=99$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$scrypt$ln=15,r=8,p=1$AAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        5,
        None,
    ],
)
def test_no_hashes(value: object) -> None:
    with pytest.raises(ValueError, match=r"must|base64") as caught:
        parse_password_hash(value)
    assert "wrong-place" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "short", "two\nlines of it", "x" * 1025, "a tab\tin it"])
def test_no_passwords(text: str) -> None:
    with pytest.raises(ValueError, match="a password"):
        parse_password(text)
    assert parse_password("correct horse\r\n").reveal() == "correct horse"


def test_a_name_and_a_password_prove_a_user() -> None:
    users = Users(
        [User(name="ann", passwords=(cheap("first password"), cheap("second password")), rights=Rights())]
    )
    for text in ("first password", "second password", "second password"):
        found = users.by_password("ann", Secret(text))
        assert found is not None and found.name == "ann"
        assert users.renew(found) == found
    assert users.by_password("ann", Secret("third password")) is None
    assert Users([User(name="ann", rights=Rights())]).renew(found) is None


def test_who_has_no_password_has_none() -> None:
    users = Users([User(name="bob", rights=Rights())])
    for name in ("bob", "nobody"):
        assert users.by_password(name, Secret("")) is None


def test_every_failure_costs_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unknown names, users without a password, with one and with several, with cheap ones and dear ones."""
    spent = 0
    verify = users_module.verify_password

    def counting(password: Secret, known: PasswordHash) -> bool:
        nonlocal spent
        spent += cost_of(known)
        return verify(password, known)

    monkeypatch.setattr(users_module, "verify_password", counting)
    dear = PasswordHash(salt=bytes(32), key=bytes(32), log_n=15, r=8, p=1)
    several = (cheap("one password"), dear, cheap("another one"))
    users = Users(
        [
            User(name="ann", passwords=several, rights=Rights()),
            User(name="bob", rights=Rights()),
            User(name="cyd", passwords=(cheap("her password"),), rights=Rights()),
        ]
    )
    costs = []
    for name in ("ann", "bob", "cyd", "nobody"):
        spent = 0
        assert users.by_password(name, Secret("a wrong one")) is None
        costs.append(spent)
    assert min(costs) > 0.99 * max(costs) > 0.99 * cost_of(dear), costs


def test_decoys_cost_what_they_should_and_no_more_memory() -> None:
    assert list(decoys(0)) == []
    assert list(decoys(2 * cost_of(NOBODY))) == [NOBODY, NOBODY]
    for cost in (1, 2, 1000, 3 * cost_of(NOBODY) - 1, 5 * cost_of(NOBODY) + 77_777):
        made = list(decoys(cost))
        assert abs(sum(cost_of(each) for each in made) - cost) <= max(cost * 0.1, 1), (cost, made)
        assert all(128 * each.r << each.log_n <= 64 << 20 for each in made)


def test_a_password_composed_otherwise_is_the_same() -> None:
    users = Users([User(name="ann", passwords=(cheap("Zo\u00eb's password"),), rights=Rights())])
    assert users.by_password("ann", Secret("Zoe\u0308's password")) is not None
