"""The house rules that a machine can hold: imports go downward, files stay short, stubs exist.

Two worlds: `broker/` by rooms, `_fastpath/` by levels. A new room or module is given its place here.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# From the top down; a room imports from rooms below it and from itself.
ROOMS = [
    "cli",
    "bench",
    "node",
    "ports",
    "tunnel",
    "services",
    "identity",
    "observe",
    "config",
    "tls",
    "errors",
]
# Stand beside the rooms: the entry point, and what everything may read.
ENTRY, VERSION = "__main__", "__init__"

# From the bottom up; a module uses its own level and those below. Up to "http", nothing knows a descriptor.
LEVELS = {
    "bytes": {"memory", "wire", "address", "networks", "proxy", "siphash", "failures"},
    "ends": {"end", "guard"},
    "session": {
        "meta",
        "frame",
        "liveness",
        "window",
        "slots",
        "output",
        "stream",
        "audit",
        "session",
        "sweep",
        "events",
    },
    "http": {
        "grammar",
        "rules",
        "chunked",
        "http1",
        "forward",
        "reading",
        "route",
        "hello",
        "upgrade",
        "websocket",
        "forwarded",
        "ids",
        "crowd",
        "writer",
        "pace",
        "trace",
    },
    "kernel": {"net", "libuv", "settings", "answers", "reactor", "tls", "socket"},
    "exchange": {
        *(
            "exchange",
            "gate",
            "pipe",
            "spool",
            "record",
            "meter",
            "lines",
            "connection",
            "pool",
            "backend",
            "reply",
            "upstream",
            "tcp",
            "service",
            "request",
            "response",
            "deadlines",
            "client",
        ),
        *("tunnel", "group", "listener"),
    },
    "bench": {"loops"},
}
LONGEST_FILE = 600
IMPORT = re.compile(r"^\s*(?:from\s+_fastpath\.(\w+)\s+c?import|c?import\s+_fastpath\.(\w+))", re.MULTILINE)

Graph = dict[str, set[str]]


def find_cycle(graph: Graph) -> list[str]:
    """One cycle of the graph, or []."""
    state: dict[str, bool] = {}  # False: on the path, True: done
    path: list[str] = []

    def visit(node: str) -> list[str]:
        state[node] = False
        path.append(node)
        for after in sorted(graph.get(node, ())):
            if state.get(after) is False:
                return [*path[path.index(after) :], after]
            if after not in state and (cycle := visit(after)):
                return cycle
        state[node] = True
        path.pop()
        return []

    for node in sorted(graph):
        if node not in state and (cycle := visit(node)):
            return cycle
    return []


def broker_files() -> dict[str, Path]:
    """All modules of broker by dotted name."""
    files = {}
    for path in sorted((ROOT / "broker").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(parts).removesuffix(".__init__")] = path
    assert len(files) > 5
    return files


def imported(tree: ast.AST, package: str, known: set[str]) -> Iterator[str]:
    """The modules of broker and _fastpath that `tree` imports, wherever the statement stands."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [
                f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names
            ]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in ("broker", "_fastpath"))


def room_of(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else VERSION


def test_rooms_import_downward() -> None:
    files = broker_files()
    seen = 0
    for name, path in files.items():
        room = room_of(name)
        assert room in {*ROOMS, ENTRY, VERSION}, f"{path} is in a room without a place in ROOMS"
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        for other in imported(ast.parse(path.read_text()), package, set(files)):
            seen += 1
            target = room_of(other)
            if other.startswith("_fastpath") or target in (room, VERSION) or room == ENTRY:
                continue
            assert room != VERSION, f"broker/__init__.py imports {other}"
            assert ROOMS.index(target) > ROOMS.index(room), f"{path} imports {other}: that is upward"
    assert seen > 20


def test_modules_of_broker_have_no_cycles() -> None:
    files = broker_files()
    graph: Graph = {}
    for name, path in files.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        # What a function imports when it is called, or only a type checker reads, makes no cycle at run time.
        tree = ast.parse(path.read_text())
        top = ast.Module([node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))], [])
        graph[name] = {
            other for other in imported(top, package, set(files)) if other in files and other != name
        }
    assert find_cycle(graph) == []


