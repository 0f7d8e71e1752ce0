"""A child process whose output is captured line by line and whose end is always accounted for."""

import importlib.util
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from tests.harness.waiting import DEADLINE, wait_until

# What must never stand on a program's standard error, whatever a test does to it.
FORBIDDEN = re.compile(
    r"Traceback \(most recent call last\)|invariant|Exception ignored|Segmentation|never (retrieved|awaited)"
)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for `python -m broker`: the very build that this process would import."""
    env = dict(os.environ)
    roots = [root for root in map(_root_of, ("_fastpath", "broker")) if root]
    env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([*roots, *filter(None, [env.get("PYTHONPATH")])]))
    env["PYTHONUNBUFFERED"] = "1"
    env["PYTHONFAULTHANDLER"] = "1"
    # Every start would compile every module again.
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        env.pop(name, None)
    env.update(extra or {})
    return env


def _root_of(package: str) -> str:
    spec = importlib.util.find_spec(package)
    places = spec.submodule_search_locations if spec else None
    return str(Path(next(iter(places))).resolve().parent) if places else ""


class Process:
    """One running program. Use as a context manager, or call `finish` in the end."""

    def __init__(
        self,
        args: Sequence[str],
        *,
        name: str = "",
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        forbidden: re.Pattern[str] | None = FORBIDDEN,
    ) -> None:
        self.args = list(args)
        self.name = name or Path(args[0]).name
        self.stdout: list[str] = []
        self.stderr: list[str] = []
        self._forbidden = forbidden
        self._changed = threading.Condition()
        self._open_streams = 2
        self._popen = subprocess.Popen(
            self.args,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=dict(env) if env is not None else environment(),
            text=True,
            errors="replace",
            start_new_session=True,
        )
        for stream, lines in ((self._popen.stdout, self.stdout), (self._popen.stderr, self.stderr)):
            threading.Thread(target=self._collect, args=(stream, lines), daemon=True).start()

    def _collect(self, stream, lines: list[str]) -> None:  # type: ignore[no-untyped-def]
        with stream:
            for line in stream:
                with self._changed:
                    lines.append(line.rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def running(self) -> bool:
        return self._popen.poll() is None

    @property
    def output(self) -> str:
        """Everything said so far, for failure messages."""
        with self._changed:
            return "\n".join(
                [f"--- {self.name}: {' '.join(self.args)}", *self.stdout, "--- stderr", *self.stderr]
            )

    def wait_for_line(self, pattern: str, deadline: float = DEADLINE) -> re.Match[str]:
        """Block until a line on either stream matches; fail when the process ends or time is up first."""
        compiled = re.compile(pattern)

        def search() -> re.Match[str] | None:
            return next((m for line in self.stderr + self.stdout if (m := compiled.search(line))), None)

        with self._changed:
            self._changed.wait_for(lambda: search() or not self._open_streams, deadline)
            match = search()
        assert match, f"no line matches {pattern!r}\n{self.output}"
        return match

    def signal(self, number: int) -> None:
        self._popen.send_signal(number)

    def terminate(self) -> None:
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL; what it left on standard error is still checked by `finish`."""
        if self.running:
            self._popen.kill()
        self._popen.wait()

    def wait(self, deadline: float = DEADLINE) -> int:
        """The exit code, with both streams read to their end."""
        try:
            code = self._popen.wait(deadline)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {deadline:g} s\n{self.output}") from None
        with self._changed:
            self._changed.wait_for(lambda: not self._open_streams, 5)
        return code

    def expect_exit(self, code: int, deadline: float = DEADLINE) -> None:
        seen = self.wait(deadline)
        assert seen == code, f"exit code {seen}, expected {code}\n{self.output}"
        self.assert_clean()

    def assert_clean(self) -> None:
        if self._forbidden is None:
            return
        with self._changed:
            bad = [line for line in self.stderr if self._forbidden.search(line)]
        assert not bad, f"{bad[0]}\n{self.output}"

    def finish(self, deadline: float = DEADLINE) -> None:
        """End it by SIGTERM, by SIGKILL where that does nothing, and check what it said."""
        if self.running:
            self.terminate()
            try:
                self._popen.wait(deadline)
            except subprocess.TimeoutExpired:
                output = self.output
                self.kill()
                raise AssertionError(f"did not end within {deadline:g} s of SIGTERM\n{output}") from None
        self.wait()
        self.assert_clean()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.finish()
        else:
            self.kill()

    # --- what the kernel knows about it -----------------------------------

    def rss(self) -> int:
        """Resident memory in bytes, children included (workers)."""
        return sum(rss(pid) for pid in family(self.pid))

    def descriptors(self) -> int:
        return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in family(self.pid))

    def cpu(self) -> float:
        """User and system seconds so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def wait_idle(self) -> None:
        """Until the process has not used the processor for a moment."""
        wait_until(lambda: self._idle(), f"{self.name} is idle")

    def _idle(self) -> bool:
        before = self.cpu()
        threading.Event().wait(0.1)
        return self.cpu() - before < 0.02


def family(pid: int) -> list[int]:
    """A process and its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found.extend(int(child) for child in task.read_text().split())
            except OSError:
                continue
    return found


def rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def broker(
    *args: str, name: str = "", cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Process:
    """`python -m broker …`, as a user would run it."""
    return Process(
        [sys.executable, "-m", "broker", *args],
        name=name or f"broker {args[0]}",
        cwd=cwd,
        env=environment(env),
    )


def run_broker(*args: str, cwd: Path | None = None, deadline: float = DEADLINE) -> tuple[int, str, str]:
    """Run it to its end: exit code, standard output, standard error."""
    process = broker(*args, cwd=cwd)
    try:
        code = process.wait(deadline)
    finally:
        process.kill()
    process.assert_clean()
    return code, "\n".join(process.stdout), "\n".join(process.stderr)
