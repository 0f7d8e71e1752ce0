"""The commands: what they make of their arguments, what they say, and how they end."""

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import broker.node
import broker.node.demo
from broker import __version__
from broker.cli import broker as program
from broker.cli.commands import COMMANDS
from broker.config import Config
from broker.config.model import Secret
from broker.config.passwords import parse_password_hash, verify_password
from broker.config.tokens import parse_token, token_hash

FILES = Path(__file__).parents[1] / "config"
LOCAL = "http://127.0.0.1:9000"


def call(*args: str | Path, **more) -> Result:
    return CliRunner().invoke(program, [str(arg) for arg in args], prog_name="broker", **more)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Config]:
    """The configurations that would have been run; the exit code is then 0."""
    seen: list[Config] = []
    monkeypatch.setattr(broker.node, "run", lambda config, _log: seen.append(config) or 0)
    return seen


# --- the group ------------------------------------------------------------------------------------


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command} +\w", result.stdout, re.MULTILINE)


def leaves(group: click.Group, path: str = "") -> Iterator[str]:
    """Every command that does something."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from leaves(command, f"{path}{name} ")
        else:
            yield f"{path}{name}"


@pytest.mark.parametrize("command", list(leaves(program)))
def test_help_teaches_by_example(command: str) -> None:
    result = call(*command.split(), "--help")
    assert result.exit_code == 0
    assert re.search(rf"^ .*\bbroker {command}\b", result.stdout.partition("\n")[2], re.MULTILINE)
    assert "..." not in result.stdout.partition("\n")[2].replace("...\n", "")


def test_version() -> None:
    assert call("--version").stdout.strip() == f"broker, version {__version__}"


def test_help_is_quick() -> None:
    """It imports nothing that only a running node needs."""
    code = (
        "import sys; from broker.cli import main; sys.argv[1:] = ['--help']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print({'pydantic', 'yaml', 'rich', 'uvloop', 'aiohttp', '_fastpath'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"


@pytest.mark.parametrize("args", [["nonsense"], ["serve", "--nonsense"], ["check"], ["serve", "a", "b"]])
def test_wrong_usage_ends_with_2(args: list[str]) -> None:
    result = call(*args)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Error: " in result.stderr


# --- serve and connect ----------------------------------------------------------------------------


def test_serve_with_nothing(started: list[Config]) -> None:
    assert call("serve").exit_code == 0
    (config,) = started
    assert [port.url for port in config.external] == ["http://127.0.0.1:8080"]
    assert [port.url for port in config.registration] == ["http://127.0.0.1:7000"]
    assert config.admin is not None
    assert config.admin.url == "http://127.0.0.1:7001"


def test_serve_with_everything(started: list[Config]) -> None:
    result = call(
        *("serve", FILES / "valid" / "minimal.yaml", "--workers", "1", "--insecure"),
        *("--external", "http://127.0.0.1:1?name=one", "--external", "tcp://127.0.0.1:2/db"),
        *("--registration", "http://0.0.0.0:3", "--admin", "http://127.0.0.1:4"),
        *("--service", "a.example.com=http://127.0.0.1:5", "--service", "db=tcp://127.0.0.1:6"),
    )
    assert result.exit_code == 0
    (config,) = started
    assert [port.name for port in config.external] == ["external-1", "one", "external-3"]
    assert [str(service.match) for service in config.services] == ["/", "a.example.com/", "db"]
    assert config.flags.insecure


def test_connect_with_everything(started: list[Config], tmp_path: Path) -> None:
    token = tmp_path / "a.token"
    token.write_text("a-token-for-the-tests-0008")
    result = call(
        *("connect", FILES / "valid" / "minimal.yaml", "http://127.0.0.1:1", "http://127.0.0.1:2"),
        *(
            "--tunnels",
            "3",
            "--token-file",
            token,
            "--admin",
            "http://127.0.0.1:4",
            "--service",
            "/x=" + LOCAL,
        ),
    )
    assert result.exit_code == 0
    (config,) = started
    assert [(each.port, each.tunnels, each.token_file) for each in config.connect] == [
        (1, 3, token),
        (2, 3, token),
    ]
    assert [str(service.match) for service in config.services] == ["/", "/x"]


def test_connect_with_a_service_alone(started: list[Config]) -> None:
    assert call("connect", "--service", LOCAL).exit_code == 0
    assert [each.url for each in started[0].connect] == ["http://127.0.0.1:7000"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["serve", "--workers", "257"], "--workers: must be between 1 and 256"),
        (
            ["serve", "--external", "https://127.0.0.1:1"],
            "tls: is missing: an https port needs tls",
        ),
        (["serve", "--registration", "http://0.0.0.0:1"], "0.0.0.0 is not a loopback address"),
        (["serve", "--admin", "http://0.0.0.0:1"], "0.0.0.0 is not a loopback address"),
        (["serve", "nowhere.yaml"], "nowhere.yaml: can't be read: No such file or directory"),
        (["serve", "--service", "x"], "command line: --service x: must be an upstream"),
        (["connect"], "there is no service to announce"),
        (
            ["connect", "dmz:7000"],
            "broker: dmz:7000 is neither a file nor a URL such as http://127.0.0.1:7000",
        ),
        (["connect", "--tunnels", "0", "--service", LOCAL], "--tunnels: must be between 1 and 64, not 0"),
        (["connect", "--token-file", "nowhere", "--service", LOCAL], "--token-file: the file"),
    ],
)
def test_wrong_configuration_ends_with_2(started: list[Config], args: list[str], message: str) -> None:
    result = call(*args)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert started == []


def test_secrets_have_no_flags() -> None:
    for command in ("serve", "connect"):
        assert not re.search(r"--(token|password|secret)\b(?!-file)", call(command, "--help").stdout)
        assert call(command, "--token", "x").exit_code == 2


def test_the_exit_code_is_the_node_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker.node, "run", lambda _: 1)
    assert call("serve").exit_code == 1
    monkeypatch.setattr(broker.node.demo, "run", lambda *, once: 7 if once else 8)
    assert [call("demo", "--once").exit_code, call("demo").exit_code] == [7, 8]


# --- check ----------------------------------------------------------------------------------------


def test_check_says_what_would_listen() -> None:
    result = call("check", FILES / "valid" / "dmz.yaml")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [re.sub(" +", " ", line) for line in result.stdout.splitlines()]
    assert lines[0].endswith("dmz.yaml is right")
    for line in [
        " external web http://0.0.0.0:8080 -> local services, then agents at green",
        " external database tcp://[::1]:5432 -> the tcp service db, behind green",
        " external external-3 tcp://127.0.0.1:6379 -> the tcp service cache, here",
        " registration green http://10.0.0.5:7000 agents need a token",
        " admin http://127.0.0.1:7001",
        " api.example.com/status -> http://127.0.0.1:9100",
        " db@ops 2 tokens may announce every host and path, tcp db, every tcp service",
    ]:
        assert line in lines


def test_check_says_what_would_be_dialled() -> None:
    lines = [
        re.sub(" +", " ", line) for line in call("check", FILES / "valid" / "green.yaml").stdout.splitlines()
    ]
    assert " http://dmz1.example.com:7000 2 tunnels with a token" in lines
    assert " http://dmz2.example.com:80 4 tunnels without credentials" in lines


def test_check_tells_every_error() -> None:
    path = FILES / "invalid" / "ranges.yaml"
    result = call("check", path)
    assert (result.exit_code, result.stdout) == (2, "")
    lines = result.stderr.splitlines()
    assert len(lines) == path.read_text().count("#!")
    assert all(line.startswith(f"{path}:") for line in lines)


def test_check_tells_warnings_and_goes_on() -> None:
    result = call("check", FILES / "valid" / "anchors.yaml")
    assert result.exit_code == 0
    assert re.fullmatch(
        r"warning: .*anchors.yaml:5:17: services\[0\].limits.requests: has no effect at a service\n",
        result.stderr,
    )


def test_check_and_open_ports() -> None:
    path = FILES / "invalid" / "open-ports.yaml"
    assert call("check", path).exit_code == 2
    assert call("check", "--insecure", path).exit_code == 0


# --- tokens ---------------------------------------------------------------------------------------


def test_token_new_and_hash() -> None:
    token, hashed = call("token", "new").stdout.split()
    assert token_hash(parse_token(token)) == hashed
    for text in (token, f"{token}\n", f"{token}\n{hashed}\n"):
        result = call("token", "hash", input=text)
        assert (result.exit_code, result.stdout) == (0, f"{hashed}\n")


def test_hash_of_a_password() -> None:
    result = call("token", "hash", "--password", input="correct horse\n")
    known = parse_password_hash(result.stdout.strip())
    assert verify_password(Secret("correct horse"), known)
    short = call("token", "hash", "--password", input="short\n")
    assert (short.exit_code, "short" in short.stderr) == (2, False)


def test_token_new_into_a_file(tmp_path: Path) -> None:
    out = tmp_path / "a.token"
    result = call("token", "new", "--out", out)
    assert result.stdout.strip() == token_hash(parse_token(out.read_text()))
    again = call("token", "new", "--out", out)
    assert (again.exit_code, again.stdout) == (1, "")
    assert "exists already" in again.stderr


@pytest.mark.parametrize("text", ["", "a secret with spaces in it", "short"])
def test_token_hash_of_no_token(text: str) -> None:
    result = call("token", "hash", input=text)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "broker: " in result.stderr
    assert not text or text not in result.stderr


# --- the commands that ask a running node ---------------------------------------------------------

STATUS = {
    "node": "dmz\x1b[31m",
    "version": "1.2.3",
    "pid": 7,
    "uptime_s": 7300.0,
    "ready": False,
    "reasons": ["no tunnel is up"],
    "state": "serving",
    "source": "/etc/broker.yaml",
    "external": [
        {
            "name": "web",
            "url": "http://127.0.0.1:8080",
            "registration": "green",
            "connections": 3,
            "exchanges": 5,
            "active": 1,
            "bytes_in": 2048,
            "bytes_out": 3 << 30,
            "failures": {"no-agent": 2},
        }
    ],
    "registration": [
        {
            "name": "green",
            "url": "http://127.0.0.1:7000",
            "tunnels": 1,
            "logins": 2,
            "lost": 1,
            "refusals": {"forbidden": 4},
        }
    ],
    "connect": [
        {
            "url": "http://dmz:7000",
            "lost": 0,
            "refused": [{"service": "/x", "code": "conflict", "reason": "r"}],
            "tunnels": [{"state": "up", "reason": ""}, {"state": "dialling", "reason": "refused"}],
        }
    ],
    "tunnels": [
        {
            "agent": "a",
            "index": 0,
            "user": "u",
            "registration": "green",
            "peer": "127.0.0.1:5",
            "since": 5.0,
            "rtt_us": 1500,
            "streams": 2,
            "bytes_in": 1,
            "bytes_out": 2,
            "draining": True,
        }
    ],
    "services": [
        {
            "service": "/",
            "kind": "http",
            "at": None,
            "registration": "green",
            "tunnels": 1,
            "waiting": 0,
            "exchanges": 5,
            "failures": {},
        }
    ],
    "memory": {"resident_bytes": 1 << 20, "buffer_bytes": 0, "limit_bytes": 1 << 30},
}


class FakeNode(ThreadingHTTPServer):
    answers: dict[str, tuple[int, bytes]]
    seen: list[tuple[str, str, str | None]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class FakeAdmin(BaseHTTPRequestHandler):
    server: FakeNode

    def answer(self) -> None:
        self.server.seen.append((self.command, self.path, self.headers["Broker-Admin"]))
        status, body = self.server.answers.get(self.path, (404, b"{}"))
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = answer  # noqa: N815 (the library's names)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with FakeNode(("127.0.0.1", 0), FakeAdmin) as server:
        server.answers = {"/status": (200, json.dumps(STATUS).encode())}
        server.seen = []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_status_for_machines(node: FakeNode) -> None:
    result = call("status", "--admin", node.url, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == STATUS


def test_status_for_people(node: FakeNode) -> None:
    result = call("status", "--admin", node.url)
    assert (result.exit_code, result.stderr) == (0, "")
    shown = result.stdout
    assert "\x1b" not in shown
    assert "not ready (no tunnel is up), up for 2 h" in shown
    for words in (
        "2 no-agent",
        "3.0 GiB",
        "1 of 2 up",
        "/x: r",
        "1.5 ms",
        "draining",
        "1 tunnel",
        "127.0.0.1:5",
    ):
        assert words in shown


def test_status_of_a_newer_node(node: FakeNode) -> None:
    node.answers["/status"] = (
        200,
        b'{"node": "a", "tunnels": [{"agent": "b", "new": {"x": [1]}}], "more": 1}',
    )
    result = call("status", "--admin", node.url)
    assert result.exit_code == 0
    assert "node a" in result.stdout


@pytest.mark.parametrize("command", ["reload", "drain", "stop"])
def test_steering(node: FakeNode, command: str) -> None:
    node.answers[f"/{command}"] = (202, b'{"done": "it"}')
    result = call(command, "--admin", node.url)
    assert result.exit_code == 0
    assert result.stdout.startswith("The node ")
    assert node.seen == [("POST", f"/{command}", "1")]


def test_a_reload_with_errors_tells_them(node: FakeNode) -> None:
    problem = {
        "code": "config",
        "detail": "nothing was changed.",
        "problems": ["a.yaml:1:1: x: is wrong", "b"],
    }
    node.answers["/reload"] = (422, json.dumps(problem).encode())
    result = call("reload", "--admin", node.url)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines() == [
        f"broker: the node at {node.url} refused: nothing was changed.",
        "a.yaml:1:1: x: is wrong",
        "b",
    ]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((500, b'{"title": "Oh"}'), "refused: Oh"),
        ((503, b""), "refused: status 503"),
        ((200, b"<html>"), "isn't the admin port of a broker node"),
        ((200, b"[]"), "isn't the admin port of a broker node"),
    ],
)
def test_strange_answers(node: FakeNode, answer: tuple[int, bytes], words: str) -> None:
    node.answers["/status"] = answer
    result = call("status", "--admin", node.url)
    assert (result.exit_code, result.stdout) == (1, "")
    assert words in result.stderr


def test_nobody_there(free_port: Callable[[], int]) -> None:
    result = call("status", "--admin", f"http://127.0.0.1:{free_port()}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "Connection refused): does the node run" in result.stderr


@pytest.fixture
def free_port() -> Callable[[], int]:
    from tests.harness.ports import free_port

    return free_port


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:7001", "https://a/b", "ftp://a", "http://", "http://a/b", "http://u:p@a", "http://a:x"],
)
def test_wrong_admin_urls(url: str) -> None:
    result = call("status", "--admin", url)
    assert result.exit_code == 2
    assert "--admin must be a URL such as http://127.0.0.1:7001" in result.stderr
