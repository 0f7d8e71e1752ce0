"""What HTTP/1.1 asks of a hop: no bodies, interim answers, trailers, early answers, versions, connections."""

import contextlib
import json
import select
import threading

import pytest

from tests.harness.client import RawClient, chunked
from tests.harness.message import Closed, Head
from tests.harness.nodes import Pair
from tests.harness.origin import Connection, sha256
from tests.harness.waiting import wait_until


def serve(pair: Pair, target: str, raw: bytes, close: bool = False) -> str:
    """The origin answers this target with these bytes."""

    def script(connection: Connection, head: Head) -> bool:
        connection.read_body(head)
        connection.send(raw)
        return close

    return pair.origin.on(target, script)


# --- messages without bodies ----------------------------------------------------------------


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_statuses_without_a_body_keep_the_connection(pair: Pair, status: str) -> None:
    fields = b'ETag: "x"\r\n' + (b"Content-Length: 500\r\n" if status.startswith("304") else b"")
    target = serve(pair, f"/status-{status[:3]}", b"HTTP/1.1 %b\r\n%b\r\n" % (status.encode(), fields))
    with pair.client() as client:
        for _ in range(3):
            response = client.request(target=target)
            assert (response.status, response.body) == (int(status[:3]), b"")
            assert response.headers["ETag"] == '"x"'
        assert client.request(target="/next").status == 200


def test_205_has_an_empty_body(pair: Pair) -> None:
    target = serve(pair, "/205", b"HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n")
    with pair.client() as client:
        assert client.request(target=target).size == 0
        assert client.request(target="/next").status == 200


@pytest.mark.parametrize("framing", [b"Content-Length: 12345\r\n", b"Transfer-Encoding: chunked\r\n", b""])
def test_head_has_the_fields_but_no_body(pair: Pair, framing: bytes) -> None:
    target = serve(
        pair, f"/head-{len(framing)}", b"HTTP/1.1 200 OK\r\nX-It: yes\r\n" + framing + b"\r\n", not framing
    )
    with pair.client() as client:
        response = client.request("HEAD", target)
        assert (response.status, response.body, response.headers["X-It"]) == (200, b"", "yes")
        if b"Length" in framing:
            assert response.headers["Content-Length"] == "12345"
        assert client.request(target="/next").status == 200


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-CUSTOM"]
)
def test_methods_pass(pair: Pair, method: str) -> None:
    body = b"" if method == "GET" else b"content"
    seen = json.loads(pair.fetch("/method", method, body=body or None).body)
    assert seen["start"] == f"{method} /method HTTP/1.1"
    assert seen["sha256"] == sha256(body)


# --- interim answers ------------------------------------------------------------------------


def test_expect_100_continue_from_the_origin(pair: Pair) -> None:
    """The client holds its body back until the origin asks for it."""

    def script(connection: Connection, head: Head) -> None:
        assert head.headers["Expect"].lower() == "100-continue"
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, _ = connection.read_body(head)
        connection.answer(body=body.data.upper())

    pair.origin.on("/continue", script)
    with pair.client() as client:
        client.send_request("POST", "/continue", [("Expect", "100-continue"), ("Content-Length", "5")])
        assert client.read_head().status == 100
        client.send(b"hello")
        assert client.read_response().body == b"HELLO"
        assert client.request(target="/next").status == 200


def test_expect_100_continue_refused_by_the_origin(pair: Pair) -> None:
    """A final answer instead of 100: the body is never sent, and nothing is confused afterwards."""

    def script(connection: Connection, _head: Head) -> bool:
        connection.answer(417, b"no", reason="Expectation Failed", fields=[("Connection", "close")])
        return True

    pair.origin.on("/refuse", script)
    with pair.client() as client:
        client.send_request("POST", "/refuse", [("Expect", "100-continue"), ("Content-Length", "5")])
        response = client.read_response()
        assert (response.status, response.body, response.interim) == (417, b"no", [])
    assert pair.fetch("/next").status == 200


