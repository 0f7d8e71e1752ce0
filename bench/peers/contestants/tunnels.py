"""Other tunnels, with the settings that their own documentation publishes."""

from __future__ import annotations

import getpass
import subprocess
from pathlib import Path

from bench.peers.contestant import Contestant, Endpoint, Site
from bench.peers.contestants.programs import ask_version, find
from bench.peers.processes import Processes, free_ports

FRP_SERVER = """
bindAddr = "127.0.0.1"
bindPort = {between}
proxyBindAddr = "127.0.0.1"
auth.token = "1233"
{http}
"""

FRP_AGENT = """
serverAddr = "127.0.0.1"
serverPort = {between}
auth.token = "1233"

[[proxies]]
name = "bench"
type = "{kind}"
localIP = "{host}"
localPort = {upstream}
{where}
"""

RATHOLE_SERVER = """
[server]
bind_addr = "127.0.0.1:{between}"
default_token = "123"

[server.services.bench]
bind_addr = "127.0.0.1:{port}"
"""

RATHOLE_AGENT = """
[client]
remote_addr = "127.0.0.1:{between}"
default_token = "123"

[client.services.bench]
local_addr = "{host}:{upstream}"
"""

SSH_SERVER = """
ListenAddress 127.0.0.1
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


class Frp(Tunnel):
    programs = ("frps", "frpc")
    hint = (
        "go install github.com/fatedier/frp/cmd/frps@VERSION and …/cmd/frpc@VERSION, or its release archive"
    )
    proxy: str

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        http = self.proxy == "http"
        server = FRP_SERVER.format(between=between, http=f"vhostHTTPPort = {port}" if http else "")
        where = 'customDomains = ["127.0.0.1"]' if http else f"remotePort = {port}"
        agent = FRP_AGENT.format(between=between, kind=self.proxy, host=host, upstream=upstream, where=where)
        for program, config in (("frps", server), ("frpc", agent)):
            path = processes.directory / f"{program}.toml"
            path.write_text(config)
            processes.start(program, [_found(program), "-c", path])
        return Endpoint(port, between=between)


class FrpHttp(Frp):
    name = "frp-http"
    title = "frp, type http"
    kind = "http"
    proxy = "http"


class FrpTcp(Frp):
    name = "frp-tcp"
    title = "frp, type tcp"
    proxy = "tcp"


class Rathole(Tunnel):
    name = "rathole"
    title = "rathole"
    programs = ("rathole",)
    hint = "cargo install rathole"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        server = RATHOLE_SERVER.format(between=between, port=port)
        agent = RATHOLE_AGENT.format(between=between, host=host, upstream=upstream)
        for role, config in (("server", server), ("client", agent)):
            path = processes.directory / f"{role}.toml"
            path.write_text(config)
            processes.start(role, [_found("rathole"), f"--{role}", path], {"RUST_LOG": "warn"})
        return Endpoint(port, between=between)


class Chisel(Tunnel):
    name = "chisel"
    title = "chisel"
    programs = ("chisel",)
    hint = "go install github.com/jpillora/chisel@VERSION"

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        host, upstream = site.upstream
        chisel = _found("chisel")
        processes.start(
            "server", [chisel, "server", "--reverse", "--host", "127.0.0.1", "--port", str(between)]
        )
        route = f"R:127.0.0.1:{port}:{host}:{upstream}"
        # Its own way to wait for the server: it tries again, the first time after 100 ms.
        processes.start("client", [chisel, "client", f"http://127.0.0.1:{between}", route])
        return Endpoint(port, between=between)


class OpenSSH(Tunnel):
    name = "ssh"
    title = "OpenSSH -R"
    programs = ("sshd", "ssh", "ssh-keygen")
    hint = "Debian: apt install openssh-server openssh-client"

    def version(self) -> str:
        return ask_version(find("ssh"), "-V")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        port, between = free_ports(2)
        directory = processes.directory
        for key in ("host", "client"):
            _make_key(directory / key)
        config = directory / "sshd.conf"
        config.write_text(SSH_SERVER.format(between=between, directory=directory))
        processes.start("sshd", [_found("sshd"), "-D", "-e", "-f", config])
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
            str(_found("ssh")),
            "-F",
            "none",
            "-N",
            "-i",
            str(directory / "client"),
            "-p",
            str(between),
        ]
        command += [word for option in options for word in ("-o", option)]
        return [*command, "-R", f"127.0.0.1:{port}:{host}:{upstream}", f"{getpass.getuser()}@127.0.0.1"]


def _make_key(path: Path) -> None:
    command = [str(_found("ssh-keygen")), "-q", "-t", "ed25519", "-N", "", "-f", str(path)]
    subprocess.run(command, check=True, timeout=30, stdin=subprocess.DEVNULL)


def _found(program: str) -> Path:
    path = find(program)
    assert path is not None, "whoever starts it has asked what is missing"
    return path
