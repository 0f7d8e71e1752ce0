"""The worlds of the end-to-end tests, for tests that break something."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import (  # noqa: F401
    module_world,
    nginx,
    pytest_runtest_makereport,
    shared_pair,
    world,
)
from tests.faults.proxy import FaultProxy
from tests.harness.nodes import DmzNode

TEST_SECONDS = 90


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "faults" in item.path.parts and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(TEST_SECONDS, method="signal"))


class Proxies:
    """Fault proxies of one test."""

    def __init__(self) -> None:
        self.made: list[FaultProxy] = []

    def before(self, dmz: DmzNode, index: int = 0) -> FaultProxy:
        """A proxy in front of a registration port."""
        proxy = FaultProxy(dmz.registration_at(index))
        self.made.append(proxy)
        return proxy


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    made = Proxies()
    yield made
    for proxy in made.made:
        proxy.close()
