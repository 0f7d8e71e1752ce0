"""Extension modules only; everything else is in pyproject.toml.

Builds that are not the release stand beside it, so that both can be tested:

    python setup.py build_ext --inplace                     release, into _fastpath/
    BROKER_DEBUG=1 python setup.py build_ext --inplace      invariants, into build/debug/
    BROKER_SANITIZE=1 python setup.py build_ext --inplace   the same with ASan and UBSan, into build/sanitize/
    BROKER_FUZZ=1 python setup.py build_ext --inplace       with coverage for libFuzzer, too, into build/fuzz/

Run one of the latter with PYTHONSAFEPATH=1 PYTHONPATH=build/debug:. (scripts/test does).
BROKER_WERROR=1 makes warnings of the C compiler errors.
"""

import os
import re
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
FUZZ = os.environ.get("BROKER_FUZZ") == "1"
SANITIZE = os.environ.get("BROKER_SANITIZE") == "1"
DEBUG = FUZZ or SANITIZE or os.environ.get("BROKER_DEBUG") == "1"
FLAVOUR = "fuzz" if FUZZ else "sanitize" if SANITIZE else "debug" if DEBUG else "release"

CYTHON = "build/cython"
IMPORT = re.compile(r"^\s*from _fastpath(?:\.(\w+) c?import| c?import (\w+))", re.MULTILINE)
DIRECTIVES = {"language_level": "3", "cdivision": True, "binding": True, "embedsignature": False}
FLAGS = {
    "release": ["-O2", "-DNDEBUG"],
    "debug": ["-O1", "-g", "-UNDEBUG"],
    "sanitize": ["-O1", "-g", "-UNDEBUG", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"],
    # Not linked with the compiler's own sanitizers: scripts/fuzz preloads those that come with the fuzzer.
    "fuzz": [
        *("-O1", "-g", "-UNDEBUG", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"),
        "-fsanitize-coverage=trace-pc,trace-cmp",
    ],
}
# What Cython's own generated code can't avoid is switched off.
WARNINGS = [
    *("-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unreachable-code"),
    *("-Wno-missing-field-initializers", "-Wno-cast-function-type"),
]


def uses(module: str, found: set[str]) -> set[str]:
    """`found`, with all modules of the core that `module` imports."""
    for source in ROOT.glob(f"_fastpath/{module}.p*[xd]"):
        for name, other in IMPORT.findall(source.read_text()):
            if (name or other) not in found:
                found.add(name or other)
                uses(name or other, found)
    return found


def extensions() -> list[Extension]:
    compile_flags = FLAGS[FLAVOUR] + WARNINGS
    if os.environ.get("BROKER_WERROR") == "1":
        compile_flags.append("-Werror")
    return [
        Extension(
            f"_fastpath.{source.stem}",
            [str(source.relative_to(ROOT))],
            extra_compile_args=compile_flags,
            extra_link_args=["-fsanitize=address,undefined"] if SANITIZE else [],
            define_macros=[("BROKER_DEBUG", "1" if DEBUG else "0")],
            depends=["setup.py"],
        )
        for source in sorted(ROOT.glob("_fastpath/*.pyx"))
        # What the fuzzer calls knows no descriptor.
        if not FUZZ or not {"net", "reactor", "tls"} & uses(source.stem, {source.stem})
    ]


def directives_changed() -> bool:
    """Whether the C files are older than this file: Cython itself looks at the sources only."""
    stamps = [path.stat().st_mtime for path in (ROOT / CYTHON).glob("_fastpath/*.c")]
    return bool(stamps) and min(stamps) < Path(__file__).stat().st_mtime


class BuildExt(build_ext):
    """Compiles in parallel; keeps the flavours apart."""

    def finalize_options(self) -> None:
        if FLAVOUR != "release" and self.inplace:
            self.inplace = False
            self.build_lib = f"build/{FLAVOUR}"
            self.build_temp = f"build/temp-{FLAVOUR}"
        super().finalize_options()
        self.parallel = self.parallel or len(os.sched_getaffinity(0))

    def run(self) -> None:
        super().run()
        if FLAVOUR != "release" and self.build_lib == f"build/{FLAVOUR}":
            self.complete(ROOT / self.build_lib)

    def complete(self, place: Path) -> None:
        """Make `place` importable on its own: the sources of `broker` are the tree's."""
        shutil.copy(ROOT / "_fastpath" / "__init__.py", place / "_fastpath" / "__init__.py")
        sources = place / "broker"
        if sources.is_symlink() and sources.resolve() != (ROOT / "broker").resolve():
            sources.unlink()  # a build that was copied from another tree
        if not sources.is_symlink():
            sources.symlink_to(ROOT / "broker")


if __name__ == "__main__":
    setup(
        cmdclass={"build_ext": BuildExt},
        ext_modules=cythonize(
            extensions(),
            build_dir=CYTHON,
            force=directives_changed(),
            nthreads=len(os.sched_getaffinity(0)),
            compiler_directives=DIRECTIVES,
        ),
    )
