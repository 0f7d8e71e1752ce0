"""What the fuzzer has kept, on every build: the corpus, and each input that once broke something."""

from pathlib import Path

import pytest

from tests.fuzz.targets import TARGETS

HERE = Path(__file__).parent


def kept(place: str, target: str) -> list[Path]:
    return sorted((HERE / place / target).glob("*"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_passes(target: str) -> None:
    inputs = kept("corpus", target)
    assert inputs, f"there is no corpus for {target}"
    for path in inputs:
        try:
            TARGETS[target](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.name} of {target}: {error!r}") from error


@pytest.mark.parametrize("target", TARGETS)
def test_what_broke_once_passes(target: str) -> None:
    for path in kept("crashes", target):
        TARGETS[target](path.read_bytes())
