"""Who is slow, and who is only waiting: minimum rates both ways, and the readers of answers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.harness.client import RawClient
from tests.harness.message import Closed, Head
from tests.harness.nodes import Pair, World
from tests.harness.origin import Connection, pattern
from tests.harness.problems import assert_problem
from tests.harness.waiting import wait_until

MIB = 1 << 20


LONG = 4.5  # seconds


@pytest.fixture(scope="module")
def strict(module_world: World) -> Pair:
    """2,000 bytes per second, measured over two, or the client is gone."""
    return module_world.pair({"limits": {"min_rate": 2_000}, "timeouts": {"slow": "2s"}})


def trickle(client: RawClient, piece: bytes, pause: float, stop: threading.Event) -> None:
    try:
        while not stop.wait(pause):
            client.send(piece)
    except OSError:
        pass


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_trickles_is_refused(strict: Pair, framing: str) -> None:
    """It never stands still, so that no idle timeout would ever notice."""
    stop = threading.Event()
    fields = [("Content-Length", "1000000")] if framing == "length" else [("Transfer-Encoding", "chunked")]
    piece = b"x" if framing == "length" else b"1\r\nx\r\n"
    with strict.client() as client:
        client.send_request("POST", f"/trickle-{framing}", fields)
        sender = threading.Thread(target=trickle, args=(client, piece, 0.02, stop))
        sender.start()
        try:
            assert_problem(client.read_response(), 408, "request-timeout", "maybe-sent")
        finally:
            stop.set()
            sender.join()


def held_up(pair: Pair) -> None:
    """The service reads nothing for a while: that is not the client's fault."""
    body = pattern(12 * MIB)

    def script(connection: Connection, head: Head) -> None:
        time.sleep(LONG)
        seen, _ = connection.read_body(head, keep=0, digest=True)
        connection.answer(body=b"%d" % seen.size)

    pair.origin.on("/held-up", script)
    with pair.client() as client:
        assert client.request("POST", "/held-up", body=body).body == b"%d" % len(body)


def waits_for_100(pair: Pair) -> None:
    def script(connection: Connection, head: Head) -> None:
        time.sleep(LONG)
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.read_body(head)
        connection.answer(body=b"thanks")

    pair.origin.on("/expects", script)
    with pair.client() as client:
        client.send_request("POST", "/expects", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert client.read_head().status == 100
        client.send(b"hello")
        assert client.read_response().body == b"thanks"


def both_at_once(pair: Pair) -> None:
    """After an early answer the request may take its time: nobody waits for it."""

    def script(connection: Connection, head: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        connection.read_body(head)
        connection.send(b"4\r\ndone\r\n0\r\n\r\n")

    pair.origin.on("/both", script)
    with pair.client() as client:
        client.send_request("POST", "/both", [("Content-Length", "8")])
        assert client.read_head().status == 200
        for _ in range(8):
            time.sleep(LONG / 8)
            client.send(b"x")
        assert client.reader.exactly(7) == b"4\r\ndone"


def silent_events(pair: Pair) -> None:
    """An event stream that has nothing to say."""

    def script(connection: Connection, _head: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        time.sleep(LONG)
        connection.send(b"3\r\ntwo\r\n0\r\n\r\n")

    pair.origin.on("/silent", script)
    with pair.client() as client:
        assert client.request(target="/silent").body == b"onetwo"


def steady(pair: Pair) -> None:
    """Twenty times as fast as it must be."""
    with pair.client() as client:
        client.send_request("POST", "/steady", [("Content-Length", "200000")])
        for _ in range(50):
            client.send(b"x" * 4000)
            time.sleep(LONG / 50)
        assert client.read_response().status == 200


def reads_slowly(pair: Pair) -> None:
    body = pattern(400_000)

    def script(connection: Connection, _head: Head) -> None:
        connection.answer(body=body)

    pair.origin.on("/enough", script)
    with RawClient(pair.address, receive_buffer=4096) as client:
        client.send_request(target="/enough")
        length = int(client.read_head().headers["Content-Length"])
        got = b""
        while len(got) < length:
            got += client.reader.exactly(min(8_000, length - len(got)))
            time.sleep(LONG / 50)
        assert got == body


def test_who_waits_or_is_fast_enough_is_left_alone(strict: Pair) -> None:
    """All at once, each for longer than two of the periods in which rates are measured."""
    cases = [held_up, waits_for_100, both_at_once, silent_events, steady, reads_slowly]
    with ThreadPoolExecutor(len(cases)) as pool:
        for case in [pool.submit(each, strict) for each in cases]:
            case.result()
    strict.origin.raise_errors()


def download(connection: Connection, _head: Head) -> bool:
    body = b"y" * (24 * MIB)
    connection.answer(body=body)
    return True


def test_a_reader_that_trickles_is_cut(strict: Pair) -> None:
    """And what it got does not look whole; the service's connection is free again."""
    strict.origin.on("/large", download)
    with RawClient(strict.address, receive_buffer=4096) as client:
        client.send_request(target="/large")
        assert client.read_head().status == 200

        def given_up() -> bool:
            client.sock.recv(10)  # about 100 bytes per second
            return bool(strict.dmz.status()["external"][0]["active"] == 0)

        wait_until(given_up, "the reader was given up")
        with pytest.raises((Closed, ConnectionError)):
            client.reader.exactly(24 * MIB)
    served = [each for each in strict.origin.connections if any(r.target == "/large" for r in each.requests)]
    assert served[0].ended.wait(20), "the service was not told"


@pytest.mark.parametrize("size", [24 * MIB, 3 * MIB])
def test_a_reader_that_stands_still_is_cut(world: World, size: int) -> None:
    """By the idle timeout, where no rate is asked for."""
    pair = world.pair({"limits": {"min_rate": "none"}, "timeouts": {"idle": "1s"}})

    def script(connection: Connection, _head: Head) -> bool:
        connection.answer(body=b"z" * size)
        return True

    pair.origin.on("/stalled", script)
    with RawClient(pair.address, receive_buffer=4096) as client:
        client.send_request(target="/stalled")
        assert client.read_head().status == 200
        wait_until(lambda: pair.dmz.status()["external"][0]["active"] == 0, "the exchange has ended")
        wait_until(lambda: pair.dmz.status()["external"][0]["connections"] == 0, "the connection has ended")
        with pytest.raises((Closed, ConnectionError)):
            client.reader.exactly(size)


def test_a_slow_reader_of_the_end_of_an_answer_is_not_cut(world: World) -> None:
    """All of it is in the node's hands and the exchange is over; it still has to arrive."""
    pair = world.pair({"limits": {"min_rate": "none"}, "timeouts": {"idle": "1s"}})
    body = pattern(200_000)

    def script(connection: Connection, _head: Head) -> None:
        connection.answer(body=body)

    pair.origin.on("/end", script)
    with RawClient(pair.address, receive_buffer=2048) as client:
        client.send_request(target="/end", fields=[("Connection", "close")])
        length = int(client.read_head().headers["Content-Length"])
        got = b""
        while len(got) < length:
            got += client.reader.exactly(min(8_000, length - len(got)))
            time.sleep(0.1)
        assert got == body
