"""tcp ports: redis, PostgreSQL, echo, half-close both ways, large transfers, failures."""

import contextlib
import hashlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.harness.client import connect, reset
from tests.harness.nodes import World, loopback
from tests.harness.origin import Connection, Origin, pattern, refused_port, sha256
from tests.harness.servers import Postgres, Redis
from tests.harness.waiting import wait_until

MIB = 1024 * 1024


@dataclass
class Tcp:
    """A tcp port that leads to `origin` behind an agent, one to nothing, and one to a port that refuses."""

    origin: Origin
    address: tuple[str, int]
    nothing: tuple[str, int]
    refusing: tuple[str, int]


@pytest.fixture(scope="module")
def shared_tcp(module_world: World) -> Iterator[Tcp]:
    origin = module_world.origin("raw")
    names = ["svc", "nothing", "refusing"]
    dmz = module_world.dmz(
        {"external": [{"name": name, "listen": loopback("tcp", rest=f"/{name}")} for name in names]}
    )
    with refused_port() as closed:
        services = [
            {"name": "svc", "upstream": origin.tcp_url},
            {"name": "refusing", "upstream": f"tcp://127.0.0.1:{closed.getsockname()[1]}"},
        ]
        module_world.agent(dmz.registration_url(), services)
        yield Tcp(origin, *(dmz.external_at(index) for index in (0, 1, 2)))


@pytest.fixture
def tcp(shared_tcp: Tcp) -> Iterator[Tcp]:
    shared_tcp.origin.connections.clear()
    yield shared_tcp
    shared_tcp.origin.raise_errors()


def tcp_port(world: World, upstream: str) -> tuple[str, int]:
    """The address of a tcp port that leads to this upstream behind an agent."""
    dmz = world.dmz({"external": [{"name": "raw", "listen": loopback("tcp", rest="/svc")}]})
    world.agent(dmz.registration_url(), [{"name": "svc", "upstream": upstream}])
    return dmz.external


def receive_all(sock: socket.socket) -> bytes:
    parts = []
    while piece := sock.recv(1 << 20):
        parts.append(piece)
    return b"".join(parts)


def echo(connection: Connection) -> None:
    while piece := connection.reader.some(1 << 20):
        connection.send(piece)


@pytest.mark.quick
def test_echo_and_half_close_of_the_client(tcp: Tcp) -> None:
    """The client ends its side; everything still comes back, then the end."""
    tcp.origin.raw = echo
    with connect(tcp.address) as sock:
        for word in (b"one", b"two", b"three"):
            sock.sendall(word)
            assert sock.recv(100) == word
        sock.sendall(b"last")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"last"


@pytest.mark.quick
def test_half_close_of_the_service(tcp: Tcp) -> None:
    """The service ends its side; the client goes on sending, and all of it arrives."""
    finished = threading.Event()
    received = []

    def script(connection: Connection) -> None:
        connection.send(b"greeting")
        connection.sock.shutdown(socket.SHUT_WR)
        received.append(connection.reader.drain())
        finished.set()

    tcp.origin.raw = script
    data = pattern(3 * MIB, seed=1)
    with connect(tcp.address) as sock:
        assert receive_all(sock) == b"greeting"
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        assert finished.wait(20)
    assert sha256(received[0]) == sha256(data)


@pytest.mark.quick
def test_the_service_speaks_first(tcp: Tcp) -> None:
    tcp.origin.raw = lambda connection: connection.send(b"220 hello\r\n")
    with connect(tcp.address) as sock:
        assert receive_all(sock) == b"220 hello\r\n"


def test_64_mib_both_ways_at_once(tcp: Tcp) -> None:
    up, down = pattern(64 * MIB, seed=2), pattern(64 * MIB, seed=3)
    seen = hashlib.sha256()
    finished = threading.Event()

    def script(connection: Connection) -> None:
        sender = threading.Thread(target=connection.send, args=(down,))
        sender.start()
        while piece := connection.reader.some(1 << 20):
            seen.update(piece)
        sender.join()
        finished.set()

    tcp.origin.raw = script
    with connect(tcp.address) as sock:

        def send() -> None:
            sock.sendall(up)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        got = hashlib.sha256()
        while piece := sock.recv(1 << 20):
            got.update(piece)
        sender.join()
    assert finished.wait(20)
    assert got.hexdigest() == sha256(down)
    assert seen.hexdigest() == sha256(up)


