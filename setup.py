"""Extension modules only; everything else is in pyproject.toml.

Builds that are not the release stand beside it, so that both can be tested:

    python setup.py build_ext --inplace                     release, into _fastpath/
    BROKER_DEBUG=1 python setup.py build_ext --inplace      invariants, into build/debug/
    BROKER_SANITIZE=1 python setup.py build_ext --inplace   the same with ASan and UBSan, into build/sanitize/

Run one of the latter with PYTHONSAFEPATH=1 PYTHONPATH=build/debug:. (scripts/test does).
BROKER_WERROR=1 makes warnings of the C compiler errors.
"""

import os
import shutil
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).parent
SANITIZE = os.environ.get("BROKER_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("BROKER_DEBUG") == "1"
FLAVOUR = "sanitize" if SANITIZE else "debug" if DEBUG else "release"

CYTHON = "build/cython"
DIRECTIVES = {"language_level": "3", "cdivision": True, "binding": True, "embedsignature": False}
FLAGS = {
    "release": ["-O2", "-DNDEBUG"],
    "debug": ["-O1", "-g", "-UNDEBUG"],
    "sanitize": ["-O1", "-g", "-UNDEBUG", "-fsanitize=address,undefined", "-fno-omit-frame-pointer"],
}
# What Cython's own generated code can't avoid is switched off.
WARNINGS = [
    *("-Wall", "-Wextra", "-Wno-unused-function", "-Wno-unused-parameter", "-Wno-unreachable-code"),
    *("-Wno-missing-field-initializers", "-Wno-cast-function-type"),
]


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
        if not (place / "broker").is_symlink():
            (place / "broker").symlink_to(ROOT / "broker")


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
