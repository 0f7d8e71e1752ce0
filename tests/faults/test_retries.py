"""What is sent again, and what never is: by the fact of its delivery, and by what is still at hand of it."""

import socket

import pytest

from tests.harness.client import RawClient, connect, request_head
from tests.harness.nodes import DmzNode, World, everything, loopback
from tests.harness.origin import pattern, sha256
from tests.harness.peer import DATA, GOAWAY, OPEN, RESET, HandAgent, frame, parse_open, reset_payload
from tests.harness.problems import assert_problem

REFUSED, NEVER_SENT = 4, 0
BODY = pattern(12_000)
pytestmark = pytest.mark.quick


def dmz_with_hand_agent(world: World) -> tuple[DmzNode, HandAgent]:
    dmz = world.dmz({"timeouts": {"agent_wait": "20s"}})
    return dmz, HandAgent(dmz.registration_at(), [{"match": "/"}])


def take_body(agent: HandAgent, size: int) -> int:
    """Read a request's OPEN and so much of its body; the stream's id."""
    got = agent.expect(OPEN)
    body = parse_open(got.payload)[2]
    while len(body) < size:
        body += agent.expect(DATA).payload
    assert body == BODY[:size]
    return got.stream


def send(client: RawClient, method: str, first: int | None, size: int = len(BODY)) -> None:
    """A request whose body's first bytes come with its head, or (None) all of them."""
    head = request_head(method, "/", [("Host", "a"), ("Content-Length", str(size))])
    client.send(head + BODY[: size if first is None else first])


@pytest.mark.parametrize("method", ["POST", "PUT"])
@pytest.mark.parametrize("first", [None, 0, 5000], ids=["with its head", "behind its head", "in pieces"])
def test_what_was_never_sent_goes_elsewhere(world: World, method: str, first: int | None) -> None:
    dmz, hand = dmz_with_hand_agent(world)
    origin = world.origin()
    with dmz.client() as client, hand:
        send(client, method, first)
        if first is not None:
            stream = take_body(hand, first)  # some of it had left already
            client.send(BODY[first:-1])
        stream = take_body(hand, len(BODY)) if first is None else stream
        leaving = frame(GOAWAY, 0, bytes(4))  # else it would be asked again
        hand.send(leaving + frame(RESET, stream, reset_payload(REFUSED, NEVER_SENT)))
        hand.close()
        world.agent(dmz.registration_url(), [everything(origin)])
        if first is not None:
            client.send(BODY[-1:])
        answer = client.read_response()
    assert answer.status == 200, answer.body
    assert sha256(BODY).encode() in answer.body, "all of it arrived"
    assert len(origin.requests_for("/")) == 1


@pytest.mark.parametrize("first", [None, 5000], ids=["with its head", "in pieces"])
def test_what_may_have_been_sent_goes_elsewhere_where_it_may_be_repeated(
    world: World, first: int | None
) -> None:
    dmz, hand = dmz_with_hand_agent(world)
    origin = world.origin()
    with dmz.client() as client:
        send(client, "PUT", first)
        take_body(hand, len(BODY) if first is None else first)
        hand.reset()
        world.agent(dmz.registration_url(), [everything(origin)])
        if first is not None:
            client.send(BODY[first:])
        answer = client.read_response()
    assert answer.status == 200, answer.body
    assert sha256(BODY).encode() in answer.body


@pytest.mark.parametrize("first", [None, 0], ids=["with its head", "behind its head"])
def test_a_post_that_may_have_been_sent_is_not_repeated(world: World, first: int | None) -> None:
    dmz, hand = dmz_with_hand_agent(world)
    origin = world.origin()
    world.agent(dmz.registration_url(), [{"match": "other.example", "upstream": origin.url}])
    with dmz.client() as client:
        send(client, "POST", first)
        if first is not None:
            client.send(BODY)
        take_body(hand, len(BODY))
        hand.reset()
        assert_problem(client.read_response(), 502, "tunnel-lost", "maybe-sent")
    assert origin.requests == []


def test_a_body_that_is_not_at_hand_is_not_repeated(world: World) -> None:
    """12,000 of 100,000 bytes have left: an idempotent request, too, is told that it may have arrived."""
    dmz, hand = dmz_with_hand_agent(world)
    with dmz.client() as client:
        send(client, "PUT", len(BODY), 100_000)
        take_body(hand, len(BODY))
        hand.reset()
        assert_problem(client.read_response(), 502, "tunnel-lost", "maybe-sent")


@pytest.mark.parametrize("early", [b"", b"early"], ids=["silent", "spoke"])
def test_a_tcp_connection_that_was_never_passed_on_goes_elsewhere(world: World, early: bytes) -> None:
    """As long as all that its client has sent is at hand: nothing."""
    port = {"name": "echo", "listen": loopback("tcp", rest="/echo")}
    dmz = world.dmz({"external": [port], "timeouts": {"agent_wait": "20s"}})
    hand = HandAgent(dmz.registration_at(), [{"name": "echo"}])
    with socket.create_server(("127.0.0.1", 0)) as server, hand, connect(dmz.external) as client:
        stream, _, _ = hand.accept()
        if early:
            client.sendall(early)
            assert hand.expect(DATA).payload == early
        hand.send(frame(GOAWAY, 0, bytes(4)) + frame(RESET, stream, reset_payload(REFUSED, NEVER_SENT)))
        if early:
            with pytest.raises(ConnectionResetError):
                client.recv(1)
            return
        upstream = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        world.agent(dmz.registration_url(), [{"name": "echo", "upstream": upstream}])
        client.sendall(b"hello")
        served, _ = server.accept()
        with served:
            assert served.recv(100) == b"hello"
