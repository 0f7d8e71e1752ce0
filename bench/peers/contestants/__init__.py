"""All contestants, in the order in which tables show them."""

from __future__ import annotations

from pathlib import Path

from bench.peers.contestant import Contestant
from bench.peers.contestants.haproxy import HAProxy, HAProxyTwice, ReverseHTTP
from bench.peers.contestants.nginx import Direct, Nginx
from bench.peers.contestants.ours import Ours
from bench.peers.contestants.tunnels import Chisel, FrpHttp, FrpTcp, OpenSSH, Rathole


def contestants(haproxy_rhttp: Path | None) -> dict[str, Contestant]:
    """By name."""
    found = [
        Direct(),
        Ours(),
        HAProxy(),
        HAProxyTwice(),
        Nginx(),
        ReverseHTTP(haproxy_rhttp),
        FrpHttp(),
        FrpTcp(),
        Rathole(),
        Chisel(),
        OpenSSH(),
    ]
    return {contestant.name: contestant for contestant in found}
