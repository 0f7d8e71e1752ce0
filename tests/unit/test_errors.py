"""The table of answers is the contract's, and agrees with the compiled core's codes."""

import re
from pathlib import Path

import pytest

from broker.errors import (
    ANSWERS,
    PROBLEMS,
    AdminError,
    BrokerError,
    ConfigError,
    ConfigProblem,
    ListenError,
    RunError,
    UsageError,
)

END_PXD = Path(__file__).parents[2] / "_fastpath" / "end.pxd"

# The contract's table: status and code of every situation.
CONTRACT = {
    (400, "bad-request"),
    (401, "unauthenticated"),
    (403, "forbidden"),
    (404, "no-service"),
    (408, "request-timeout"),
    (413, "body-too-large"),
    (414, "head-too-large"),
    (431, "head-too-large"),
    (429, "rate-limited"),
    (502, "upstream-unreachable"),
    (502, "upstream-protocol"),
    (502, "tunnel-lost"),
    (503, "no-agent"),
    (503, "overloaded"),
    (504, "upstream-timeout"),
    (505, "unsupported"),
    (501, "unsupported"),
}


def codes_of_the_core() -> dict[int, tuple[str, str]]:
    """Number to name, and what its comment says of the contract."""
    lines = re.findall(r"^\s+CODE_(\w+) = (\d+)\s*(?:#(.*))?$", END_PXD.read_text(), re.MULTILINE)
    return {int(number): (name, comment) for name, number, comment in lines}


def test_every_code_of_the_core_has_an_answer() -> None:
    codes = codes_of_the_core()
    count = next(number for number, (name, _) in codes.items() if name == "COUNT")
    assert [problem.number for problem in PROBLEMS] == list(range(count)) == [entry[0] for entry in ANSWERS]


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: str(problem.number))
def test_the_core_says_the_same(problem) -> None:
    _, comment = codes_of_the_core()[problem.number]
    said = re.search(r"contract: ([a-z-]+)(?:, (\d+))?", comment)
    if said:
        assert problem.code == said[1]
        assert said[2] is None or problem.status == int(said[2])


def test_the_table_is_the_contract_s() -> None:
    assert {(problem.status, problem.code) for problem in PROBLEMS} == CONTRACT


@pytest.mark.parametrize("problem", PROBLEMS, ids=lambda problem: str(problem.number))
def test_every_answer_can_be_sent(problem) -> None:
    assert problem.title.isascii()
    assert re.fullmatch(r"[A-Z].*[a-z0-9]\.", problem.detail)
    assert (problem.retry_after > 0) == (problem.status in (429, 503))
    # Where the request's end is not known, the next one can't be found.
    if problem.status in (400, 408, 413, 414, 431, 501, 505):
        assert problem.close


def test_exit_codes() -> None:
    assert [cls("x").exit_code for cls in (RunError, ListenError, AdminError, UsageError)] == [1, 1, 1, 2]
    assert ConfigError([]).exit_code == 2
    assert all(issubclass(cls, BrokerError) for cls in (RunError, UsageError, ConfigError))
    codes = {cls.code for cls in (RunError, ListenError, AdminError, UsageError, ConfigError)}
    assert len(codes) == 5


def test_a_problem_says_where() -> None:
    file = Path("a.yaml")
    assert str(ConfigProblem("is wrong", "a.b", file, 3, 5)) == "a.yaml:3:5: a.b: is wrong"
    assert str(ConfigProblem("is wrong", file=file)) == "a.yaml: is wrong"
    assert str(ConfigProblem("is wrong", "--admin")) == "command line: --admin: is wrong"
    assert str(ConfigProblem("a\nb\x1b[31m\udcff", "k")) == "command line: k: a\\nb\\x1b[31m\\udcff"
    both = ConfigError([ConfigProblem("a"), ConfigProblem("b")])
    assert str(both).count("\n") == 1
