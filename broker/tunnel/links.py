"""Small things that both sides do with a tunnel."""

from __future__ import annotations

import asyncio

from _fastpath.tunnel import Tunnel

LOOK_S = 0.05
CODE_OVERLOADED = 5  # end.pxd


def tell(tunnel: Tunnel, payload: bytes) -> None:
    """Send a control message; a tunnel that cannot take it is closed, and the next login starts afresh."""
    try:
        tunnel.send_control(payload)
    except ConnectionError:
        return  # its on_close is on the way
    except ValueError:
        tunnel.close(CODE_OVERLOADED, "the peer does not read its control messages")


def close_when_idle(tunnel: Tunnel, reason: str) -> None:
    """Close the tunnel, on which a GOAWAY came, as soon as its last stream has ended.

    Whoever received the GOAWAY closes: after it the peer opens no more, and all that it opened before has
    arrived. The sender could not know that. It closes only when its deadline has come.
    """
    if not tunnel.alive:
        return
    if tunnel.streams == 0:
        tunnel.close(0, reason)
        return
    asyncio.get_running_loop().call_later(LOOK_S, close_when_idle, tunnel, reason)
