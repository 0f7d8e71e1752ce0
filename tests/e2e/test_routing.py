"""Which service takes a request: hosts, paths, local before delegated, many agents, many ports."""

import json
from contextlib import ExitStack

import pytest

from tests.harness.client import RawClient, fetch
from tests.harness.nodes import World, loopback
from tests.harness.peer import HandAgent
from tests.harness.waiting import wait_equal, wait_until

pytestmark = pytest.mark.quick


def origin_of(address: tuple[str, int], target: str, host: str = "test.example") -> str:
    """The name of the origin that answered, or the status and code of a node's own answer."""
    response = fetch(address, target, host=host)
    if response.status == 200:
        return str(json.loads(response.body)["origin"])
    return f"{response.status} {response.headers.get('Broker-Error')}"


# host, target, who answers
TABLE = [
    ("a.example", "/", "a"),
    ("A.EXAMPLE", "/x", "a"),
    ("a.example:1234", "/x", "a"),
    ("a.example", "/api", "a-api"),
    ("a.example", "/api/", "a-api"),
    ("a.example", "/api/deep/er", "a-api"),
    ("a.example", "/api?x=/other", "a-api"),
    ("a.example", "/apiary", "a"),
    ("a.example", "/API", "a"),
    ("a.example", "/api/v2", "a-api-v2"),
    ("a.example", "/api/v2/x", "a-api-v2"),
    ("a.example", "/api/v20", "a-api"),
    ("b.wild.example", "/", "wild"),
    ("c.b.wild.example", "/", "wild"),
    ("wild.example", "/", "404 no-service"),
    ("exact.wild.example", "/", "exact"),
    ("other.example", "/common/x", "common"),
    ("a.example", "/common/x", "a"),
    ("other.example", "/", "404 no-service"),
    ("other.example", "/commons", "404 no-service"),
]
SERVICES = {
    "a": "a.example",
    "a-api": "a.example/api",
    "a-api-v2": "a.example/api/v2",
    "wild": "*.wild.example",
    "exact": "exact.wild.example",
    "common": "/common",
}


@pytest.mark.parametrize("place", ["delegated", "local"])
def test_the_table_of_services(world: World, place: str) -> None:
    """Hosts before wildcards before none; the longest path, on segment boundaries; the same at both ends."""
    services = [
        {"match": match, "upstream": world.origin(name).url} for name, match in reversed(SERVICES.items())
    ]
    if place == "local":
        dmz = world.dmz({"services": services})
    else:
        dmz = world.dmz()
        world.agent(dmz.registration_url(), services)
    for host, target, expected in TABLE:
        assert origin_of(dmz.external, target, host) == expected, f"{host}{target}"


def test_local_before_delegated(world: World) -> None:
    local, green = world.origin("local"), world.origin("green")
    dmz = world.dmz({"services": [{"match": "a.example/status", "upstream": local.url}]})
    world.agent(dmz.registration_url(), [{"match": "a.example", "upstream": green.url}])
    assert origin_of(dmz.external, "/status", "a.example") == "local"
    assert origin_of(dmz.external, "/status/x", "a.example") == "local"
    assert origin_of(dmz.external, "/statusx", "a.example") == "green"
    assert origin_of(dmz.external, "/", "a.example") == "green"


def test_a_keep_alive_connection_changes_services(world: World) -> None:
    one, two, local = world.origin("one"), world.origin("two"), world.origin("local")
    dmz = world.dmz({"services": [{"match": "/local", "upstream": local.url}]})
    world.agent(
        dmz.registration_url(),
        [{"match": "/one", "upstream": one.url}, {"match": "/two", "upstream": two.url}],
    )
    with RawClient(dmz.external) as client:
        for name in ["one", "two", "local", "missing", "two", "one", "missing", "local"]:
            response = client.request(target=f"/{name}")
            assert response.status == (404 if name == "missing" else 200)
            if name != "missing":
                assert json.loads(response.body)["origin"] == name


def test_several_agents_share_a_service(world: World) -> None:
    """Held requests go to the least loaded: both get half of them. One leaves: the other has all."""
    import threading

    gate = threading.Event()
    origins = [world.origin("first"), world.origin("second")]
    for origin in origins:
        origin.on("/held", lambda connection, _: (connection.wait(gate), connection.answer())[-1])
    dmz = world.dmz()
    agents = [world.agent(dmz.registration_url(), [{"match": "/", "upstream": each.url}]) for each in origins]
    dmz.wait_agents(2)
    clients = [dmz.client() for _ in range(20)]
    for client in clients:
        client.send_request(target="/held")
    wait_equal(lambda: sum(len(origin.requests_for("/held")) for origin in origins), 20)
    counts = [len(origin.requests_for("/held")) for origin in origins]
    gate.set()
    for client in clients:
        assert client.read_response().status == 200
        client.close()
    assert counts == [10, 10]
    agents[0].stop()
    dmz.wait_agents(1)
    assert {origin_of(dmz.external, "/") for _ in range(10)} == {"second"}


def test_several_services_and_tunnels_of_one_agent(world: World) -> None:
    """Three tunnels carry all services; requests that are held spread over them."""
    names = ["orders", "users", "stock"]
    dmz = world.dmz()
    world.agent(
        dmz.registration_url(),
        [{"match": f"{name}.example", "upstream": world.origin(name).url} for name in names],
        tunnels=3,
    )
    dmz.wait_agents(3)
    for name in names:
        assert origin_of(dmz.external, "/", f"{name}.example") == name
    assert origin_of(dmz.external, "/", "none.example") == "404 no-service"


