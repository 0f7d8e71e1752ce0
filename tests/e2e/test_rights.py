"""What a user may do is asked for every stream: by the DMZ node of its users, by the agent of itself."""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
from collections.abc import Iterator

import pytest

from tests.harness.client import RawClient, reset
from tests.harness.message import Response
from tests.harness.nodes import DmzNode, Snippet, World, loopback
from tests.harness.peer import (
    DATA,
    END,
    OPEN,
    REPLY,
    RESET,
    HandAgent,
    HandNode,
    Link,
    open_payload,
    parse_reset,
    registration_head,
    stream_id,
)
from tests.harness.waiting import Timer, wait_equal

FORBIDDEN, BODY_TOO_LARGE, UPSTREAM_TIMEOUT = 8, 12, 19
NEVER_SENT = 0


def token_of(user: str) -> str:
    return f"broker_the-token-of-{user}-in-the-tests"


def users(**may: Snippet) -> Snippet:
    def digest(name: str) -> str:
        return "sha256:" + hashlib.sha256(token_of(name).encode()).hexdigest()

    return {"users": [{"name": name, "tokens": [digest(name)], "may": each} for name, each in may.items()]}


def agent_of(node: DmzNode, user: str, *matches: str) -> HandAgent:
    services = [{"match": match} for match in matches]
    return HandAgent(node.registration_at(), services, token=token_of(user))


def reload(node: DmzNode, config: Snippet) -> None:
    node.write({**node.config, **config})
    assert node.admin_post("/reload").status == 200


def code_of(response: Response) -> tuple[int, str]:
    return response.status, response.headers["Broker-Error"]


@pytest.fixture
def silent() -> Iterator[str]:
    """An upstream that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


# --- the DMZ node -------------------------------------------------------------------------------


def test_a_right_that_is_taken_away_ends_what_runs(world: World) -> None:
    node = world.dmz(users(orders={"services": ["a.example", "b.example"]}))
    with (
        agent_of(node, "orders", "a.example", "b.example") as agent,
        node.client(host="a.example") as lost,
        node.client(host="b.example") as kept,
    ):
        lost.send_request("GET", "/")
        first, _, _ = agent.accept()
        kept.send_request("GET", "/")
        second, _, _ = agent.accept()
        reload(node, users(orders={"services": ["b.example"]}))
        assert code_of(lost.read_response()) == (403, "forbidden")
        told = agent.expect(RESET)
        assert (told.stream, parse_reset(told.payload)[0]) == (first, FORBIDDEN)
        assert "taken away" in parse_reset(told.payload)[2]
        agent.reply(second, b"still here")
        assert kept.read_response().body == b"still here"
        assert code_of(node.fetch(host="a.example")) == (404, "no-service")
        assert [each["services"] for each in node.status()["tunnels"]] == [["b.example/"]]


def test_a_right_to_tcp_that_is_taken_away_cuts_connections(world: World) -> None:
    port = {"name": "db", "listen": loopback("tcp", rest="/db")}
    config = users(orders={"services": ["a.example"], "tcp": ["db"]})
    node = world.dmz({**config, "external": [{"name": "web", "listen": loopback()}, port]})
    services = [{"name": "db"}, {"match": "a.example"}]
    with (
        HandAgent(node.registration_at(), services, token=token_of("orders")) as agent,
        RawClient(node.external_at(1)) as client,
    ):
        client.send(b"hello")
        stream = agent.expect(OPEN).stream
        agent.expect(DATA)
        reload(node, users(orders={"services": ["a.example"]}))
        told = agent.expect(RESET)
        assert (told.stream, parse_reset(told.payload)[0]) == (stream, FORBIDDEN)
        with pytest.raises(ConnectionError):
            client.sock.recv(100)


def running(node: DmzNode) -> int:
    return sum(each["streams"] for each in node.status()["tunnels"])


def test_streams_count_over_all_tunnels_of_a_user(world: World, silent: str) -> None:
    def limited(streams: int) -> Snippet:
        return users(orders={"services": ["a.example"], "streams": streams})

    node = world.dmz(limited(2))
    file = world.directory / "orders.token"
    file.write_text(token_of("orders"))
    file.chmod(0o600)
    connect = [{"url": node.registration_url(), "tunnels": 2, "token_file": str(file)}]
    service = {"match": "a.example", "upstream": silent}
    world.agent(node.registration_url(), [service], extra={"connect": connect})
    node.wait_agents(2)
    with contextlib.ExitStack() as stack:

        def ask() -> RawClient:
            client = stack.enter_context(node.client(host="a.example"))
            client.send_request("GET", "/")
            return client

        first, _ = ask(), ask()
        wait_equal(lambda: running(node), 2)
        assert code_of(node.fetch(host="a.example")) == (503, "overloaded")
        reset(first.sock)
        wait_equal(lambda: running(node), 1)
        ask()
        wait_equal(lambda: running(node), 2, "the third took the place of the first")
        assert code_of(node.fetch(host="a.example")) == (503, "overloaded")
        reload(node, limited(3))
        ask()
        wait_equal(lambda: running(node), 3, "a reload allows one more")
        assert code_of(node.fetch(host="a.example")) == (503, "overloaded")


def refusal_of(node: DmzNode, user: str, match: str) -> Snippet:
    """Why this user may not have the service."""
    with RawClient(node.registration_at()) as client:
        client.send(registration_head("a", [{"match": match}], token=token_of(user)))
        told = json.loads(client.read_response().body)
        assert isinstance(told, dict)
        return told


def test_a_part_of_what_another_user_has(world: World) -> None:
    """Who has a right as wide, or wider, can't take single paths; a right to the part alone grants it."""
    node = world.dmz(
        users(
            orders={"services": ["a.example"]},
            thief={"services": ["*.example", "a.example"]},
            part={"services": ["a.example/reports"]},
        )
    )
    with agent_of(node, "orders", "a.example"):
        for match in ("a.example", "a.example/login"):
            told = refusal_of(node, "thief", match)
            assert (told["status"], told["code"]) == (409, "conflict"), told
            assert "taken by another user" in told["detail"] and "orders" not in told["detail"]
        with agent_of(node, "part", "a.example/reports"):
            owners = {each["service"]: each["user"] for each in node.status()["services"]}
            assert owners == {"a.example/": "orders", "a.example/reports": "part"}
        with agent_of(node, "thief", "*.example"):
            owners = {each["service"]: each["user"] for each in node.status()["services"]}
            assert owners["*.example/"] == "thief"


