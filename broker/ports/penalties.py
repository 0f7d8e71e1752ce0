"""Where logins failed too often, connections are not taken for a while (after OpenSSH's PerSourcePenalties).

Each failure adds seconds to what its network has to wait; waits below a threshold are not enforced, so that
a mistake costs nothing. An IPv6 network is a /64: a host has no fewer addresses. A network from which an
agent is logged in, or was a short while ago, is not punished: behind one address may stand a thousand
agents, and one of them be wrong.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Literal

from broker.config.model import Penalties as Settings

MAX_NETWORKS = 65_536  # that are remembered, of either kind
TRUSTED_S = 600.0  # after an agent's last tunnel has gone

Kind = Literal["failed", "broken", "slow"]


def network_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 /64."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if address.version == 4:
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


class Penalties:
    """Of one registration port. Memory is bounded: the networks punished longest ago are forgotten first."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings = settings
        self._clock = clock
        # network -> when it has atoned, and whether that is enforced: then it is, to its end
        self._until: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._tunnels: Counter[str] = Counter()
        self._left: OrderedDict[str, float] = OrderedDict()  # network -> when its last tunnel went

    @property
    def punished(self) -> int:
        """Networks whose connections are refused now."""
        return len(self.enforced())

    def enforced(self) -> list[tuple[str, float]]:
        """Each network whose connections are refused now, with the seconds that are left of it."""
        now = self._clock()
        return [(each, until - now) for each, (until, on) in self._until.items() if on and until > now]

    def wait(self, network: str) -> float:
        """Seconds for which this network's connections are refused; 0: they are taken."""
        until, enforced = self._until.get(network, (0.0, False))
        return max(until - self._clock(), 0.0) if enforced else 0.0

    def punish(self, network: str, kind: Kind) -> float:
        """Seconds for which the network is refused from now on, where it is."""
        settings = self.settings
        seconds = {"failed": settings.failed, "broken": settings.broken, "slow": settings.slow}[kind]
        if not seconds or self._is_exempt(network) or self._is_trusted(network):
            return 0.0
        now = self._clock()
        until, enforced = self._until.pop(network, (now, False))
        if until <= now:
            until, enforced = now, False
        until = min(until + seconds, now + settings.longest)
        self._until[network] = until, enforced or until - now >= settings.threshold
        if len(self._until) > MAX_NETWORKS:
            self._until.popitem(last=False)
        return self.wait(network)

    def arrived(self, network: str) -> None:
        """An agent of this network is logged in."""
        self._until.pop(network, None)
        self._left.pop(network, None)
        self._tunnels[network] += 1

    def left(self, network: str) -> None:
        """One of its tunnels is gone."""
        self._tunnels[network] -= 1
        if self._tunnels[network] <= 0:
            del self._tunnels[network]
            self._left[network] = self._clock()
            if len(self._left) > MAX_NETWORKS:
                self._left.popitem(last=False)

    def _is_trusted(self, network: str) -> bool:
        if network in self._tunnels:
            return True
        left = self._left.get(network)
        return left is not None and self._clock() - left < TRUSTED_S

    def _is_exempt(self, network: str) -> bool:
        try:
            source = ipaddress.ip_network(network)
        except ValueError:
            return False
        # An exempt IPv6 address frees its /64: it can't be told from its neighbours.
        return any(each.version == source.version and each.overlaps(source) for each in self.settings.exempt)


class SharedPenalties(Penalties):
    """Of a worker: somebody else counts for all of them. `tell(what, network)` says what was seen here."""

    def __init__(self, settings: Settings, tell: Callable[[str, str], None], counts: bool) -> None:
        super().__init__(settings)
        self._tell = tell
        self._counts = counts  # one of the workers does, for the status of the node

    @property
    def punished(self) -> int:
        return super().punished if self._counts else 0

    def punish(self, network: str, kind: Kind) -> float:
        self._tell(kind, network)
        return 0.0

    def arrived(self, network: str) -> None:
        self._tell("arrived", network)

    def left(self, network: str) -> None:
        self._tell("left", network)

    def impose(self, network: str, wait: float) -> None:
        """Refuse the network for so many seconds; 0: no more."""
        self._until.pop(network, None)
        if wait > 0:
            self._until[network] = self._clock() + wait, True
            if len(self._until) > MAX_NETWORKS:
                self._until.popitem(last=False)
