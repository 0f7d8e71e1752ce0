"""The answers that a node makes: dated."""

import re
import time
from email.utils import formatdate, parsedate_to_datetime

from _fastpath.answers import render_answer, set_answers
from broker.errors import ANSWERS
from tests.harness.waiting import wait_until


def date_of(answer: bytes) -> str:
    found = re.findall(rb"^Date: (.*)\r$", answer.partition(b"\r\n\r\n")[0], re.MULTILINE)
    assert len(found) == 1, answer
    return found[0].decode()


def test_every_answer_has_the_date_of_its_moment() -> None:
    set_answers(ANSWERS)
    before = 0
    for _ in range(2):
        # The kernel's coarse clock, which time(2) reads, is some milliseconds behind.
        wait_until(lambda: int(time.time() - 0.1) > before, "the next second")  # noqa: B023
        before = int(time.time() - 0.1)
        dates = {date_of(render_answer(entry[0], 0, close)) for entry in ANSWERS for close in (False, True)}
        for date in dates:
            seconds = parsedate_to_datetime(date).timestamp()
            assert before <= seconds <= time.time()
            assert date == formatdate(seconds, usegmt=True)
