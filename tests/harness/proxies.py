"""A real HTTP proxy from Debian: tinyproxy."""

from __future__ import annotations

from pathlib import Path

from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.servers import program
from tests.harness.waiting import wait_until


class Tinyproxy:
    """`login`: (user, password), or nobody needs one. `denied`: a pattern of hosts that it refuses."""

    def __init__(self, directory: Path, login: tuple[str, str] | None = None, denied: str = "") -> None:
        directory.mkdir(exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = directory / "tinyproxy.log"
        lines = [
            *(f"Port {self.port}", "Listen 127.0.0.1", "Timeout 600", "MaxClients 50", "Allow 127.0.0.1"),
            *(f'LogFile "{self._log}"', "LogLevel Info", f'PidFile "{directory}/pid"'),
        ]
        if login:
            lines.append(f"BasicAuth {login[0]} {login[1]}")
        if denied:
            (directory / "filter").write_text(f"{denied}\n")
            lines.append(f'Filter "{directory}/filter"')
        config = directory / "tinyproxy.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = Process(
            [program("tinyproxy", "tinyproxy-bin"), "-d", "-c", str(config)], name="tinyproxy", forbidden=None
        )
        wait_until(lambda: "Accepting connections" in self.log, "tinyproxy accepts connections")

    @property
    def log(self) -> str:
        return self._log.read_text() if self._log.exists() else ""
