"""All contestants, in the order in which tables show them."""

from __future__ import annotations

from pathlib import Path

from bench.peers.contestant import Contestant
from bench.peers.contestants.haproxy import HAProxy, HAProxyTls, HAProxyTwice, ReverseHTTP
from bench.peers.contestants.nginx import Direct, Nginx, NginxTls
from bench.peers.contestants.ours import Ours, OursTls
from bench.peers.contestants.tunnels import Chisel, FrpHttp, FrpTcp, OpenSSH, Rathole


def contestants(haproxy_rhttp: Path | None) -> dict[str, Contestant]:
    """By name."""
    found = [
        Direct(),
        Ours(),
        OursTls(),
        HAProxy(),
        HAProxyTls(),
        HAProxyTwice(),
        Nginx(),
        NginxTls(),
        ReverseHTTP(haproxy_rhttp),
        FrpHttp(),
        FrpTcp(),
        Rathole(),
        Chisel(),
        OpenSSH(),
    ]
    return {contestant.name: contestant for contestant in found}
