"""Right after its start a registration port knows no service, and the agents of a node that was restarted are
still on their way. Until they have come, a request for what nobody has announced waits in the lobby, and is
not told that there is no such service.

This ends when no agent has come for a while, or START_S after the start. Later it is so for moments, where a
table with new services is not made at once (directory.py).
"""

from __future__ import annotations

import asyncio

from _fastpath.exchange import Lobby

START_S = 10.0  # a thousand agents are back by then
QUIET_S = 2.5  # longer than an agent pauses between two tries (backoff.py)
LOOK_AGAIN_S = 0.02  # not for each of a thousand agents


class Arrivals:
    """To be made inside the running event loop, when the port opens."""

    def __init__(self, name: str) -> None:
        self.lobby = Lobby(f"the lobby of {name}")
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.TimerHandle | None = None
        self._quiet: asyncio.TimerHandle | None = None
        self._end: asyncio.TimerHandle | None = self._loop.call_later(START_S, self.over)
        self._table_due = False

    def arrived(self) -> None:
        """An agent has registered, here or at another worker: others may follow."""
        if self._end is not None:
            if self._quiet is not None:
                self._quiet.cancel()
            self._quiet = self._loop.call_later(QUIET_S, self.over)

    def await_table(self) -> None:
        """Services have come that are in no table yet. `on_table` follows, soon."""
        self._table_due = True
        self.lobby.open()

    def on_table(self) -> None:
        """There are services that were not there before: who waits is to look again, soon."""
        self._table_due = False
        if self._end is None:
            self.lobby.close()
        elif self._looking is None and self.lobby.waiting:
            self._looking = self._loop.call_later(LOOK_AGAIN_S, self._look)

    def over(self) -> None:
        """What is not known now is not known. May be called again."""
        for timer in (self._looking, self._quiet, self._end):
            if timer is not None:
                timer.cancel()
        self._looking = self._quiet = self._end = None
        if not self._table_due:
            self.lobby.close()

    def _look(self) -> None:
        self._looking = None
        self.lobby.wake()