# --- the agent ----------------------------------------------------------------------------------


def agent_under(world: World, hostile: HandNode, services: list[Snippet]) -> Link:
    """An agent with limits of its own, and the tunnel to a node that has none."""
    agent = world.agent(hostile.url, services, start=False)
    agent.start(ready=False)
    return hostile.accept()


def opened(link: Link, slot: int, head: str, body: bytes = b"", end: bool = True) -> int:
    stream = stream_id(slot, acceptor=True)
    lines = head.replace("\n", "\r\n").encode() + b"\r\n\r\n"
    link.send_frame(OPEN, stream, open_payload(lines, body), END if end else 0)
    return stream


def expect_reset(link: Link, stream: int, code: int) -> int:
    """How far the request had come."""
    told = link.expect(RESET)
    found, delivery, _ = parse_reset(told.payload)
    assert (told.stream, found) == (stream, code)
    return delivery


def test_an_agent_has_a_limit_of_its_own_on_bodies(world: World, silent: str) -> None:
    limits = {"limits": {"body": 1000}}
    services = [{"match": "/", "upstream": silent, **limits}]
    services.append({"match": "/fits", "upstream": world.origin().url, **limits})
    with HandNode() as hostile:
        link = agent_under(world, hostile, services)
        stream = opened(link, 0, "POST / HTTP/1.1\nHost: a\nContent-Length: 1001", end=False)
        assert expect_reset(link, stream, BODY_TOO_LARGE) == NEVER_SENT
        chunked = "POST / HTTP/1.1\nHost: a\nTransfer-Encoding: chunked"
        stream = opened(link, 1, chunked, b"x" * 1001)
        expect_reset(link, stream, BODY_TOO_LARGE)
        stream = opened(link, 2, chunked, b"x" * 500, end=False)
        for size in (500, 1):
            link.send_frame(DATA, stream, b"x" * size)
        expect_reset(link, stream, BODY_TOO_LARGE)
        stream = opened(link, 3, "POST /fits HTTP/1.1\nHost: a\nContent-Length: 1000", b"x" * 1000)
        reply = link.expect(REPLY)
        assert reply.stream == stream and b" 200 " in reply.payload


def test_an_agent_has_time_limits_of_its_own(world: World, silent: str) -> None:
    timeouts = {"total": 1, "idle": 0.3}
    tcp = {"name": "db", "upstream": silent.replace("http://", "tcp://"), "timeouts": {"idle": 0.3}}
    with HandNode() as hostile:
        link = agent_under(world, hostile, [{"match": "/", "upstream": silent, "timeouts": timeouts}, tcp])
        timer = Timer()
        stream = opened(link, 0, "GET / HTTP/1.1\nHost: a")
        expect_reset(link, stream, UPSTREAM_TIMEOUT)
        assert timer.seconds >= 1, "while a response is waited for, only the whole counts"
        timer = Timer()
        stream = opened(link, 1, "POST / HTTP/1.1\nHost: a\nContent-Length: 10", b"x", end=False)
        expect_reset(link, stream, UPSTREAM_TIMEOUT)
        assert timer.seconds >= 0.3
        timer = Timer()
        stream = stream_id(2, acceptor=True)
        link.send_frame(OPEN, stream, open_payload(b"db", b"hello", kind=2))
        expect_reset(link, stream, UPSTREAM_TIMEOUT)
        assert timer.seconds >= 0.3
