"""The command line as a configuration: alone, and on top of a file."""

from pathlib import Path

import pytest

from broker.config import Config, Flags, load, split_where
from broker.config.model import Match, Secret, Upstream
from broker.errors import ConfigError, UsageError

SERVE = Flags(defaults="serve")
CONNECT = Flags(defaults="connect")


def flags(base: Flags = Flags(), **more: object) -> Flags:  # noqa: B008 (frozen)
    return Flags(**({name: getattr(base, name) for name in base.__slots__} | more))  # type: ignore[arg-type]


def urls(config: Config) -> tuple[list[str], list[str], str | None]:
    return (
        [port.url for port in config.external],
        [port.url for port in config.registration],
        config.admin.url if config.admin else None,
    )


def problems(path: Path | None, given: Flags) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, given)
    return [str(each) for each in caught.value.problems]


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "broker.yaml"
        path.write_text(text)
        return path

    return write


# --- zero configuration ---------------------------------------------------------------------------

E, R, A = "http://127.0.0.1:8080", "http://127.0.0.1:7000", "http://127.0.0.1:7001"
LOCAL = "http://127.0.0.1:9000"
OTHER = "http://127.0.0.1:1"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, ([E], [R], A)),
        ({"services": (LOCAL,)}, ([E], [R], A)),
        ({"admin": OTHER}, ([E], [R], OTHER)),
        ({"external": (OTHER,)}, ([OTHER], [R], None)),
        ({"registration": (OTHER,)}, ([E], [OTHER], None)),
        ({"external": (OTHER,), "services": (LOCAL,)}, ([OTHER], [], None)),
        ({"registration": (OTHER,), "services": (LOCAL,)}, ([E], [OTHER], None)),
        ({"external": (OTHER,), "registration": (R,), "admin": A}, ([OTHER], [R], A)),
    ],
)
def test_serve_without_a_file(given: dict, expected: tuple) -> None:
    config = load(None, flags(SERVE, **given))
    assert urls(config) == expected
    assert config.source is None
    assert config.warnings == ()


def test_serve_pairs_its_ports() -> None:
    config = load(None, SERVE)
    assert config.external[0].registration == config.registration[0].name == "registration-1"


def test_connect_without_a_file() -> None:
    config = load(None, flags(CONNECT, services=(LOCAL,)))
    assert urls(config) == ([], [], None)
    (dialled,) = config.connect
    assert (dialled.url, dialled.tunnels, dialled.token) == (R, 2, None)
    assert [service.match for service in dialled.services] == [Match()]


def test_connect_needs_a_service() -> None:
    (problem,) = problems(None, CONNECT)
    assert problem.startswith("command line: http://127.0.0.1:7000: there is no service to announce")


@pytest.mark.parametrize(
    ("text", "given", "expected"),
    [
        ("limits: {headers: 5}\n", SERVE, ([E], [R], A)),
        (f"services: [{{upstream: '{LOCAL}'}}]\n", SERVE, ([E], [R], A)),
        (f"admin: {{listen: '{OTHER}'}}\n", SERVE, ([E], [R], OTHER)),
        (
            f"external: [{{listen: '{OTHER}'}}]\nservices: [{{upstream: '{LOCAL}'}}]\n",
            SERVE,
            ([OTHER], [], None),
        ),
        (f"registration: [{{listen: '{OTHER}'}}]\n", SERVE, ([], [OTHER], None)),
        (f"services: [{{upstream: '{LOCAL}'}}]\nconnect: [{{url: '{OTHER}'}}]\n", SERVE, ([], [], None)),
    ],
)
def test_defaults_stand_in_where_a_file_gives_no_address(
    written, text: str, given: Flags, expected: tuple
) -> None:
    assert urls(load(written(text), given)) == expected


def test_connect_dials_the_default_where_a_file_gives_no_address(written) -> None:
    config = load(written(f"services: [{{upstream: '{LOCAL}'}}]\n"), CONNECT)
    assert [each.url for each in config.connect] == [R]


# --- flags and a file -----------------------------------------------------------------------------

FILE = """\
external:
  - {name: web, listen: "http://127.0.0.1:1"}
registration:
  - {name: green, listen: "http://127.0.0.1:2"}
services:
  - {match: a.example.com, upstream: "http://127.0.0.1:3"}
admin: {listen: "http://127.0.0.1:4"}
"""


def test_flags_add_to_a_file_or_replace_its_admin_port(written) -> None:
    config = load(
        written(FILE),
        Flags(
            external=("tcp://127.0.0.1:5/db?name=database", "http://127.0.0.1:6"),
            services=("b.example.com/x=http://127.0.0.1:7", "cache=tcp://127.0.0.1:8"),
            admin="http://127.0.0.1:9",
        ),
    )
    assert [port.name for port in config.external] == ["web", "database", "external-3"]
    assert {port.registration for port in config.external} == {"green"}
    assert [str(each.match) for each in config.services] == ["a.example.com/", "b.example.com/x", "cache"]
    assert config.admin is not None
    assert config.admin.port == 9


def test_several_ports_are_paired_by_name() -> None:
    config = load(
        None,
        Flags(
            external=("http://127.0.0.1:1?registration=b", "http://127.0.0.1:2?name=two&registration=a"),
            registration=("http://127.0.0.1:3?name=a", "http://127.0.0.1:4?name=b"),
        ),
    )
    assert [(port.name, port.registration) for port in config.external] == [("external-1", "b"), ("two", "a")]


CONNECTING = """\
services: [{upstream: "http://127.0.0.1:1"}]
connect:
  - {url: "http://127.0.0.1:2", tunnels: 5}
  - {url: "http://127.0.0.1:3"}
"""


