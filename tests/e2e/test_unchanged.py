"""Every exchange of tests/unchanged.py without the broker, through a tunnel, and to a local service.

All are the same; what may differ is listed here.
"""

import threading
from dataclasses import dataclass, field

import pytest

from tests.harness.client import RawClient
from tests.harness.message import Head, Headers, Response, read_response
from tests.harness.nodes import World
from tests.harness.origin import Connection, Origin
from tests.harness.waiting import DEADLINE
from tests.unchanged import EXCHANGES, Exchange

Fields = list[tuple[str, str]]

# RFC 9110 7.6.1: these, and what Connection names, belong to one hop. Framing is compared by its effect.
HOP = {"connection", "keep-alive", "te", "transfer-encoding", "upgrade", "proxy-connection"}
# What each node says of a request (RFC 9110 7.6.3, RFC 7239).
SAID = {"via", "forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"}


@dataclass
class Seen:
    """What arrived at one end."""

    start: str = ""
    fields: Fields = field(default_factory=list)
    body: bytes = b""
    trailers: Fields = field(default_factory=list)


class Recorder:
    """The service: answers as the exchange says, and keeps what it was asked."""

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.exchange = EXCHANGES[0]
        self.seen = Seen()
        self.asked = threading.Event()
        origin.default = self.script

    def script(self, connection: Connection, head: Head) -> bool:
        if self.exchange.waits:
            connection.send(self.exchange.answer)
        body, trailers = connection.read_body(head)
        self.seen = Seen(head.start, head.headers.fields, body.data, trailers.fields)
        if not self.exchange.waits:
            connection.send(self.exchange.answer)
        self.asked.set()
        return self.exchange.closes


def ask(recorder: Recorder, exchange: Exchange, address: tuple[str, int]) -> tuple[Seen, Response]:
    """What the service has received and what the client has."""
    recorder.exchange = exchange
    recorder.asked.clear()
    method = exchange.request.split(b" ")[0].decode()
    with RawClient(address) as client:
        client.send(exchange.request)
        response = read_response(client.reader, method)
    assert recorder.asked.wait(DEADLINE)
    return recorder.seen, response


def bare(headers: Fields, *others: str) -> Fields:
    """Without what belongs to the hop, and `others`."""
    named = Headers(headers).tokens("Connection")
    drop = HOP | set(named) | set(others)
    return [(name, value) for name, value in headers if name.lower() not in drop]


@dataclass
class Places:
    recorder: Recorder
    direct: tuple[str, int]
    through: dict[str, tuple[str, int]]


@pytest.fixture(scope="module")
def places(module_world: World) -> Places:
    pair = module_world.pair()
    recorder = Recorder(pair.origin)
    local = module_world.dmz({"services": [{"match": "/", "upstream": pair.origin.url}]})
    assert isinstance(pair.origin.address, tuple)
    return Places(recorder, pair.origin.address, {"tunnel": pair.dmz.external, "local": local.external})


@pytest.mark.parametrize("exchange", EXCHANGES, ids=[each.what for each in EXCHANGES])
def test_the_same_as_without_the_broker(places: Places, exchange: Exchange) -> None:
    sent, got = ask(places.recorder, exchange, places.direct)
    for way, address in places.through.items():
        arrived, received = ask(places.recorder, exchange, address)
        request_is_the_same(sent, arrived, way)
        response_is_the_same(got, received, way)


def request_is_the_same(sent: Seen, arrived: Seen, way: str) -> None:
    method, target, _ = sent.start.split(" ")
    if target.startswith("http://"):  # RFC 9112 3.2.2: the next hop is a server
        target = "/" + target.removeprefix("http://").partition("/")[2]
    assert arrived.start == f"{method} {target} HTTP/1.1", way
    # An id that is sane is kept; one that the node makes is no difference to be compared.
    added = SAID - {name.lower() for name, _ in sent.fields}
    assert {name.lower() for name, _ in arrived.fields} >= SAID, way
    assert bare(arrived.fields, *added) == bare(sent.fields), way
    assert (arrived.body, arrived.trailers) == (sent.body, sent.trailers), way


def response_is_the_same(got: Response, received: Response, way: str) -> None:
    assert (received.status, received.reason, received.minor) == (got.status, got.reason, 1), way
    assert received.body == got.body, way
    assert received.trailers.fields == got.trailers.fields, way
    via = received.headers.all("Via")
    assert via and via[-1].split(", ")[-1].startswith("1.1 "), way
    assert bare(received.headers.fields, "via") == bare(got.headers.fields, "via"), way
    assert [(each.status, bare(each.headers.fields)) for each in received.interim] == [
        (each.status, bare(each.headers.fields)) for each in got.interim
    ], way


def test_the_comparison_sees_a_difference(places: Places) -> None:
    """Of body, start line and fields, both ways."""
    one, two = (
        next(each for each in EXCHANGES if each.what == what) for what in ("body: of PUT", "body: of GET")
    )
    sent, got = ask(places.recorder, one, places.direct)
    other, _ = ask(places.recorder, two, places.through["tunnel"])
    with pytest.raises(AssertionError):
        request_is_the_same(sent, other, "tunnel")
    got.headers.fields.append(("X", "y"))
    _, received = ask(places.recorder, one, places.through["tunnel"])
    with pytest.raises(AssertionError):
        response_is_the_same(got, received, "tunnel")
