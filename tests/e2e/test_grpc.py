"""gRPC, which is HTTP/2: through tcp and tls ports, whose bytes nobody reads."""

from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from tests.harness.certificates import Authority
from tests.harness.nodes import World, loopback

MIB = 1 << 20


def echo(request: bytes, _context: grpc.ServicerContext) -> bytes:
    return request


def count(request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
    for number in range(int(request)):
        yield b"%d" % number


def both(requests: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
    for request in requests:
        yield request.upper()


METHODS = {
    "Echo": grpc.unary_unary_rpc_method_handler(echo),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Both": grpc.stream_stream_rpc_method_handler(both),
}
LARGE = [("grpc.max_receive_message_length", 64 * MIB)]


def grpc_server(credentials: grpc.ServerCredentials | None = None) -> tuple[grpc.Server, int]:
    server = grpc.server(futures.ThreadPoolExecutor(8), options=LARGE)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", METHODS),))
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    return server, port


def exercise(channel: grpc.Channel) -> None:
    """Unary, streams of the server and of both, large messages, deadlines, and status codes."""
    call = channel.unary_unary("/test.Service/Echo")
    assert call(b"hello", timeout=20) == b"hello"
    assert call(b"x" * (16 * MIB), timeout=30) == b"x" * (16 * MIB)
    numbers = list(channel.unary_stream("/test.Service/Count")(b"500", timeout=20))
    assert numbers == [b"%d" % n for n in range(500)]
    words = [b"one", b"two", b"three"]
    assert list(channel.stream_stream("/test.Service/Both")(iter(words), timeout=20)) == [
        w.upper() for w in words
    ]
    pending = [call.future(b"%d" % n, timeout=20) for n in range(200)]
    assert [each.result() for each in pending] == [b"%d" % n for n in range(200)]
    with pytest.raises(grpc.RpcError) as failed:
        channel.unary_unary("/test.Service/Missing")(b"", timeout=20)
    assert failed.value.code() == grpc.StatusCode.UNIMPLEMENTED


def test_grpc_over_a_tcp_port(world: World) -> None:
    server, upstream = grpc_server()
    try:
        dmz = world.dmz({"external": [{"name": "tcp", "listen": loopback("tcp", rest="/grpc")}]})
        world.agent(dmz.registration_url(), [{"name": "grpc", "upstream": f"tcp://127.0.0.1:{upstream}"}])
        port = dmz.external[1]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options=LARGE) as channel:
            exercise(channel)
    finally:
        server.stop(None).wait()


def test_grpc_over_a_tls_port(world: World) -> None:
    """The service's own certificate, seen by the client: the nodes only read the name it asks for."""
    authority = Authority(world.directory)
    files = authority.issue("grpc.example")
    pair = (files.key.read_bytes(), files.cert.read_bytes())
    server, upstream = grpc_server(grpc.ssl_server_credentials([pair]))
    try:
        dmz = world.dmz({"external": [{"name": "tls", "listen": loopback("tls")}]})
        services = [{"match": "grpc.example", "upstream": f"tls://127.0.0.1:{upstream}"}]
        world.agent(dmz.registration_url(), services)
        trusted = grpc.ssl_channel_credentials(authority.ca.read_bytes())
        options = [*LARGE, ("grpc.ssl_target_name_override", "grpc.example")]
        with grpc.secure_channel(f"127.0.0.1:{dmz.external[1]}", trusted, options=options) as channel:
            exercise(channel)
    finally:
        server.stop(None).wait()