def test_tunnels_and_token_of_the_command_line(written, tmp_path: Path) -> None:
    token = tmp_path / "agent.token"
    token.write_text("a-token-for-the-tests-0005")
    path = written(CONNECTING)
    for_all = load(path, flags(CONNECT, tunnels=3, token_file=token))
    assert [(each.tunnels, each.token) for each in for_all.connect] == [
        (3, Secret("a-token-for-the-tests-0005")),
        (3, Secret("a-token-for-the-tests-0005")),
    ]
    for_one = load(path, flags(CONNECT, tunnels=3, token_file=token, connect=("http://127.0.0.1:4",)))
    assert [(each.port, each.tunnels, each.token is None) for each in for_one.connect] == [
        (2, 5, True),
        (3, 2, True),
        (4, 3, False),
    ]


def test_paths_are_relative_to_the_file_or_to_the_current_directory(
    written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    path = written(
        "external: [{listen: 'http://127.0.0.1:1'}]\nservices: [{match: /a, upstream: 'unix:a'}]\n"
    )
    config = load(path, Flags(services=("/b=unix:b", "/c=unix:/c")))
    assert [each.upstreams[0].path for each in config.services] == [f"{tmp_path}/a", f"{here}/b", "/c"]
    assert config.services[2].upstreams == (Upstream(scheme="http", path="/c"),)


# --- wrong flags ----------------------------------------------------------------------------------


def test_every_wrong_flag_is_told(written) -> None:
    found = problems(
        written(FILE + "limits: {head: 1}\n"),
        Flags(
            external=(
                "https://127.0.0.1:5?cert=a&key=b",
                "http://127.0.0.1:1",
                "http://x?",
                "http://y?name=a&name=b",
            ),
            registration=("127.0.0.1:7000", "http://0.0.0.0:6?colour=blue"),
            services=("a.example.com=http://127.0.0.1:3", "x=y", "tcp://127.0.0.1:1"),
            admin="http://10.0.0.1:7",
        ),
    )
    assert found[0].endswith(
        "broker.yaml:2:5: external[0].registration: is missing: there are several"
        " registration ports; name one: green or registration-3"
    )
    assert found[1].endswith("broker.yaml:8:16: limits.head: must be between 256 and 1MiB, not 1")
    told = "\n".join(found[2:]).replace("command line: ", "")
    for line in [
        "--external https://127.0.0.1:5?cert=a&key=b: tls: ",
        "--external http://127.0.0.1:1: the address 127.0.0.1:1 is taken already, by external[0].listen",
        "--external http://x?: must end before '?'",
        "--external http://y?name=a&name=b: must end before '?'",
        "--registration 127.0.0.1:7000: must be a URL such as",
        "--registration http://0.0.0.0:6?colour=blue: colour: is not a known key; known here: allow, auth,",
        "--registration http://0.0.0.0:6?colour=blue: 0.0.0.0 is not a loopback address",
        "--service a.example.com=http://127.0.0.1:3: match: 'a.example.com/' is served already, by",
        "--service x=y: must be an upstream such as",
        "--service tcp://127.0.0.1:1: name: is missing: a tcp service needs a name",
        "--admin http://10.0.0.1:7: 10.0.0.1 is not a loopback address",
    ]:
        assert line in told


def test_wrong_tunnels_and_token_file() -> None:
    found = problems(None, flags(CONNECT, services=(LOCAL,), tunnels=0, token_file=Path("/nowhere/x.token")))
    assert found == ["command line: --tunnels: must be between 1 and 64, not 0"]
    (missing,) = problems(None, flags(CONNECT, services=(LOCAL,), token_file=Path("/nowhere/x.token")))
    assert missing.startswith(
        "command line: --token-file: the file /nowhere/x.token can't be read: No such file"
    )


def test_credentials_in_a_url_are_not_repeated() -> None:
    found = problems(
        None,
        flags(
            CONNECT, services=("/x=http://me:pass@127.0.0.1:1",), connect=("http://me:pass@127.0.0.1:7000",)
        ),
    )
    assert len(found) == 2
    assert all("must not hold credentials" in each and "pass" not in each for each in found)


def test_open_ports_need_users_or_insecure() -> None:
    given = {"registration": ("http://0.0.0.0:7000",), "admin": "http://[::]:7001"}
    found = problems(None, flags(SERVE, **given))
    assert len(found) == 2
    assert all("is not a loopback address" in each and "--insecure" in each for each in found)
    config = load(None, flags(SERVE, insecure=True, **given))
    open_ports = [each for each in config.warnings if "is not encrypted" not in each]
    assert len(open_ports) == 2 and len(config.warnings) == 3
    assert all("is not a loopback address" in each and "--insecure" not in each for each in open_ports)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.1", "localhost", "[::1]"])
def test_loopback_needs_no_users(host: str) -> None:
    assert (
        load(None, flags(SERVE, registration=(f"http://{host}:1",), admin=f"http://{host}:2")).warnings == ()
    )


def test_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").touch()
    Path("b.yaml").touch()
    assert split_where(()) == (None, ())
    assert split_where(("http://a", "a.yaml", "http://b")) == (Path("a.yaml"), ("http://a", "http://b"))
    with pytest.raises(
        UsageError, match=r"^dmz:7000 is neither a file nor a URL such as http://127.0.0.1:7000$"
    ):
        split_where(("dmz:7000",))
    with pytest.raises(UsageError, match="one configuration file, not 2"):
        split_where(("a.yaml", "b.yaml"))
