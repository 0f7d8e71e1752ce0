"""Runs one target under libFuzzer: `python -m tests.fuzz.run TARGET [its arguments]`. See scripts/fuzz."""

import sys

import atheris

with atheris.instrument_imports(include=["broker.tunnel", "broker.identity"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    name, *arguments = sys.argv[1:]
    # libFuzzer starts itself again for a merge, by the shell.
    again = f"{sys.executable} -m tests.fuzz.run {name}"
    atheris.Setup([again, *arguments], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
