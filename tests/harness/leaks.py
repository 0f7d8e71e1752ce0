"""What a node holds while nothing happens: it must be the same before and after a test."""

from dataclasses import dataclass
from typing import Any

from tests.harness.nodes import Node
from tests.harness.waiting import wait_until


@dataclass
class Held:
    """Counts of one node at rest."""

    descriptors: int
    streams: int
    connections: int
    memory: dict[str, int]


def held(node: Node) -> Held:
    status = node.status()
    return Held(
        node.process.descriptors(),
        sum(_numbers(status, "streams")),
        sum(_numbers(status.get("external", []), "connections")),
        {key: value for key, value in status["memory"].items() if isinstance(value, int)},
    )


def _numbers(value: Any, key: str) -> list[int]:
    """Every whole number under this key, at any depth."""
    if isinstance(value, dict):
        own = [number for name, number in value.items() if name == key and isinstance(number, int)]
        return own + [number for each in value.values() for number in _numbers(each, key)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each, key)]
    return []


class Leaks:
    """Take a baseline of some nodes, later `check` that they came back to it.

    Idle pooled upstream connections are allowed: at most `pooled` descriptors per node more.
    """

    def __init__(self, *nodes: Node, pooled: int = 64) -> None:
        self._pooled = pooled
        self._before = [(node, held(node)) for node in nodes]

    def check(self) -> None:
        for node, before in self._before:
            wait_until(lambda: self._returned(node, before), f"{node.name} holds what it held: {before}")  # noqa: B023

    def _returned(self, node: Node, before: Held) -> bool:
        now = held(node)
        grown = [
            key for key in ("buffers", "buffer_bytes") if now.memory.get(key, 0) > before.memory.get(key, 0)
        ]
        return (
            now.descriptors <= before.descriptors + self._pooled
            and now.streams <= before.streams
            and now.connections <= before.connections
            and not grown
        )
