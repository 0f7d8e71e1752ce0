"""Tokens, their hashes and their files."""

import hashlib
import stat
from pathlib import Path

import pytest

from broker.config.model import Secret
from broker.config.tokens import (
    new_token,
    parse_token,
    parse_token_hash,
    read_token_file,
    readable_by_others,
    token_digest,
    token_hash,
    write_token_file,
)
from broker.errors import RunError


def test_a_new_token_is_long_and_its_own() -> None:
    made = {new_token().reveal() for _ in range(50)}
    assert len(made) == 50
    for text in made:
        assert text.startswith("broker_")
        assert len(text) == 50
        assert parse_token(text).reveal() == text


def test_the_hash_is_sha256_of_the_text() -> None:
    token = Secret("a-token-for-the-tests")
    digest = hashlib.sha256(b"a-token-for-the-tests").digest()
    assert token_digest(token) == digest
    assert token_hash(token) == f"sha256:{digest.hex()}"
    assert parse_token_hash(token_hash(token)) == digest
    assert parse_token_hash("sha256:" + digest.hex().upper()) == digest


@pytest.mark.parametrize(
    "value", ["", "sha256:", "sha256:12", "sha1:" + "0" * 64, "0" * 64, "sha256:" + "g" * 64, 5, None]
)
def test_no_hashes(value: object) -> None:
    with pytest.raises(ValueError, match="must be a token's hash"):
        parse_token_hash(value)


def test_a_token_may_stand_above_its_hash() -> None:
    token = new_token()
    assert parse_token(f"{token.reveal()}\n{token_hash(token)}\n") == token
    with pytest.raises(ValueError, match="one line"):
        parse_token(f"{token.reveal()}\n{token_hash(new_token())}\n")


@pytest.mark.parametrize(
    "text", ["", " \n", "short", "a b" * 20, "x" * 1025, "é" * 20, "sha256:" + "0" * 64, "x" * 15]
)
def test_no_tokens(text: str) -> None:
    with pytest.raises(ValueError, match="token") as caught:
        parse_token(text)
    assert not text.strip() or text not in str(caught.value)


def test_token_files(tmp_path: Path) -> None:
    path = tmp_path / "a.token"
    token = new_token()
    write_token_file(path, token)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_token_file(path) == token
    assert not readable_by_others(path)
    path.chmod(0o640)
    assert readable_by_others(path)
    with pytest.raises(RunError, match="exists already"):
        write_token_file(path, token)
    with pytest.raises(RunError, match="can't be written: No such file"):
        write_token_file(tmp_path / "no" / "a.token", token)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "there is no token"),
        (b"x" * 5000, "too long"),
        (b"\xff" * 20, "doesn't hold a token"),
        (b"a b", "one line"),
    ],
)
def test_files_without_a_token(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "a.token"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=words):
        read_token_file(path)


def test_secrets_compare_without_showing() -> None:
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert len({Secret("a"), Secret("a")}) == 1
    assert f"{Secret('abc')} {Secret('abc')!r}" == "Secret(***) Secret(***)"
