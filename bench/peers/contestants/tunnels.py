"""Other tunnels, with the settings that their own documentation publishes."""

from __future__ import annotations

import getpass
import os
import subprocess
from pathlib import Path

from bench.peers import certificate
from bench.peers.contestant import PLAIN, Contestant, Endpoint, Site, Tls
from bench.peers.contestants.programs import ask_version, find, found
from bench.peers.processes import Processes, free_ports

RATHOLE_SERVER = """
[server]
bind_addr = "{between}"
default_token = "123"

[server.services.bench]
bind_addr = "127.0.0.1:{port}"
"""

RATHOLE_AGENT = """
[client]
remote_addr = "{between}"
default_token = "123"

[client.services.bench]
local_addr = "{host}:{upstream}"
"""

RATHOLE_SERVER_TLS = """
[server.transport]
type = "tls"

[server.transport.tls]
pkcs12 = "{archive}"
pkcs12_password = "{password}"
"""

RATHOLE_AGENT_TLS = """
[client.transport]
type = "tls"

[client.transport.tls]
trusted_root = "{ca}"
hostname = "{name}"
"""

PRIVILEGE_SEPARATION = Path("/run/sshd")

SSH_SERVER = """
ListenAddress {near}
Port {between}
HostKey {directory}/host
PidFile none
AuthorizedKeysFile {directory}/client.pub
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


class Tunnel(Contestant):
    """Two programs that are found on PATH."""

    kind = "tcp"
    programs: tuple[str, ...]
    hint: str

    def missing(self) -> str | None:
        return None if all(find(program) for program in self.programs) else self.hint

    def version(self) -> str:
        return ask_version(find(self.programs[0]), "--version")


class Rathole(Tunnel):
    programs = ("rathole",)
    hint = "cargo install rathole"

    def __init__(self, tls: Tls = PLAIN) -> None:
        self.name = f"rathole{tls.suffix}"
        self.title = f"rathole{tls.words}"
        self._tls = tls

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        server = RATHOLE_SERVER.format(between=f"{site.near}:{between}", port=port)
        agent = RATHOLE_AGENT.format(between=f"{site.near}:{between}", host=host, upstream=upstream)
        if self._tls.tunnel:
            files = certificate.make(processes.directory)
            server += RATHOLE_SERVER_TLS.format(archive=files.archive, password=certificate.PASSWORD)
            agent += RATHOLE_AGENT_TLS.format(ca=files.cert, name=certificate.NAME)
        for role, config, before in (("server", server, ()), ("client", agent, site.far)):
            path = processes.directory / f"{role}.toml"
            path.write_text(config)
            processes.start(role, [*before, found("rathole"), f"--{role}", path], {"RUST_LOG": "warn"})
        return Endpoint(port, between=between)


class Chisel(Tunnel):
    """SSH in a WebSocket; with TLS in the tunnel, inside of that."""

    programs = ("chisel",)
    hint = "go install github.com/jpillora/chisel@VERSION"

    def __init__(self, tls: Tls = PLAIN) -> None:
        self.name = f"chisel{tls.suffix}"
        self.title = f"chisel{tls.words}"
        self._tls = tls

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        chisel = found("chisel")
        server: list[str | Path] = [
            chisel,
            "server",
            "--reverse",
            "--host",
            site.near,
            "--port",
            str(between),
        ]
        agent: list[str | Path] = [*site.far, chisel, "client"]
        if self._tls.tunnel:
            files = certificate.make(processes.directory)
            server += ["--tls-cert", files.cert, "--tls-key", files.key]
            agent += ["--tls-ca", files.cert]
        processes.start("server", server)
        # Its own way to wait for the server: it tries again, the first time after 100 ms.
        url = f"http{'s' * self._tls.tunnel}://{site.near}:{between}"
        processes.start("client", [*agent, url, f"R:127.0.0.1:{port}:{host}:{upstream}"])
        return Endpoint(port, between=between)


class OpenSSH(Tunnel):
    name = "ssh"
    title = "OpenSSH -R"
    programs = ("sshd", "ssh", "ssh-keygen")
    hint = "Debian: apt install openssh-server openssh-client"

    def missing(self) -> str | None:
        if os.geteuid() == 0 and not PRIVILEGE_SEPARATION.is_dir():
            return f"sshd as root needs the directory {PRIVILEGE_SEPARATION}"
        return super().missing()

    def version(self) -> str:
        return ask_version(find("ssh"), "-V")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        directory = processes.directory
        for key in ("host", "client"):
            _make_key(directory / key)
        config = directory / "sshd.conf"
        config.write_text(SSH_SERVER.format(near=site.near, between=between, directory=directory))
        processes.start("sshd", [found("sshd"), "-D", "-e", "-f", config])
        processes.start("ssh", self._command(site, directory, port, between))
        return Endpoint(port, between=between)

    def _command(self, site: Site, directory: Path, port: int, between: int) -> list[str]:
        host, upstream = site.upstream
        options = [
            "ExitOnForwardFailure=yes",
            "StrictHostKeyChecking=no",
            f"UserKnownHostsFile={directory}/known_hosts",
            "ConnectionAttempts=30",
            "IdentitiesOnly=yes",
            "LogLevel=ERROR",
        ]
        command = [
            *site.far,
            str(found("ssh")),
            "-F",
            "none",
            "-N",
            "-i",
            str(directory / "client"),
            "-p",
            str(between),
        ]
        command += [word for option in options for word in ("-o", option)]
        return [*command, "-R", f"127.0.0.1:{port}:{host}:{upstream}", f"{getpass.getuser()}@{site.near}"]


def _make_key(path: Path) -> None:
    command = [str(found("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)
