"""Problems: what a client is answered, what a command says, and how the process ends.

`PROBLEMS` is the contract's table of answers, one entry per `Code` of `_fastpath/end.pxd`;
`ANSWERS` is the same for `_fastpath.answers.set_answers`. The exceptions are what commands
turn into one sentence on standard error and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_USAGE = 2


TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


@dataclass(frozen=True, slots=True)
class Problem:
    """One way in which an exchange ends early, as a client sees it."""

    number: int
    """`Code` in `_fastpath/end.pxd`, and in RESET frames."""
    status: int
    code: str
    """The contract's word, in the `Broker-Error` header."""
    detail: str
    close: bool = False
    """The connection can't be used again: where the next request would begin is not known."""
    retry_after: int = 0
    """Seconds for the `Retry-After` header; 0: none."""

    @property
    def title(self) -> str:
        return TITLES[self.status]


# fmt: off
PROBLEMS: tuple[Problem, ...] = (
    # Cancelled by the side that should have answered: to a client that is an upstream that hung up.
    Problem(0, 502, "upstream-protocol", "The service gave up the request before it answered."),
    Problem(1, 502, "tunnel-lost", "The tunnel was closed: its two ends disagree about the protocol."),
    Problem(2, 502, "tunnel-lost", "The tunnel was closed: more bytes came through it than were allowed."),
    Problem(3, 502, "tunnel-lost", "A broker node failed over this request; its log says why.", close=True),
    Problem(4, 503, "no-agent", "The agent of this service is going away; try again.", retry_after=1),
    Problem(5, 503, "overloaded", "A limit on streams, memory or connections is reached; try again later.",
            retry_after=1),
    Problem(6, 404, "no-service", "Nothing announces or serves this host and path."),
    Problem(7, 503, "no-agent", "The service is known, but none of its agents is connected.", retry_after=3),
    Problem(8, 403, "forbidden", "The credentials are valid, but give no right to this."),
    Problem(9, 401, "unauthenticated", "Valid credentials are needed."),
    Problem(10, 400, "bad-request", "The request is malformed or ambiguous.", close=True),
    Problem(11, 408, "request-timeout", "The head of the request took too long to arrive.", close=True),
    Problem(12, 413, "body-too-large", "The body of the request is larger than the limit.", close=True),
    Problem(13, 414, "head-too-large", "The URI of the request is longer than the limit.", close=True),
    Problem(14, 431, "head-too-large", "The head of the request has more bytes or fields than the limit.",
            close=True),
    Problem(15, 429, "rate-limited", "The allowed rate or quota is used up; try again later.", retry_after=1),
    Problem(16, 502, "upstream-unreachable", "The node that serves this could not reach the service."),
    Problem(17, 502, "upstream-protocol", "The service broke HTTP, or hung up before it answered."),
    Problem(18, 502, "tunnel-lost", "The tunnel was lost, and the request could not be sent again safely."),
    Problem(19, 504, "upstream-timeout", "The service took too long to answer."),
    Problem(20, 505, "unsupported", "Only HTTP/1.1 and HTTP/1.0 are understood here.", close=True),
    Problem(21, 501, "unsupported", "Of the transfer codings only chunked is understood here.", close=True),
)
# fmt: on

ANSWERS: list[tuple[int, int, str, str, str, bool, int]] = [
    (each.number, each.status, each.code, each.title, each.detail, each.close, each.retry_after)
    for each in PROBLEMS
]


class BrokerError(Exception):
    """What a command reports: one clear sentence that says what is wrong and what to do."""

    code = "failed"
    exit_code = EXIT_FAILED


class UsageError(BrokerError):
    """The command line asks for what can't be."""

    code = "usage"
    exit_code = EXIT_USAGE


class RunError(BrokerError):
    """It failed while running."""

    code = "run-failed"


class ListenError(RunError):
    """A port could not be bound."""

    code = "cannot-listen"


class AdminError(RunError):
    """The admin port of a running node could not be reached, or refused."""

    code = "admin-failed"


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong, and where: a file's line, or (without file) the command line."""

    message: str
    key: str = ""
    """Path of the key, as in `services[0].upstream`; or the flag, as in `--external`."""
    file: Path | None = None
    line: int = 0
    """From 1; 0 where there is no line, such as for a missing file."""
    column: int = 0

    def __str__(self) -> str:
        place = str(self.file) if self.file else "command line"
        if self.line:
            place += f":{self.line}:{self.column}"
        text = f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"
        # One line, whatever the file holds: nothing that would steer a terminal or break a log.
        return "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode() for each in text
        )


class ConfigError(BrokerError):
    """Everything that is wrong with a configuration, in the order of the file."""

    code = "config"
    exit_code = EXIT_USAGE

    def __init__(self, problems: Iterable[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(each) for each in self.problems))
