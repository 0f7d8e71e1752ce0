"""Runs under valgrind and lets it count each part: python -m bench.instructions.count MARKS PART...

The parts are prepared, and run once, before counting starts: what is set up at first use is not counted.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import sys

from bench.instructions.parts import PARTS


def main(marks: str, names: list[str]) -> None:
    logging.disable()  # what the nodes say about their end is not asked for
    valgrind = ctypes.CDLL(marks)
    for name in names:
        part = PARTS[name]
        with part.prepare() as work:
            work(part.count)
            gc.collect()
            gc.disable()
            valgrind.start_counting()
            work(part.count)
            valgrind.stop_counting(name.encode())
            gc.enable()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