@pytest.mark.quick
def test_a_reset_of_the_client_reaches_the_service(tcp: Tcp) -> None:
    """An abort must not look like a clean end to the service."""
    ends = []
    ended = threading.Event()

    def script(connection: Connection) -> None:
        try:
            connection.reader.drain()
            ends.append("end")
        except ConnectionResetError:
            ends.append("reset")
        ended.set()

    tcp.origin.raw = script
    sock = connect(tcp.address)
    sock.sendall(b"half of something")
    wait_until(lambda: tcp.origin.received(b"half of something"), "the bytes arrived")
    reset(sock)
    assert ended.wait(20) and ends == ["reset"]


@pytest.mark.quick
@pytest.mark.parametrize("local", [True, False])
def test_a_reset_after_a_half_close_reaches_the_service(world: World, local: bool) -> None:
    origin = world.origin("raw")
    half = threading.Event()
    gone = threading.Event()

    def play(connection: Connection) -> None:
        while connection.sock.recv(1000):
            pass
        half.set()
        connection.wait(gone)
        with contextlib.suppress(OSError):
            while True:  # up to the moment that the broker says that nobody reads
                connection.send(bytes(65536))

    origin.raw = play
    if local:
        ports = [{"name": "raw", "listen": loopback("tcp", rest="/svc")}]
        services = [{"name": "svc", "upstream": origin.tcp_url}]
        address = world.dmz({"external": ports, "services": services}).external
    else:
        address = tcp_port(world, origin.tcp_url)
    client = connect(address)
    client.sendall(b"x")
    client.shutdown(socket.SHUT_WR)
    assert half.wait(20)
    reset(client)
    gone.set()
    wait_until(lambda: origin.connections[0].ended.is_set(), "the service's connection ends")


def test_a_reset_of_the_service_reaches_the_client(tcp: Tcp) -> None:
    def script(connection: Connection) -> None:
        connection.reader.exactly(4)
        connection.reset()

    tcp.origin.raw = script
    with connect(tcp.address) as sock:
        sock.sendall(b"kill")
        with pytest.raises(ConnectionResetError):
            receive_all(sock)


@pytest.mark.quick
@pytest.mark.parametrize("port", ["refusing", "nothing"])
def test_there_is_no_answer_on_a_tcp_port(tcp: Tcp, port: str) -> None:
    """Nobody offers the service, or it refuses: the connection is cut, perhaps before connect returns."""
    with contextlib.suppress(ConnectionResetError), connect(getattr(tcp, port)) as sock:
        assert receive_all(sock) == b""


@pytest.mark.quick
def test_a_local_tcp_service(world: World) -> None:
    raw_origin = world.origin("raw")
    raw_origin.raw = echo
    dmz = world.dmz(
        {
            "external": [{"name": "raw", "listen": loopback("tcp", rest="/echo")}],
            "services": [{"name": "echo", "upstream": raw_origin.tcp_url}],
        }
    )
    with connect(dmz.external) as sock:
        sock.sendall(b"local")
        sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"local"