def test_expect_with_a_body_that_comes_anyway(pair: Pair) -> None:
    """A client need not wait for the 100."""

    def script(connection: Connection, head: Head) -> None:
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        body, _ = connection.read_body(head)
        connection.answer(body=body.data)

    pair.origin.on("/impatient", script)
    with pair.client() as client:
        response = client.request("POST", "/impatient", [("Expect", "100-continue")], b"hello")
        assert (response.body, [each.status for each in response.interim]) == (b"hello", [100])


def test_103_early_hints_pass(pair: Pair) -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n"
    target = serve(pair, "/hints", hints + hints + b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    with pair.client() as client:
        response = client.request(target=target)
        assert [each.status for each in response.interim] == [103, 103]
        assert response.interim[0].headers["Link"] == "</a.css>; rel=preload"
        assert response.body == b"ok"


def test_interim_answers_arrive_before_the_final_one(pair: Pair) -> None:
    gate = threading.Event()

    def script(connection: Connection, _head: Head) -> None:
        connection.send(b"HTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n")
        connection.wait(gate)
        connection.answer(body=b"done")

    pair.origin.on("/early-hints", script)
    with pair.client() as client:
        client.send_request(target="/early-hints")
        assert client.read_head().status == 103
        gate.set()
        assert client.read_response().body == b"done"


def test_an_http_1_0_client_gets_no_interim_answers(pair: Pair) -> None:
    raw = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    serve(pair, "/hints-10", raw)
    with pair.client() as client:
        client.send(b"GET /hints-10 HTTP/1.0\r\nHost: a\r\n\r\n")
        response = client.read_response()
        assert (response.status, response.interim, response.body) == (200, [], b"ok")


# --- trailers -------------------------------------------------------------------------------


def test_trailers_of_a_response(pair: Pair) -> None:
    body = chunked([b"data"], [("X-Checksum", "abc"), ("X-Other", "1")])
    target = serve(
        pair,
        "/trailers",
        b"HTTP/1.1 200 OK\r\nTrailer: X-Checksum\r\nTransfer-Encoding: chunked\r\n\r\n" + body,
    )
    with pair.client() as client:
        response = client.request(target=target, fields=[("TE", "trailers")])
        assert (response.body, response.trailers["X-Checksum"], response.trailers["X-Other"]) == (
            b"data",
            "abc",
            "1",
        )
        assert client.request(target="/next").status == 200


def test_trailers_of_a_request(pair: Pair) -> None:
    with pair.client() as client:
        client.send_request("POST", "/up", [("Transfer-Encoding", "chunked"), ("Trailer", "X-Sum")])
        client.send(chunked([b"data"], [("X-Sum", "7")]))
        seen = json.loads(client.read_response().body)
        assert seen["trailers"] == [["X-Sum", "7"]] and seen["sha256"] == sha256(b"data")


# --- answers before the request is complete -------------------------------------------------


def test_an_answer_before_the_request_is_complete(pair: Pair) -> None:
    """The client reads it while its body is unfinished; neither connection is used again."""
    answered = threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.answer(413, b"too much", reason="Content Too Large", fields=[("Connection", "close")])
        answered.set()
        return True

    pair.origin.on("/early", script)
    with pair.client() as client:
        client.send_request("POST", "/early", [("Content-Length", "1000000")])
        client.send(b"x" * 1000)
        response = client.read_response()
        assert (response.status, response.body) == (413, b"too much")
    assert answered.wait(20)
    assert pair.fetch("/next").status == 200


def test_an_early_answer_while_the_body_goes_on(pair: Pair) -> None:
    """An origin that answers first and reads the body to its end all the same."""
    body = b"y" * 300_000

    def script(connection: Connection, head: Head) -> None:
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly")
        seen, _ = connection.read_body(head)
        assert seen.data == body

    pair.origin.on("/early-read", script)
    with pair.client() as client:
        client.send_request("POST", "/early-read", [("Content-Length", str(len(body)))])
        response = client.read_response()
        assert response.body == b"early"
        if response.keeps_open:
            client.send(body)
            assert client.request(target="/next").status == 200


# --- streamed answers -----------------------------------------------------------------------


def test_server_sent_events_arrive_one_by_one(pair: Pair) -> None:
    """Each event is read by the client before the origin sends the next: nothing is held back."""
    go_on = threading.Semaphore(0)

    def script(connection: Connection, _head: Head) -> None:
        connection.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(20):
            event = b"data: %d\n\n" % number
            connection.send(b"%x\r\n%b\r\n" % (len(event), event))
            assert go_on.acquire(timeout=20)
        connection.send(b"0\r\n\r\n")

    pair.origin.on("/events", script)
    with pair.client() as client:
        client.send_request(target="/events", fields=[("Accept", "text/event-stream")])
        assert client.read_head().headers["Content-Type"] == "text/event-stream"
        received: list[bytes] = []

        def take(piece: bytes) -> None:
            received.append(piece)
            if b"".join(received).endswith(b"\n\n"):
                go_on.release()

        client.reader.chunks(take)
    assert b"".join(received) == b"".join(b"data: %d\n\n" % number for number in range(20))


def test_an_event_stream_ends_at_the_origin_when_the_client_leaves(pair: Pair) -> None:
    """At the latest with the next event: a client's FIN alone may be a half-close."""
    left, told = threading.Event(), threading.Event()

    def script(connection: Connection, _head: Head) -> bool:
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        connection.wait(left)
        with contextlib.suppress(OSError):
            for _ in range(10_000):
                connection.send(b"3\r\ndef\r\n")
                readable, _, _ = select.select([connection.sock], [], [], 0.01)
                if readable and not connection.reader.some():
                    break
            else:
                return True
        told.set()
        return True

    pair.origin.on("/endless", script)
    with pair.client() as client:
        client.send_request(target="/endless")
        assert client.read_head().status == 200
    left.set()
    assert told.wait(20), "the origin was not told that its reader had left"


# --- other versions -------------------------------------------------------------------------


def test_an_http_1_0_client_reads_until_close(pair: Pair) -> None:
    serve(
        pair, "/old", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked([b"old", b" friend"])
    )
    with pair.client() as client:
        client.send(b"GET /old HTTP/1.0\r\nHost: a\r\n\r\n")
        response = client.read_response()
        assert response.framing in ("close", "length") and response.body == b"old friend"
        client.expect_closed()


def test_an_http_1_0_client_with_keep_alive(pair: Pair) -> None:
    with pair.client() as client:
        for _ in range(3):
            client.send(b"GET /old-keep HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            response = client.read_response()
            assert response.framing == "length" and "keep-alive" in response.headers.tokens("Connection")


def test_an_http_1_0_client_without_host(pair: Pair) -> None:
    with pair.client() as client:
        client.send(b"GET /no-host HTTP/1.0\r\n\r\n")
        assert client.read_response().status == 200


def test_an_http_1_0_upstream(pair: Pair) -> None:
    target = serve(pair, "/up-10", b"HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nuntil close", close=True)
    with pair.client() as client:
        response = client.request(target=target)
        assert (response.body, response.headers["X-Old"]) == (b"until close", "1")
    serve(pair, "/up-10-length", b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", close=True)
    with pair.client() as client:
        assert client.request(target="/up-10-length").body == b"abc"
        assert client.request(target="/next").status == 200


def test_absolute_form(pair: Pair) -> None:
    with pair.client() as client:
        client.send(b"GET http://test.example/abs?q=1 HTTP/1.1\r\nHost: test.example\r\n\r\n")
        seen = json.loads(client.read_response().body)
        assert seen["start"] == "GET /abs?q=1 HTTP/1.1"
        assert ["Host", "test.example"] in seen["fields"]


def test_options_asterisk(pair: Pair) -> None:
    with pair.client() as client:
        client.send(b"OPTIONS * HTTP/1.1\r\nHost: test.example\r\n\r\n")
        assert json.loads(client.read_response().body)["start"] == "OPTIONS * HTTP/1.1"


# --- connections ----------------------------------------------------------------------------


def test_connection_close_of_the_client_is_obeyed(pair: Pair) -> None:
    with pair.client() as client:
        response = client.request(fields=[("Connection", "close")])
        assert response.status == 200 and not response.keeps_open
        client.expect_closed()


def test_connection_close_of_the_origin_stays_there(pair: Pair) -> None:
    """It is hop by hop: the client's connection lives on."""
    target = serve(
        pair, "/c", b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", close=True
    )
    with pair.client() as client:
        for _ in range(3):
            response = client.request(target=target)
            assert response.body == b"ok" and response.keeps_open


def test_pipelined_requests_are_answered_in_order(pair: Pair) -> None:
    release = threading.Event()

    def slow(connection: Connection, _head: Head) -> None:
        connection.wait(release)
        connection.answer(body=b"slow")

    pair.origin.on("/slow", slow)
    with pair.client() as client:
        head = "GET {} HTTP/1.1\r\nHost: a\r\n\r\n"
        targets = ["/slow", *(f"/p{number}" for number in range(40))]
        client.send("".join(head.format(target) for target in targets).encode())
        wait_until(lambda: pair.origin.requests_for("/slow"), "the first request arrived")
        release.set()
        assert client.read_response().body == b"slow"
        for target in targets[1:]:
            assert json.loads(client.read_response().body)["start"] == f"GET {target} HTTP/1.1"


def test_pipelined_requests_with_bodies(pair: Pair) -> None:
    with pair.client() as client:
        raw = b""
        for number in range(10):
            body = b"%d" % number * 50
            raw += b"POST /body%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (
                number,
                len(body),
                body,
            )
            raw += b"POST /chunk%d HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" % number
            raw += chunked([body])
        client.send(raw)
        for number in range(10):
            for kind in ("body", "chunk"):
                seen = json.loads(client.read_response().body)
                assert seen["start"] == f"POST /{kind}{number} HTTP/1.1"
                assert seen["sha256"] == sha256(b"%d" % number * 50)


def test_keep_alive_for_many_requests(pair: Pair) -> None:
    before = len(pair.origin.connections)
    with pair.client() as client:
        for number in range(500):
            assert (
                json.loads(client.request(target=f"/k{number}").body)["start"] == f"GET /k{number} HTTP/1.1"
            )
    assert len(pair.origin.connections) - before <= 1, "upstream connections were not reused"


def test_a_client_may_end_its_sending_side(pair: Pair) -> None:
    """Half-close after the request: the answer still comes."""
    gate = threading.Event()

    def script(connection: Connection, _head: Head) -> None:
        connection.wait(gate)
        connection.answer(body=b"after FIN")

    pair.origin.on("/half", script)
    with pair.client() as client:
        client.send_request(target="/half")
        client.end_sending()
        wait_until(lambda: pair.origin.requests_for("/half"), "the request arrived")
        gate.set()
        assert client.read_response().body == b"after FIN"


def test_an_answer_that_is_cut_is_never_whole(pair: Pair) -> None:
    """The origin hangs up in the middle: the client must be able to tell."""
    cases = {
        "/cut-length": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
        "/cut-chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "/cut-in-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
        "/cut-last-chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    }
    for target, raw in cases.items():
        serve(pair, target, raw, close=True)
        with RawClient(pair.address) as client:
            client.send_request(target=target)
            try:
                response = client.read_response()
            except (Closed, ConnectionResetError):
                continue
            assert response.status == 502, f"{target}: a shortened answer passed for a whole one"