def test_one_agent_serves_several_dmz_nodes(world: World) -> None:
    origin = world.origin("shared")
    nodes = [world.dmz(name=f"dmz-{index}") for index in range(3)]
    world.agent([node.registration_url() for node in nodes], [{"match": "/", "upstream": origin.url}])
    for node in nodes:
        node.wait_agents(1)
        assert origin_of(node.external, "/") == "shared"
    nodes[0].stop()
    assert [origin_of(node.external, "/") for node in nodes[1:]] == ["shared", "shared"]


def test_external_and_registration_ports_in_pairs(world: World) -> None:
    """Two departments in one DMZ node: what registers at one port is not reached from the other's."""
    dmz = world.dmz(
        {
            "external": [
                {"name": "web-a", "listen": loopback(), "registration": "green-a"},
                {"name": "web-b", "listen": loopback(), "registration": "green-b"},
                {"name": "web-b2", "listen": loopback(host="::1"), "registration": "green-b"},
            ],
            "registration": [
                {"name": "green-a", "listen": loopback()},
                {"name": "green-b", "listen": loopback()},
            ],
        }
    )
    one, two = world.origin("one"), world.origin("two")
    world.agent(dmz.registration_url(0), [{"match": "/", "upstream": one.url}], name="agent-a")
    assert origin_of(dmz.external_at(0), "/") == "one"
    assert origin_of(dmz.external_at(1), "/") == "404 no-service"
    world.agent(dmz.registration_url(1), [{"match": "/", "upstream": two.url}], name="agent-b")
    assert [origin_of(dmz.external_at(index), "/") for index in range(3)] == ["one", "two", "two"]


def test_a_node_that_serves_local_services_only(world: World) -> None:
    origin = world.origin("only")
    dmz = world.dmz({"registration": [], "services": [{"match": "/", "upstream": origin.url}]})
    assert origin_of(dmz.external, "/") == "only"


@pytest.mark.parametrize("place", ["delegated", "local"])
def test_families_of_upstreams(world: World, place: str) -> None:
    origins = [world.origin(family, family=family) for family in ("tcp", "tcp6", "unix")]
    services = [{"match": f"{origin.name}.example", "upstream": origin.url} for origin in origins]
    dmz = world.dmz({"services": services} if place == "local" else None)
    if place == "delegated":
        world.agent(dmz.registration_url(), services)
    for origin in origins:
        with RawClient(dmz.external, f"{origin.name}.example") as client:
            for _ in range(3):
                assert json.loads(client.request("POST", "/", body=b"hello").body)["origin"] == origin.name
        assert len(origin.connections) == 1


def test_ipv6_everywhere(world: World) -> None:
    origin = world.origin("six", family="tcp6")
    dmz = world.dmz(
        {
            "external": [{"name": "web", "listen": loopback(host="::1")}],
            "registration": [{"name": "green", "listen": loopback(host="::1")}],
            "admin": {"listen": loopback(host="::1")},
        }
    )
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": origin.url}])
    assert origin_of(dmz.external, "/") == "six"


def test_an_upstream_by_name(world: World) -> None:
    origin = world.origin("named")
    dmz = world.dmz()
    world.agent(dmz.registration_url(), [{"match": "/", "upstream": f"http://localhost:{origin.port}"}])
    assert origin_of(dmz.external, "/") == "named"


def test_a_service_that_is_announced_later(world: World) -> None:
    """A reload of the agent announces what was added and withdraws what was removed."""
    one, two = world.origin("one"), world.origin("two")
    dmz = world.dmz()
    agent = world.agent(dmz.registration_url(), [{"match": "/one", "upstream": one.url}])
    assert origin_of(dmz.external, "/two") == "404 no-service"
    agent.write({**agent.config, "services": [{"match": "/two", "upstream": two.url}]})
    assert agent.admin_post("/reload").status == 200
    wait_until(lambda: origin_of(dmz.external, "/two") == "two", "the new service is announced")
    wait_until(lambda: origin_of(dmz.external, "/one").startswith("404"), "the old service is withdrawn")


def test_a_new_service_is_reached_as_soon_as_its_agent_is_registered(world: World) -> None:
    """Also while the table pauses, because there are many services and making it takes long."""
    dmz = world.dmz({"timeouts": {"agent_wait": "30s"}})
    many = [[{"match": f"s{agent}-{number}.example"} for number in range(1000)] for agent in range(8)]
    with ExitStack() as stack:
        for services in many:
            stack.enter_context(HandAgent(dmz.registration_at(), services))
        # Agents may still be on their way from before: until that is over, what is unknown waits in any case.
        assert dmz.fetch("/", host="nobody.example").status == 404
        for number in range(5):
            host = f"new-{number}.example"
            agent = stack.enter_context(HandAgent(dmz.registration_at(), [{"match": host}]))
            client = stack.enter_context(RawClient(dmz.external, host))
            client.send_request()
            client.sock.settimeout(1)
            agent.reply(agent.accept()[0], b"at once")
            assert client.read_response().body == b"at once"
        assert dmz.fetch("/", host="nobody.example").status == 404