@pytest.mark.quick
def test_tcp_and_http_ports_beside_each_other(world: World) -> None:
    raw_origin = world.origin("raw")
    raw_origin.raw = echo
    web = world.origin("web")
    dmz = world.dmz(
        {
            "external": [
                {"name": "web", "listen": loopback()},
                {"name": "one", "listen": loopback("tcp", rest="/one")},
                {"name": "two", "listen": loopback("tcp", rest="/two")},
            ]
        }
    )
    other = world.origin("other")
    other.raw = lambda connection: connection.send(b"two")
    world.agent(
        dmz.registration_url(),
        [
            {"match": "/", "upstream": web.url},
            {"name": "one", "upstream": raw_origin.tcp_url},
            {"name": "two", "upstream": other.tcp_url},
        ],
    )
    assert dmz.fetch("/").status == 200
    with connect(dmz.external_at(2)) as sock:
        assert receive_all(sock) == b"two"
    with connect(dmz.external_at(1)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert sock.recv(100).startswith(b"GET / HTTP/1.1"), "a tcp port must not read HTTP"


# --- connections that stand still -----------------------------------------------------------


def still_port(world: World, origin: Origin, place: str) -> tuple[str, int]:
    """A tcp port where a second without a byte is enough, as this place has it."""
    times = {"timeouts": {"idle": "1s"}}
    port = {"name": "raw", "listen": loopback("tcp", rest="/svc")}
    service = {"name": "svc", "upstream": origin.tcp_url}
    if place == "port":
        dmz = world.dmz({"external": [port | times]})
    elif place == "service":
        return world.dmz({"external": [port], "services": [service | times]}).external
    elif place == "file":
        dmz = world.dmz({"external": [port]} | times)
    else:
        dmz = world.dmz({"external": [port]})
        service |= times
    world.agent(dmz.registration_url(), [service])
    return dmz.external


@pytest.mark.parametrize("place", ["file", "port", "service", "agent"])
def test_a_connection_that_stands_still_is_ended(world: World, place: str) -> None:
    """On both sides, and so that neither takes it for the end of what the other one had to say."""
    origin = world.origin("raw")
    ends = []

    def script(connection: Connection) -> None:
        echoed = connection.reader.exactly(4)
        connection.send(echoed)
        try:
            ends.append(connection.reader.drain())
        except ConnectionResetError:
            ends.append(b"reset")

    origin.raw = script
    with connect(still_port(world, origin, place)) as sock:
        sock.sendall(b"ping")
        assert sock.recv(100) == b"ping"
        with pytest.raises(ConnectionResetError):
            receive_all(sock)
    wait_until(lambda: ends == [b"reset"], "the service was told")


@pytest.mark.parametrize("half_closed", [False, True])
def test_bytes_in_one_direction_keep_a_connection(world: World, half_closed: bool) -> None:
    origin = world.origin("raw")
    pause = threading.Event()

    def script(connection: Connection) -> None:
        connection.reader.exactly(5)
        for _ in range(12):
            pause.wait(0.25)
            connection.send(b"tick")

    origin.raw = script
    with connect(still_port(world, origin, "port")) as sock:
        sock.sendall(b"start")
        if half_closed:
            sock.shutdown(socket.SHUT_WR)
        assert receive_all(sock) == b"tick" * 12


def test_half_of_a_connection_is_ended_where_it_stands_still(world: World) -> None:
    """The client has ended its side and waits for ever: so would the service's connection be kept."""
    origin = world.origin("raw")
    over = threading.Event()

    def script(connection: Connection) -> None:
        connection.reader.drain()
        connection.wait(over)

    origin.raw = script
    with connect(still_port(world, origin, "port")) as sock:
        sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            receive_all(sock)
    over.set()


def test_a_slow_reader_of_a_connection_is_not_cut(world: World) -> None:
    """All of it lies in kernels, and nothing new comes: but it is taken, piece by piece."""
    origin = world.origin("raw")
    data = pattern(1 << 20, seed=7)
    origin.raw = lambda connection: connection.send(data)
    pause = threading.Event()
    with connect(still_port(world, origin, "port"), receive_buffer=4096) as sock:
        got = b""
        while len(got) < len(data):
            pause.wait(0.02)
            piece = sock.recv(8192)
            assert piece, f"cut after {len(got)} bytes"
            got += piece
    assert sha256(got) == sha256(data)


def test_redis(world: World) -> None:
    server = Redis(world.directory)
    try:
        with connect(tcp_port(world, server.url)) as sock:
            assert command(sock, b"SET", b"key", b"value") == b"+OK\r\n"
            assert command(sock, b"GET", b"key") == b"$5\r\nvalue\r\n"
            big = pattern(4 * MIB, seed=4)
            assert command(sock, b"SET", b"big", big) == b"+OK\r\n"
            sock.sendall(encode(b"GET", b"big"))
            expected = b"$%d\r\n%b\r\n" % (len(big), big)
            assert sha256(exactly(sock, len(expected))) == sha256(expected)
            pipeline = b"".join(encode(b"INCR", b"n") for _ in range(1000))
            sock.sendall(pipeline)
            replies = b"".join(b":%d\r\n" % number for number in range(1, 1001))
            assert exactly(sock, len(replies)) == replies
    finally:
        server.close()


def encode(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)


def command(sock: socket.socket, *words: bytes) -> bytes:
    sock.sendall(encode(*words))
    return sock.recv(1000)


def exactly(sock: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        piece = sock.recv(min(size, 1 << 20))
        assert piece, "the end came too early"
        parts.append(piece)
        size -= len(piece)
    return b"".join(parts)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.close()


def test_postgres(world: World, postgres: Postgres) -> None:
    _, port = tcp_port(world, postgres.url)
    assert postgres.query("select 6 * 7", port) == "42"
    assert postgres.query("create table t (n int); insert into t select generate_series(1, 1000)", port)
    assert postgres.query("select count(*), sum(n) from t", port) == "1000|500500"
    done = postgres.psql("select md5(n::text) from generate_series(1, 200000) n", port)
    lines = done.stdout.splitlines()
    assert len(lines) == 200000
    assert lines[41] == hashlib.md5(b"42").hexdigest()
    assert "does not exist" in postgres.psql("select * from missing", port).stderr
