"""A node as a process: exit codes, signals, and the demo."""

import re
import signal
import socket
import sys

from tests.harness.client import fetch
from tests.harness.process import Process, broker

ANY = "http://127.0.0.1:0"


def serve(*more: str) -> Process:
    return broker("serve", "--external", ANY, "--registration", ANY, "--admin", ANY, "--workers", "1", *more)


def port_of(process: Process, kind: str) -> tuple[str, int]:
    match = process.wait_for_line(rf'listening {kind} [^"]*http://([0-9.]+):([0-9]+)"')
    return match[1], int(match[2])


def test_sigterm_and_sigint_end_with_0():
    for number in (signal.SIGTERM, signal.SIGINT):
        with serve() as process:
            process.wait_for_line('"ready"')
            process.signal(number)
            process.expect_exit(0)


def test_the_second_signal_does_not_wait():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        upstream = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with serve("--service", upstream) as process, socket.socket() as client:
            client.connect(port_of(process, "external"))
            client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            connection, _ = silent.accept()
            process.signal(signal.SIGTERM)
            process.wait_for_line("draining")
            assert process.running, "a request is under way"
            process.signal(signal.SIGTERM)
            process.expect_exit(0)
            connection.close()


def config(name: str) -> str:
    return (
        f"external: [{{name: {name}, listen: '{ANY}'}}]\n"
        f"services: [{{upstream: 'http://127.0.0.1:9'}}]\n"
        f"admin: {{listen: '{ANY}'}}\n"
    )


def test_sighup_reloads(tmp_path):
    path = tmp_path / "node.yaml"
    path.write_text(config("web"))
    with broker("serve", str(path)) as process:
        admin = port_of(process, "admin")
        process.wait_for_line('"ready"')
        path.write_text("external: [{listen: 5}]\nadmin: {}\n")
        process.signal(signal.SIGHUP)
        process.wait_for_line("reload failed, nothing has changed: .*node.yaml:1")
        assert fetch(admin, "/readyz").status == 200
        path.write_text(config("other"))
        process.signal(signal.SIGHUP)
        process.wait_for_line("listening external other")
        process.wait_for_line("reloaded .*node.yaml")


def test_a_port_that_is_taken_ends_with_1():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = broker("serve", "--external", f"http://127.0.0.1:{taken.getsockname()[1]}")
        process.expect_exit(1)
        assert "another process listens there" in process.output


def test_the_demo_once():
    with Process([sys.executable, "-m", "broker", "demo", "--once"], name="demo") as process:
        process.expect_exit(0)
    assert "Hello from the green zone" in process.output
    assert re.search(r"^HTTP/1.1 200 ", process.output, re.MULTILINE)


def test_the_demo_stays_until_it_is_told_to_end():
    for number in (signal.SIGINT, signal.SIGTERM):
        with Process([sys.executable, "-m", "broker", "demo"], name="demo") as process:
            url = process.wait_for_line(r"Try it:  curl -i (http://\S+)")[1]
            host, _, rest = url.removeprefix("http://").partition(":")
            port, _, path = rest.partition("/")
            assert fetch((host, int(port)), f"/{path}").status == 200
            process.signal(number)
            process.expect_exit(0)
