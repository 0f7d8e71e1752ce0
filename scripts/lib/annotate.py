"""The Cython gate: no warnings, no performance hints, no Python between `# hot: begin` and `# hot: end`.

Cython's own -Werror passes over performance hints, and nothing of it looks at what a line compiles to; both
are read here, from standard error and from the annotated HTML (beside the C files in build/cython). In a hot
block a line may count references; into Python it may call only with its reason (`# py-ok: reason`).
"""

import html
import importlib.util
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
# Where setup.py looks for C files: a build after this one compiles them as they are.
OUT = ROOT / "build" / "cython" / "_fastpath"
LINE = re.compile(r'<pre class="cython line score-\d+"[^>]*>(?:\+|&#xA0;)<span class="">(\d+)</span>: ?(.*)')
CALL = re.compile(r"<span class='(?:py_c_api|pyx_c_api|py_macro_api)'>([^<]*)</span>")
# Reference counting, and what is no call at all.
HARMLESS = re.compile(
    r"_*(?:Py|Pyx|__Pyx)_(?:X?INCREF|X?DECREF|CLEAR|X?GOTREF|X?GIVEREF|SetRef|XDECREF_SET|DECREF_SET|None|Is)"
)
SIGNATURE = re.compile(r"\s*(?:cdef|cpdef|def)\b[^=]*\(|\s*raise\b")


@dataclass
class Module:
    source: Path
    messages: list[str] = field(default_factory=list)
    hot_lines: int = 0

    @property
    def annotated(self) -> Path:
        return OUT / f"{self.source.stem}.html"


def directives() -> dict[str, object]:
    spec = importlib.util.spec_from_file_location("setup", ROOT / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    return setup.DIRECTIVES  # type: ignore[no-any-return]


def compile_annotated(module: Module) -> None:
    """Compile unless the HTML is newer than its sources; complaints remove it, so that they come back."""
    inputs = [module.source, ROOT / "setup.py", *ROOT.glob("_fastpath/*.pxd")]
    if module.annotated.exists():
        age = module.annotated.stat().st_mtime
        if all(path.stat().st_mtime < age for path in inputs):
            return
    options = [argument for key, value in directives().items() for argument in ("-X", f"{key}={value}")]
    source = module.source.relative_to(ROOT)
    run = subprocess.run(
        [sys.executable, "-m", "cython", "-a", *options, "-o", OUT / f"{source.stem}.c", source],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in (run.stdout + run.stderr).splitlines() if line.strip()]
    if run.returncode or complaints:
        module.messages += complaints or [f"{source}: Cython failed"]
        module.annotated.unlink(missing_ok=True)


def python_calls(annotated: Path) -> dict[int, list[str]]:
    """What each line of a module calls in Python, by line number."""
    calls: dict[int, list[str]] = {}
    number = 0
    for text in annotated.read_text(encoding="utf-8").splitlines():
        if match := LINE.search(text):
            number = int(match[1])
        for name in CALL.findall(text):
            if not HARMLESS.fullmatch(html.unescape(name)):
                calls.setdefault(number, []).append(name)
    return calls


def hot_lines(module: Module, lines: list[str]) -> list[int]:
    """The numbers of all lines inside hot blocks."""
    found: list[int] = []
    since = 0
    for number, line in enumerate(lines, 1):
        match line.strip():
            case "# hot: begin":
                if since:
                    module.messages.append(f"{module.source.name}:{number}: a hot block inside a hot block")
                since = number
            case "# hot: end":
                if not since:
                    module.messages.append(
                        f"{module.source.name}:{number}: no hot block begins before this end"
                    )
                since = 0
            case _ if since:
                found.append(number)
    if since:
        module.messages.append(f"{module.source.name}:{since}: this hot block does not end")
    return found


def check_hot_lines(module: Module) -> None:
    lines = module.source.read_text(encoding="utf-8").splitlines()
    calls = python_calls(module.annotated)
    hot = hot_lines(module, lines)
    module.hot_lines = len(hot)
    for number in hot:
        line = lines[number - 1]
        if number in calls and not SIGNATURE.match(line) and "# py-ok: " not in line:
            names = ", ".join(sorted(set(calls[number])))
            where = f"{module.source.relative_to(ROOT)}:{number}"
            module.messages.append(f"{where}: Python in a hot block: {line.strip()}  [{names}]")


def main() -> int:
    modules = [Module(source) for source in sorted(ROOT.glob("_fastpath/*.pyx"))]
    assert modules, "there are no modules"
    OUT.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(compile_annotated, modules))
    for module in modules:
        if module.annotated.exists():
            check_hot_lines(module)
        print(*module.messages, sep="\n", end="\n" if module.messages else "", file=sys.stderr)
    total = sum(module.hot_lines for module in modules)
    failed = [module.source.name for module in modules if module.messages]
    print(f"{len(modules)} modules, {total} hot lines" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
