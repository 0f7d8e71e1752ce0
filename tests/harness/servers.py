"""Real servers from Debian on free ports: nginx, HAProxy, redis, PostgreSQL."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness.client import connect, try_fetch
from tests.harness.ports import free_port
from tests.harness.process import Process
from tests.harness.waiting import wait_until


def program(name: str, package: str) -> str:
    """The path of a server, or a skipped test that says what to install."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
worker_rlimit_nofile 8192;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    sendfile on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    default_type application/octet-stream;
    server {{
        listen {listen};
        root {directory}/root;
        location = /hello {{ return 200 "hello from nginx\\n"; }}
        location = /echo-host {{ return 200 "$http_host $request_uri"; }}
        location = /moved {{ return 302 /hello; }}
        {extra}
    }}
}}
"""


class Nginx:
    """nginx with files to serve under `root`."""

    def __init__(self, directory: Path, extra: str = "", unix: bool = False) -> None:
        self.directory = directory
        self.root = directory / "root"
        self.root.mkdir(parents=True)
        self.port = 0 if unix else free_port()
        self.socket = str(directory / "nginx.sock") if unix else ""
        self.address: tuple[str, int] | str = self.socket or ("127.0.0.1", self.port)
        self.url = f"unix:{self.socket}" if unix else f"http://127.0.0.1:{self.port}"
        config = directory / "nginx.conf"
        listen = f"unix:{self.socket}" if unix else f"127.0.0.1:{self.port}"
        config.write_text(NGINX.format(directory=directory, listen=listen, extra=extra))
        self.process = Process(
            [
                program("nginx", "nginx-light"),
                "-p",
                str(directory),
                "-e",
                str(directory / "error.log"),
                "-c",
                str(config),
            ],
            name="nginx",
            forbidden=None,
        )
        wait_until(self._ready, "nginx answers")

    def _ready(self) -> bool:
        assert self.process.running, self.process.output
        response = try_fetch(self.address, "/hello")
        return response is not None and response.status == 200

    def file(self, name: str, data: bytes) -> str:
        (self.root / name).write_bytes(data)
        return f"/{name}"

    def sparse_file(self, name: str, size: int) -> str:
        """A large file that takes no disk: zeros."""
        with open(self.root / name, "wb") as file:
            file.truncate(size)
        return f"/{name}"

    def close(self) -> None:
        self.process.kill()


HAPROXY = """
global
    maxconn 1000
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    timeout http-request 10s
    {option}
frontend front
    bind 127.0.0.1:{port}
    default_backend back
backend back
    server origin 127.0.0.1:{upstream} {server}
"""


class Haproxy:
    """One plain HTTP hop in front of a port; the harness proves itself on it."""

    def __init__(self, directory: Path, upstream: int, option: str = "", server: str = "") -> None:
        self.port = free_port()
        self.address = ("127.0.0.1", self.port)
        config = directory / "haproxy.cfg"
        config.write_text(HAPROXY.format(port=self.port, upstream=upstream, option=option, server=server))
        self.process = Process(
            [program("haproxy", "haproxy"), "-db", "-f", str(config)], name="haproxy", forbidden=None
        )
        wait_until(lambda: _connects(self.address), "haproxy listens")

    def close(self) -> None:
        self.process.kill()


class Redis:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.process = Process(
            [
                program("redis-server", "redis-server"),
                *("--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"),
                *("--dir", str(directory), "--daemonize", "no"),
            ],
            name="redis",
            forbidden=None,
        )
        wait_until(lambda: _connects(("127.0.0.1", self.port)), "redis listens")

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.process.kill()


class Postgres:
    """A throw-away cluster; PostgreSQL refuses to run as root, so that an unprivileged user may be needed."""

    def __init__(self) -> None:
        binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not binaries:
            pytest.skip("PostgreSQL is not installed (Debian package postgresql)")
        self._bin = binaries[-1]
        # Not below pytest's directories: those are closed to other users.
        self._directory = tempfile.TemporaryDirectory(prefix="postgres-")
        directory = Path(self._directory.name)
        self._data = directory / "data"
        self.port = free_port()
        self._prefix = self._unprivileged(directory)
        self._run(
            "initdb", "-D", str(self._data), "-U", "tester", "-A", "trust", "-N", "--no-locale", "-E", "UTF8"
        )
        self.process = Process(
            [
                *self._prefix,
                str(self._bin / "postgres"),
                *("-D", str(self._data), "-h", "127.0.0.1", "-p", str(self.port), "-c", "fsync=off"),
                *("-c", f"unix_socket_directories={self._data}", "-c", "logging_collector=off"),
            ],
            name="postgres",
            cwd=directory,
            forbidden=None,
        )
        wait_until(self._ready, "PostgreSQL answers")

    def _unprivileged(self, directory: Path) -> list[str]:
        if os.geteuid() != 0:
            return []
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("as root, PostgreSQL needs the user postgres to run as")
        os.chown(directory, user.pw_uid, user.pw_gid)
        return ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]

    def _run(self, name: str, *args: str) -> None:
        done = subprocess.run(
            [*self._prefix, str(self._bin / name), *args],
            capture_output=True,
            check=False,
            text=True,
            cwd=self._data.parent,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"

    def _ready(self) -> bool:
        assert self.process.running, self.process.output
        return self.query("select 1", self.port) == "1"

    def query(self, sql: str, port: int) -> str:
        """What psql prints for a query through this port on loopback, empty on failure."""
        done = self.psql(sql, port)
        return done.stdout.strip() if done.returncode == 0 else ""

    def psql(self, sql: str, port: int) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [
                str(self._bin / "psql"),
                "-h",
                "127.0.0.1",
                "-p",
                str(port),
                "-U",
                "tester",
                "-At",
                "-c",
                sql,
                "postgres",
            ],
            capture_output=True,
            check=False,
            text=True,
            timeout=60,
            cwd="/",
        )

    @property
    def url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def close(self) -> None:
        self.process.terminate()
        with contextlib.suppress(AssertionError):
            self.process.wait(10)
        self.process.kill()
        self._directory.cleanup()


def _connects(address: tuple[str, int]) -> bool:
    try:
        connect(address, 5).close()
    except OSError:
        return False
    return True
