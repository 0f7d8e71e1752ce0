"""nginx: the service behind every contestant, and as a plain hop."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bench.peers import certificate
from bench.peers.contestant import PLAIN, Contestant, Endpoint, Site, Tls
from bench.peers.contestants.programs import ask_version, find
from bench.peers.processes import Processes, free_ports

MIB = 1024 * 1024
SIZES = {"1m": MIB, "256m": 256 * MIB, "1g": 1024 * MIB}
SMALL = "x" * 1024

# One worker: the others have one thread per process too. Nothing ends a connection but its client.
CONFIG = """
daemon off;
pid {directory}/{name}.pid;
error_log {directory}/{name}-error.log warn;
worker_processes 1;
{user}
events {{ worker_connections {connections}; }}
http {{
    access_log {access_log};
    client_body_temp_path {directory}/{name}-body;
    proxy_temp_path {directory}/{name}-proxy;
    fastcgi_temp_path {directory}/{name}-fastcgi;
    uwsgi_temp_path {directory}/{name}-uwsgi;
    scgi_temp_path {directory}/{name}-scgi;
    keepalive_timeout 600s;
    keepalive_requests 1000000000;
    client_max_body_size 0;
{body}
}}
"""

SERVICE = """
    sendfile on;
    tcp_nopush on;
    open_file_cache max=16;
    server {{
        listen {host}:{port} backlog=4096;
        root {directory}/files;
        default_type text/plain;
        location = / {{ return 200 {small}; }}
    }}
"""

HOP = """
    upstream next {{
        server {host}:{upstream};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} {tls} backlog=4096;
        {certificate}
        location / {{
            proxy_pass http://next;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host $http_host;
            proxy_request_buffering off;
            proxy_max_temp_file_size 0;
        }}
    }}
"""


def start_service(processes: Processes, host: str = "127.0.0.1", before: Sequence[str] = ()) -> int:
    """Starts the service that the contestants stand before and returns its port."""
    (port,) = free_ports(1)
    files = processes.directory / "files"
    files.mkdir()
    for name, size in SIZES.items():
        with open(files / name, "wb") as file:
            file.truncate(size)  # without blocks on the disk: it must not be the disk that is measured
    body = SERVICE.format(host=host, port=port, directory=processes.directory, small=SMALL)
    _start(processes, "service", body, 16_000, before=before)
    return port


class Direct(Contestant):
    """Nothing in front of the service: what the service itself costs, and the least latency there is."""

    name = "direct"
    title = "the service itself"

    def missing(self) -> str | None:
        return None

    def version(self) -> str:
        return ask_version(find("nginx"), "-v")

    def start(self, site: Site, _processes: Processes) -> Endpoint:
        return Endpoint(site.upstream[1], host=site.upstream[0])


class Nginx(Contestant):
    """One plain hop. No session cache with TLS: neither has the product, and tickets do."""

    logs = True

    def __init__(self, tls: Tls = PLAIN) -> None:
        self.name = f"nginx{tls.suffix}"
        self.title = f"nginx, one hop{tls.words}" if tls.outside else "nginx, one plain hop"
        self.tls = tls.outside

    def missing(self) -> str | None:
        return None if find("nginx") else "Debian: apt install nginx"

    def version(self) -> str:
        return ask_version(find("nginx"), "-v")

    def start(self, site: Site, processes: Processes) -> Endpoint:
        (port,) = free_ports(1)
        host, upstream = site.upstream
        words = {"tls": "", "certificate": ""}
        if self.tls:
            files = certificate.make(processes.directory)
            lines = f"ssl_certificate {files.cert}; ssl_certificate_key {files.key};"
            words = {"tls": "ssl", "certificate": f"{lines} ssl_protocols TLSv1.2 TLSv1.3;"}
        body = HOP.format(port=port, host=host, upstream=upstream, **words)
        _start(processes, "nginx", body, site.descriptors - 200, site.access_log)
        return Endpoint(port, tls=self.tls)


def _start(
    processes: Processes,
    name: str,
    body: str,
    connections: int,
    access_log: bool = False,
    before: Sequence[str] = (),
) -> None:
    directory = processes.directory
    config = directory / f"{name}.conf"
    log = f"{directory}/{name}-access.log combined buffer=64k flush=1s" if access_log else "off"
    config.write_text(
        CONFIG.format(
            directory=directory,
            name=name,
            user="user root;" if os.geteuid() == 0 else "",  # else the files are not the worker's to read
            connections=connections,
            access_log=log,
            body=body,
        )
    )
    program = find("nginx")
    assert program is not None, "whoever starts it has asked what is missing"
    processes.start(name, [*before, program, "-p", directory, "-c", config])


def service_missing() -> str | None:
    """How to get the service that every run needs."""
    return (
        None if find("nginx") else "the service behind the contestants is nginx (Debian: apt install nginx)"
    )
