"""Options and marks for all tests."""

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

import _fastpath

# How long one example takes says nothing on a machine that others use too.
settings.register_profile("broker", deadline=None)
settings.load_profile("broker")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    # scripts/test says which build it means to test.
    place = Path(_fastpath.__file__).parent
    build = os.environ.get("BROKER_BUILD", "")
    expected = config.rootpath if build == "release" else config.rootpath / "build" / build
    if build and place != expected / "_fastpath":
        pytest.exit(f"the tests of the {build} build would run on {place}", returncode=4)
    # A shell starts what runs in its background with SIGINT ignored, and what the tests start inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if {"e2e", "faults"} & set(item.path.parts):
            item.add_marker(pytest.mark.e2e)
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="slow: run with --slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)
