"""The admin port of a node that has one.

What serves it is imported here and then: most agents have none, and it would be a quarter of the time that
they take to start and a fifth of their memory.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from broker.config import model
from broker.identity.users import Users

if TYPE_CHECKING:
    from broker.ports.admin import AdminPort, Controls


async def steer(
    port: AdminPort | None,
    config: model.Admin | None,
    users: Users,
    sockets: list[socket.socket] | None,
    controls: Controls,
) -> AdminPort | None:
    """The admin port of this configuration: the same one, another one, or none."""
    if port is None and config is None:
        return None
    from broker.ports.admin import opened

    return await opened(port, config, users, sockets, controls)
