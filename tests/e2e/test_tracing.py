"""Tracing of real nodes: spans as a collector gets them over OTLP/HTTP, and how they hang together."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from tests.harness.nodes import Pair, World
from tests.harness.ports import free_port
from tests.harness.waiting import wait_until

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED = f"00-{TRACE}-{PARENT}-01"


class Collector:
    """A receiver of OTLP over HTTP, as far as it is specified for traces in protobuf."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, SpanMessage]] = []  # with the resource's service.instance.id
        self.status = 200
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                assert self.headers["Content-Type"] == "application/x-protobuf"
                if collector.status == 200:
                    collector.take(body)
                self.send_response(collector.status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def take(self, body: bytes) -> None:
        message = ExportTraceServiceRequest.FromString(body)
        for resource in message.resource_spans:
            about = {each.key: each.value.string_value for each in resource.resource.attributes}
            assert about["service.name"] == "broker"
            for scope in resource.scope_spans:
                self.spans += [(about["service.instance.id"], span) for span in scope.spans]

    def wait_for(self, count: int) -> list[SpanMessage]:
        wait_until(lambda: len(self.spans) >= count, f"{count} spans")
        assert len(self.spans) == count
        return [span for _, span in self.spans]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def traced(world: World, endpoint: str, **more: Any) -> Pair:
    config = {"tracing": {"endpoint": endpoint, "sample": 1, **more}}
    return world.pair(dmz=config, agent=config)


def told(span: SpanMessage) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def sent_on(pair: Pair) -> list[str]:
    """The traceparents that the service got with its last request."""
    return pair.origin.requests[-1].headers.all("traceparent")


@pytest.mark.quick
def test_a_span_for_every_hop(world: World, collector: Collector) -> None:
    pair = traced(world, collector.url)
    assert pair.fetch("/a?secret=1", fields=[("traceparent", SAMPLED), ("tracestate", "a=1")]).status == 200
    spans = {told(span)["broker.hop"] + str(span.kind): span for span in collector.wait_for(4)}
    chain = ["client2", "tunnel3", "tunnel2", "upstream3"]  # server, client, server, client
    assert sorted(spans) == sorted(chain)
    parent = bytes.fromhex(PARENT)
    begun = 0
    for name in chain:
        span = spans[name]
        assert span.trace_id == bytes.fromhex(TRACE)
        assert span.parent_span_id == parent
        assert begun <= span.start_time_unix_nano <= span.end_time_unix_nano
        parent, begun = span.span_id, 0 if name == "tunnel3" else span.start_time_unix_nano
        about = told(span)
        assert about["http.request.method"] == "GET"
        assert about["http.response.status_code"] == 200
        assert about["url.path"] == "/a", "queries may hold secrets"
        assert about["broker.service"] == "/"
    assert sent_on(pair) == [f"00-{TRACE}-{spans['upstream3'].span_id.hex()}-01"]
    assert pair.origin.requests[-1].headers.all("tracestate") == ["a=1"]
    assert len({instance for instance, _ in collector.spans}) == 2, "two processes"


def test_one_is_begun(world: World, collector: Collector) -> None:
    """By the first node; the agent goes on with it."""
    pair = traced(world, collector.url)
    pair.fetch("/")
    spans = collector.wait_for(4)
    assert len({span.trace_id for span in spans}) == 1
    assert [span.parent_span_id for span in spans].count(b"") == 1
    (parent,) = sent_on(pair)
    assert parent.startswith(f"00-{spans[0].trace_id.hex()}-")
    pair.fetch("/", fields=[("traceparent", "nonsense"), ("tracestate", "a=1")])
    collector.wait_for(8)
    assert len(sent_on(pair)) == 1
    assert "tracestate" not in pair.origin.requests[-1].headers


def test_what_is_not_sampled_passes_as_it_is(world: World, collector: Collector) -> None:
    pair = traced(world, collector.url)
    unsampled = SAMPLED[:-1] + "0"
    pair.fetch("/", fields=[("traceparent", unsampled)])
    assert sent_on(pair) == [unsampled]
    pair.fetch("/", fields=[("traceparent", SAMPLED)])
    collector.wait_for(4)


def test_without_tracing_fields_pass_as_they_are(pair: Pair) -> None:
    for value in (SAMPLED, "nonsense"):
        pair.fetch("/", fields=[("traceparent", value)])
        assert sent_on(pair) == [value]


def test_a_failure_is_seen(world: World, collector: Collector) -> None:
    pair = traced(world, collector.url)
    pair.origin.close()
    assert pair.fetch("/").status == 502
    wait_until(lambda: pair.dmz.status()["tracing"]["exported"] == 2, "the DMZ node's spans are sent")
    failed = [span for _, span in collector.spans if told(span)["broker.hop"] == "client"]
    assert [(span.status.code, span.status.message) for span in failed] == [
        (2, "the upstream refused the connection")
    ]
    assert told(failed[0])["error.type"] == "upstream-unreachable"


def test_a_receiver_that_fails_stops_nothing(world: World, collector: Collector) -> None:
    collector.status = 400
    pair = traced(world, collector.url)
    for _ in range(10):
        assert pair.fetch("/").status == 200
    wait_until(lambda: pair.dmz.status()["tracing"]["dropped"] == 20, "all are counted")
    assert "400" in pair.dmz.status()["tracing"]["problem"]
    pair.dmz.process.wait_for_line("spans cannot be sent")
    collector.status = 200
    pair.fetch("/")
    wait_until(lambda: pair.dmz.status()["tracing"]["exported"] == 2, "it goes on")
    assert pair.dmz.status()["tracing"]["problem"] == ""


def test_a_receiver_that_is_away_stops_nothing(world: World) -> None:
    """Not even the end: nodes close in time."""
    pair = traced(world, f"http://127.0.0.1:{free_port()}")
    for _ in range(10):
        assert pair.fetch("/").status == 200
    assert pair.dmz.status()["tracing"]["traced"] == 10


def test_a_reload_switches_it(world: World, collector: Collector) -> None:
    pair = world.pair()
    pair.fetch("/")
    assert sent_on(pair) == []
    pair.dmz.write({**pair.dmz.config, "tracing": {"endpoint": collector.url, "sample": 1}})
    assert pair.dmz.admin_post("/reload").status == 200
    pair.fetch("/")
    collector.wait_for(2)
    config = {key: value for key, value in pair.dmz.config.items() if key != "tracing"}
    pair.dmz.write(config)
    assert pair.dmz.admin_post("/reload").status == 200
    pair.fetch("/")
    assert sent_on(pair) == []
    assert pair.dmz.status()["tracing"] is None


def test_with_workers(world: World, collector: Collector) -> None:
    config = {"tracing": {"endpoint": collector.url, "sample": 1}}
    pair = world.pair(dmz={**config, "workers": 2}, agent=config)
    for _ in range(20):
        assert pair.fetch("/").status == 200
    spans = collector.wait_for(80)
    ids = {span.span_id for span in spans}
    assert len(ids) == 80
    orphans = [span for span in spans if span.parent_span_id not in ids]
    assert len(orphans) == 20
    assert {span.parent_span_id for span in orphans} == {b""}
