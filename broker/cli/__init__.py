"""The commands. Each is a file of this package; none decides anything itself.

Nothing heavy is imported before a command runs, so that `broker --help` is quick.
"""

from broker.cli.commands import broker, main

__all__ = ["broker", "main"]
