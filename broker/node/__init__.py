"""The running node: start, serve, shutdown, and reload in between.

run(config) -> int       what `broker serve` and `broker connect` do
"""

from broker.node.node import Node
from broker.node.process import run

__all__ = ["Node", "run"]
