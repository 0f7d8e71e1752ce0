"""Fixtures: worlds of real processes, one per test or one per module."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nodes import Pair, World
from tests.harness.servers import Nginx

TEST_SECONDS = 60
SLOW_SECONDS = 900


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that hangs ends and says where; by a signal, so that its processes are ended too."""
    for item in items:
        if Path(__file__).parent not in item.path.parents:
            continue
        if not item.get_closest_marker("timeout"):
            seconds = SLOW_SECONDS if item.get_closest_marker("slow") else TEST_SECONDS
            item.add_marker(pytest.mark.timeout(seconds, method="signal"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):  # type: ignore[no-untyped-def]
    """What the nodes said goes into the report of a failed test."""
    report = yield
    if report.failed:
        worlds = [value for value in getattr(item, "funcargs", {}).values() if isinstance(value, World)]
        for world in [*worlds, *_module_worlds]:
            report.sections.append(("nodes", world.output))
    return report


_module_worlds: list[World] = []


def _run_world(world: World) -> Iterator[World]:
    try:
        yield world
        world.close()
    finally:
        world.discard()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """Nodes and origins of one test."""
    yield from _run_world(World(tmp_path))


@pytest.fixture(scope="module")
def module_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Nodes and origins that the tests of a module share."""
    world = World(tmp_path_factory.mktemp("world"))
    _module_worlds.append(world)
    try:
        yield from _run_world(world)
    finally:
        _module_worlds.remove(world)


@pytest.fixture(scope="module")
def shared_pair(module_world: World) -> Pair:
    """A DMZ node, an agent and an origin for tests that leave them as they were."""
    return module_world.pair()


@pytest.fixture
def pair(shared_pair: Pair) -> Iterator[Pair]:
    """The module's pair: still alive after the test, with no bad request at the origin."""
    yield shared_pair
    shared_pair.origin.raise_errors()
    for node in (shared_pair.dmz, shared_pair.agent):
        assert node.process.running, node.process.output
        node.process.assert_clean()


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    server = Nginx(tmp_path_factory.mktemp("nginx"))
    yield server
    server.close()