def compiled_files(*suffixes: str) -> list[Path]:
    files = [path for suffix in suffixes for path in sorted((ROOT / "_fastpath").glob(f"*{suffix}"))]
    assert len(files) > 5
    return files


def level_of(module: str) -> int:
    for number, modules in enumerate(LEVELS.values()):
        if module in modules:
            return number
    raise AssertionError(f"_fastpath/{module} has no place in LEVELS")


def test_compiled_modules_import_downward() -> None:
    seen = 0
    for path in compiled_files(".pyx", ".pxd"):
        text = path.read_text()
        assert not re.search(r"^\s*(?:from|import|cimport)\s+broker\b", text, re.MULTILINE), (
            f"{path} imports broker"
        )
        for first, second in IMPORT.findall(text):
            seen += 1
            other = first or second
            assert level_of(other) <= level_of(path.stem), f"{path.name} imports {other}: that is upward"
    assert seen > 20


def test_compiled_modules_have_no_cycles() -> None:
    # An implementation uses interfaces: http1.pyx may use rules.pxd, which needs the structs of http1.pxd.
    graph: Graph = {}
    for path in compiled_files(".pyx", ".pxd"):
        uses = {f"{first or second}.pxd" for first, second in IMPORT.findall(path.read_text())}
        graph[path.name] = uses - {path.name}
    assert find_cycle(graph) == []


def test_find_cycle_finds_one() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c", "b"]
    assert find_cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_files_stay_short() -> None:
    patterns = [
        "broker/**/*.py",
        "_fastpath/*.p*",
        "tests/**/*.py",
        "bench/**/*.py",
        "scripts/**/*",
        "setup.py",
    ]
    files = [path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()]
    files = [path for path in files if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".sh", "")]
    assert len(files) > 50
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert {name for name, length in lengths.items() if length > LONGEST_FILE} == set()


@pytest.mark.parametrize("source", compiled_files(".pyx"), ids=lambda path: path.stem)
def test_every_extension_module_has_a_stub(source: Path) -> None:
    assert source.with_suffix(".pyi").exists()


# `cdef RETURN name(` at the start of a statement; not a variable, class, struct or cast.
FUNCTION = re.compile(
    r"^[ \t]*c(?:p)?def[ \t]+(?:inline[ \t]+)?(?P<returns>[^=\n()]*?)\b(?P<name>\w+)\(", re.MULTILINE
)
OBJECTS = re.compile(r"^(?:object|bytes|str|list|tuple|dict|set|[A-Z]\w*)?\s*$")


def signature_end(text: str, start: int) -> str:
    """What stands between the closing parenthesis of a signature and the end of its line."""
    depth = 0
    for position in range(start, len(text)):
        depth += (text[position] == "(") - (text[position] == ")")
        if depth == 0:
            return text[position + 1 :].split("\n", 1)[0].partition("#")[0]
    raise AssertionError("unbalanced parentheses")


def test_every_compiled_function_says_how_it_fails() -> None:
    seen = 0
    silent = []
    for path in compiled_files(".pyx", ".pxd"):
        text = re.sub(r"#.*", "", path.read_text())
        for match in FUNCTION.finditer(text):
            if match["returns"].startswith("class ") or OBJECTS.match(match["returns"]):
                continue  # of objects, NULL says that an exception is set
            seen += 1
            end = signature_end(text, match.end() - 1)
            if "noexcept" not in end and "except" not in end:
                silent.append(f"{path.name}: {match['name']}")
    assert seen > 100
    assert silent == []


WORK_LEFT = re.compile(r"\b(?:TODO|FIX" r"ME|XXX|HACK)\b")


def test_nothing_is_left_for_later() -> None:
    files = [*broker_files().values(), *compiled_files(".pyx", ".pxd", ".pyi"), *(ROOT / "docs").glob("*.md")]
    assert [str(path) for path in files if WORK_LEFT.search(path.read_text())] == []
