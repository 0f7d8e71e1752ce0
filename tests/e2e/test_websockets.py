"""WebSocket with a real client and server: messages of all sizes, closes, and the end of a node."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode
from websockets.sync.client import ClientConnection, connect
from websockets.sync.server import Server, ServerConnection, serve

from tests.harness.nodes import DmzNode, Pair, World, loopback
from tests.harness.origin import Origin, pattern
from tests.harness.waiting import wait_until

MIB = 1 << 20
SIZES = [1, 125, 126, 65535, 65536, 1 * MIB + 1, 16 * MIB]


class Service:
    """A WebSocket server on loopback; how it was left is kept per connection."""

    def __init__(self) -> None:
        self.closes: list[tuple[int | None, str]] = []
        self.server: Server = serve(self._play, "127.0.0.1", 0, max_size=None, compression=None)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"

    def _play(self, socket: ServerConnection) -> None:
        path = socket.request.path if socket.request else ""
        try:
            if path.startswith("/close/"):
                socket.close(int(path.rpartition("/")[2]), "so be it")
            elif path == "/flood":
                while True:
                    socket.send(b"x" * 70_000)
            for message in socket:
                socket.send(message)
        except ConnectionClosed:
            pass
        self.closes.append((socket.close_code, socket.close_reason or ""))

    def close(self) -> None:
        self.server.shutdown()


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture(scope="module")
def shared(module_world: World, service: Service) -> Pair:
    return module_world.pair(services=lambda _: [{"match": "/", "upstream": service.url}])


def dial(dmz: DmzNode, path: str = "/", **more: Any) -> ClientConnection:
    host, port = dmz.external
    return connect(f"ws://{host}:{port}{path}", max_size=None, proxy=None, open_timeout=20, **more)


@pytest.mark.quick
@pytest.mark.parametrize("size", SIZES)
def test_messages_of_any_size_both_ways(shared: Pair, size: int) -> None:
    text = "ä" * (size // 2) or "a"
    with dial(shared.dmz, compression=None) as socket:
        for message in (pattern(size), text):
            socket.send(message)
            assert socket.recv(timeout=40) == message


def test_a_thousand_small_messages_and_pings(shared: Pair) -> None:
    with dial(shared.dmz) as socket:
        for number in range(1000):
            socket.send(f"message {number}")
        assert [socket.recv(timeout=20) for _ in range(1000)] == [f"message {n}" for n in range(1000)]
        assert socket.ping().wait(20)


def test_a_message_in_fragments(shared: Pair) -> None:
    with dial(shared.dmz) as socket:
        socket.send([b"one ", b"two ", b"three"])
        assert socket.recv(timeout=20) == b"one two three"


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 4000, 4999])
def test_close_codes_are_kept(shared: Pair, service: Service, code: int) -> None:
    with dial(shared.dmz, f"/close/{code}") as socket:
        with pytest.raises(ConnectionClosed):
            socket.recv(timeout=20)
        assert (socket.close_code, socket.close_reason) == (code, "so be it")
    with dial(shared.dmz) as socket:
        socket.close(code, "the client's word")
    wait_until(lambda: (code, "the client's word") in service.closes, "the service saw the client's close")


def test_a_client_that_vanishes_is_seen(shared: Pair, service: Service) -> None:
    before = len(service.closes)
    with dial(shared.dmz) as socket:
        socket.socket.shutdown(2)
        wait_until(lambda: len(service.closes) > before, "the service saw the end")
    assert service.closes[-1][0] == CloseCode.ABNORMAL_CLOSURE


def test_many_at_once(shared: Pair) -> None:
    """Over one tunnel, each with its own messages."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(shared.dmz)) for _ in range(100)]
        for number, socket in enumerate(sockets):
            socket.send(pattern(5000, seed=number))
        for number, socket in enumerate(sockets):
            assert socket.recv(timeout=20) == pattern(5000, seed=number)


# --- the end of a node ----------------------------------------------------------------------------


@pytest.mark.quick
@pytest.mark.parametrize("leaving", ["dmz", "agent"])
def test_a_node_that_drains_tells_websockets(world: World, service: Service, leaving: str) -> None:
    """Close 1001 to client and service, in order, long before the drain's deadline; nothing is cut."""
    pair = world.pair(
        dmz={"timeouts": {"drain": 50}},
        agent={"timeouts": {"drain": 50}},
        services=lambda _: [{"match": "/", "upstream": service.url}],
    )
    node = pair.dmz if leaving == "dmz" else pair.agent
    before = len(service.closes)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(dial(pair.dmz)) for _ in range(5)]
        for socket in sockets:
            socket.send("before")
            assert socket.recv(timeout=20) == "before"
        node.process.signal(signal.SIGTERM)
        for socket in sockets:
            assert list(socket) == []
            assert socket.close_code == CloseCode.GOING_AWAY
        node.process.expect_exit(0)
    wait_until(lambda: len(service.closes) >= before + 5, "the service saw all ends")
    assert {code for code, _ in service.closes[before:]} == {CloseCode.GOING_AWAY}


def test_a_node_that_drains_does_not_break_a_message(world: World, service: Service) -> None:
    """The Close waits for the end of a frame that is under way."""
    pair = world.pair(
        dmz={"timeouts": {"drain": 50}}, services=lambda _: [{"match": "/", "upstream": service.url}]
    )
    with dial(pair.dmz, "/flood", compression=None) as socket:
        assert len(socket.recv(timeout=20)) == 70_000
        pair.dmz.process.signal(signal.SIGTERM)
        assert set(socket) <= {b"x" * 70_000}
        assert socket.close_code == CloseCode.GOING_AWAY
    pair.dmz.process.expect_exit(0)


def test_what_is_not_a_websocket_is_left_alone_by_a_drain(world: World) -> None:
    """Nobody writes into a protocol that this node does not know: it ends by itself, or at the deadline."""
    pair = world.pair(
        dmz={"external": [upgrading("foo")], "timeouts": {"drain": 1}}, agent=None, services=foo
    )

    def script(connection: Any, _head: Any) -> bool:
        connection.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\n")
        while piece := connection.reader.some():
            connection.send(piece)
        return True

    pair.origin.on("/foo", script)
    with pair.client() as client:
        client.send_request(target="/foo", fields=[("Connection", "upgrade"), ("Upgrade", "foo")])
        assert client.read_head().status == 101
        pair.dmz.process.signal(signal.SIGTERM)
        client.send(b"ping")
        assert client.reader.exactly(4) == b"ping"
        assert client.read_to_end() == b""
    pair.dmz.process.expect_exit(0)


def foo(origin: Origin) -> list[dict[str, Any]]:
    return [{"match": "/", "upstream": origin.url, "upgrades": ["foo"]}]


def upgrading(protocol: str) -> dict[str, Any]:
    return {"name": "web", "listen": loopback(), "upgrades": [protocol]}
