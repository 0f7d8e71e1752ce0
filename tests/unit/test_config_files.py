"""Configuration files: right ones become what they say, wrong ones are told every error with its place."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from broker.config import Config, Flags, load, reload
from broker.config.model import (
    GIB,
    KIB,
    MIB,
    Admin,
    Limits,
    Match,
    Rights,
    Secret,
    Timeouts,
    Upstream,
)
from broker.errors import ConfigError, ConfigProblem

FILES = Path(__file__).parents[1] / "config"
INVALID = sorted((FILES / "invalid").glob("*.yaml"))
VALID = sorted((FILES / "valid").glob("*.yaml"))

# `#! KEY: words of the message`, in the line that the problem is told of.
EXPECTED = re.compile(r"#! (\S*): (.*?)(?=\s*#! |$)")


def problems_of(path: Path) -> tuple[ConfigProblem, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.problems


@pytest.fixture
def written(tmp_path: Path):
    def write(text: str) -> Path:
        path = tmp_path / "broker.yaml"
        path.write_text(text)
        return path

    return write


def test_there_are_files() -> None:
    assert len(INVALID) >= 12
    assert len(VALID) >= 5


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_every_error_is_told_with_its_place(path: Path) -> None:
    expected = [
        (number, *found.groups())
        for number, line in enumerate(path.read_text().splitlines(), start=1)
        for found in EXPECTED.finditer(line)
    ]
    found = problems_of(path)
    assert [(each.line, each.key) for each in found] == [(line, key) for line, key, _ in expected]
    for problem, (_, _, words) in zip(found, expected, strict=True):
        assert words in problem.message
        assert problem.file == path
        assert problem.column >= 1


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_no_message_has_a_secret(path: Path) -> None:
    told = "\n".join(map(str, problems_of(path)))
    assert "secret" not in told.replace("!secret", "")


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_right_files_load(path: Path) -> None:
    assert load(path, Flags(defaults="serve")).source == path.absolute()


# --- what a file says -----------------------------------------------------------------------------


def test_defaults_of_the_contract() -> None:
    config = load(FILES / "valid" / "minimal.yaml")
    assert config.limits == Limits(
        head=64 * KIB,
        headers=100,
        uri=8 * KIB,
        body=None,
        connections=20_000,
        connections_per_address=None,
        streams=10_000,
        waiting=1_000,
        memory=GIB,
    )
    assert config.timeouts == Timeouts(
        head=10_000,
        idle=75_000,
        connect=5_000,
        first_byte=60_000,
        total=None,
        agent_wait=3_000,
        drain=30_000,
    )
    assert config.limits == Limits() == config.external[0].limits == config.services[0].limits
    assert config.timeouts == Timeouts() == config.external[0].timeouts == config.services[0].timeouts
    assert config.users == config.registration == config.connect == ()
    assert config.admin is None


def test_ports() -> None:
    config = load(FILES / "valid" / "dmz.yaml")
    web, database, cache = config.external
    assert (web.name, web.url, web.registration, web.service) == (
        "web",
        "http://0.0.0.0:8080",
        "green",
        None,
    )
    assert (database.scheme, database.host, database.port, database.service) == ("tcp", "::1", 5432, "db")
    assert database.url == "tcp://[::1]:5432"
    assert (cache.name, cache.registration) == ("external-3", "partners")
    assert [door.url for door in config.registration] == ["http://10.0.0.5:7000", "http://10.0.0.5:7100"]
    assert config.registration_named("partners") is config.registration[1]
    assert config.registration_named("nobody") is None
    assert config.admin == Admin(scheme="http", host="127.0.0.1", port=7001)
    assert config.admin.is_loopback
    assert not web.is_loopback


def test_limits_are_inherited_by_port_and_service() -> None:
    config = load(FILES / "valid" / "dmz.yaml")
    web, database, _ = config.external
    status, wild, _ = config.services
    assert (config.limits.head, config.limits.body, config.limits.streams) == (32 * KIB, GIB, 5000)
    assert (web.limits.body, web.limits.connections_per_address, web.limits.head) == (10 * MIB, 200, 32 * KIB)
    assert database.limits == config.limits
    assert config.registration[0].limits.streams == 500
    # The service's own, `none` included, over the port's over the file's.
    assert status.limits.body is None
    assert status.limits_at(web).body is None
    assert status.limits_at(web).connections_per_address == 200
    assert wild.limits.body == GIB
    assert wild.limits_at(web).body == 10 * MIB
    assert (status.timeouts.first_byte, status.timeouts.total) == (500, 90_000)
    assert (status.timeouts_at(web).first_byte, wild.timeouts_at(web).first_byte) == (500, 120_000)
    assert (wild.timeouts.first_byte, config.timeouts.drain) == (30_000, 0)


def test_services() -> None:
    config = load(FILES / "valid" / "dmz.yaml")
    status, wild, cache = config.services
    assert (status.kind, status.host, status.path, status.name) == ("http", "api.example.com", "/status", "")
    assert wild.match == Match(host="*.example.com")
    assert wild.upstreams == (
        Upstream(scheme="http", host="127.0.0.1", port=9101),
        Upstream(scheme="http", path=str(FILES / "valid" / "run" / "app.sock")),
    )
    assert (cache.kind, cache.match, cache.upstreams[0].url) == (
        "tcp",
        Match(name="cache"),
        "tcp://127.0.0.1:6379",
    )


def test_users() -> None:
    orders, ops = load(FILES / "valid" / "dmz.yaml").users
    assert orders.tokens == ((1).to_bytes(32, "big"),)
    assert orders.rights == Rights(
        services=(Match(host="orders.example.com"), Match(host="*.orders.example.com")),
        tunnels=8,
        streams=1000,
    )
    assert ops.rights == Rights(services=(Match(),), tcp=("db", "*"))
    assert "tokens" not in repr(orders)


def test_what_is_dialled() -> None:
    config = load(FILES / "valid" / "green.yaml")
    first, second = config.connect
    assert (first.url, first.tunnels, first.token_file) == (
        "http://dmz1.example.com:7000",
        2,
        FILES / "valid" / "orders.token",
    )
    assert first.token == Secret("a-token-for-the-tests-0001")
    assert (second.authority, second.tunnels, second.token) == ("dmz2.example.com:80", 4, None)
    assert first.services == second.services == config.services
    assert config.services[1].match == Match(name="db")


def test_secrets_do_not_show_themselves() -> None:
    config = load(FILES / "valid" / "green.yaml")
    assert "tests-0001" not in f"{config!r} {config} {config.connect[0].token}"
    assert config.connect[0].token != "a-token-for-the-tests-0001"


def test_anchors_and_merge_keys() -> None:
    first, second = load(FILES / "valid" / "anchors.yaml").services
    assert first.upstreams == second.upstreams
    assert first.own_limits == {"body": 2 * MIB, "requests": 100}


# --- warnings -------------------------------------------------------------------------------------


def warnings_of(config: Config) -> str:
    return "\n".join(config.warnings)


def test_what_can_do_nothing_is_warned_of(written) -> None:
    config = load(
        written(
            "external:\n- listen: http://127.0.0.1:1\n  limits: {streams: 5}\n"
            "- listen: http://127.0.0.1:2\n  registration: a\n"
            "registration:\n- {name: a, listen: 'http://127.0.0.1:3', timeouts: {idle: 1}}\n"
            "users:\n- name: empty\n"
            "services:\n- {name: db, upstream: 'tcp://127.0.0.1:4', limits: {memory: 1GiB}}\n"
        )
    )
    told = warnings_of(config)
    assert ":3:21: external[0].limits.streams: has no effect at an external port" in told
    assert "registration[0].timeouts.idle: has no effect at a registration port" in told
    assert "services[0].limits.memory: has no effect at a service" in told
    assert "users[0]: empty has no tokens, certificates or passwords and can't log in" in told
    assert "users[0]: empty may announce nothing" in told
    assert "services[0]: no external port leads to the tcp service 'db'" in told


def test_ports_that_lead_nowhere_are_warned_of(written) -> None:
    alone = load(written("external:\n- listen: http://127.0.0.1:1\n"))
    assert "external[0]: nothing can answer" in warnings_of(alone)
    door = load(written("registration:\n- listen: http://127.0.0.1:1\n"))
    assert "registration[0]: no external port leads to what agents announce here" in warnings_of(door)


def test_limits_of_services_count_in_agents_too(written) -> None:
    services = (
        "services: [{upstream: 'http://127.0.0.1:1', limits: {body: 1}, timeouts: {total: 1, idle: 2}}]\n"
    )
    agent = load(written(services + "connect: [{url: 'http://127.0.0.1:2'}]\n"))
    assert agent.warnings == ()
    (service,) = agent.services
    assert (service.limits.body, service.timeouts.total, service.says_idle) == (1, 1000, True)
    plain = load(
        written("services: [{upstream: 'http://127.0.0.1:1'}]\nconnect: [{url: 'http://127.0.0.1:2'}]\n")
    )
    assert not plain.services[0].says_idle, "the default is the DMZ node's affair"


def test_tcp_connections_may_rest_longer_than_others(written) -> None:
    """Unless the file, the port or a service says how long."""
    ports = "external:\n- listen: tcp://127.0.0.1:1/db\n- listen: http://127.0.0.1:2\n- listen: tls://127.0.0.1:3\n"
    service = "services: [{name: db, upstream: 'tcp://127.0.0.1:4'}, {upstream: 'http://127.0.0.1:5'}]\n"
    plain = load(written(ports + service))
    assert [port.timeouts.idle for port in plain.external] == [3_600_000, 75_000, 3_600_000]
    assert plain.services[0].timeouts_at(plain.external[0]).idle == 3_600_000
    assert plain.services[1].timeouts_at(plain.external[1]).idle == 75_000
    file = load(written(ports + service + "timeouts: {idle: 5}\n"))
    assert [port.timeouts.idle for port in file.external] == [5_000] * 3
    own = ports.replace("/db\n", "/db\n  timeouts: {idle: 6}\n")
    port = load(written(own + service.replace("4'", "4', timeouts: {idle: 7}")))
    assert port.external[0].timeouts.idle == 6_000
    assert port.services[0].timeouts_at(port.external[0]).idle == 7_000


def test_a_token_in_clear_is_warned_of(written, tmp_path: Path) -> None:
    token = tmp_path / "a.token"
    token.write_text("a-token-for-the-tests-0002\n")
    token.chmod(0o644)
    config = load(
        written(
            "services: [{upstream: 'http://127.0.0.1:1'}]\n"
            "connect:\n- {url: 'http://8.8.8.8:7000', token_file: a.token, bearer: true}\n"
            "- {url: 'http://10.0.0.1:7000', token_file: a.token}\n"
            "- {url: 'http://8.8.4.4:7000', token_file: a.token}\n"
        )
    )
    told = warnings_of(config)
    assert "connect[0].url: the token travels to 8.8.8.8 unencrypted" in told
    assert "connect[1].url" not in told
    assert "connect[2].url: the tunnel goes to 8.8.4.4 unencrypted" in told
    assert "connect[0].token_file: the file" in told
    assert "chmod 600" in told
    assert "tests-0002" not in told


# --- reading --------------------------------------------------------------------------------------


def test_a_missing_file(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path / "none.yaml")
    assert str(problem) == f"{tmp_path}/none.yaml: can't be read: No such file or directory"


def test_a_directory(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path)
    assert problem.message == "can't be read: Is a directory"


def test_a_huge_file(written) -> None:
    (problem,) = problems_of(written("#" * (2 << 20)))
    assert problem.message == "not valid YAML: the file is larger than 1048576 bytes"


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "broker.yaml"
    path.write_bytes(b"external: \xff\xfe\n")
    (problem,) = problems_of(path)
    assert problem.message.startswith("not valid YAML: ")


@pytest.mark.parametrize("text", ["a: \x00\n", "[" * 5000, "? {a: b}\n: c\n", "a: b\n---\nc: d\n", "*a\n"])
def test_strange_yaml(written, text: str) -> None:
    assert problems_of(written(text))


def test_a_small_file_that_stands_for_a_huge_one(written) -> None:
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]"
        for old, new in zip("abcdefg", "bcdefgh", strict=True)
    ]
    (problem,) = problems_of(written("\n".join(lines)))
    assert problem.message == "is one too many: a configuration has at most 50000 values"


def test_an_empty_file_has_nothing_to_do() -> None:
    (problem,) = problems_of(FILES / "valid" / "empty.yaml")
    assert problem.message.startswith("there is nothing to listen on and nothing to dial")


def test_numbers_as_texts_and_texts_as_numbers(written) -> None:
    config = load(
        written(
            "external: [{listen: 'http://127.0.0.1:1', name: '8080'}]\n"
            "services: [{upstream: 'http://127.0.0.1:2'}]\n"
            "limits: {head: '1024', body: 2048B}\ntimeouts: {head: 0.5, idle: '7', total: 1 m}\n"
        )
    )
    assert config.external[0].name == "8080"
    assert (config.limits.head, config.limits.body) == (1024, 2048)
    assert (config.timeouts.head, config.timeouts.idle, config.timeouts.total) == (500, 7000, 60_000)


# --- again ----------------------------------------------------------------------------------------


def test_reload_reads_the_files_again(written, tmp_path: Path) -> None:
    token = tmp_path / "a.token"
    token.write_text("a-token-for-the-tests-0003")
    token.chmod(0o600)
    path = written(
        "services: [{upstream: 'http://127.0.0.1:1'}]\n"
        "connect: [{url: 'http://127.0.0.1:7000', token_file: a.token}]\n"
    )
    before = load(path, Flags(services=("/x=http://127.0.0.1:2",)))
    assert reload(before) == before
    token.write_text("a-token-for-the-tests-0004")
    written(path.read_text() + "limits: {headers: 7}\n")
    after = reload(before)
    assert after.limits.headers == 7
    assert after.connect[0].token == Secret("a-token-for-the-tests-0004")
    assert [str(service.match) for service in after.services] == ["/", "/x"]
    written("nonsense: 1\n")
    with pytest.raises(ConfigError, match="nonsense"):
        reload(after)


def test_every_value_of_the_model_is_frozen() -> None:
    config = load(FILES / "valid" / "dmz.yaml")
    for thing in (config, config.external[0], config.services[0], config.users[0], config.limits):
        for each in fields(thing):
            with pytest.raises(AttributeError):
                setattr(thing, each.name, None)
