"""All contestants, in the order in which tables show them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.peers.contestant import BOTH, OUTSIDE, PLAIN, TUNNEL, Contestant
from bench.peers.contestants.frp import Frp
from bench.peers.contestants.haproxy import HAProxy, HAProxyTwice, ReverseHTTP
from bench.peers.contestants.nginx import Direct, Nginx
from bench.peers.contestants.ours import Ours
from bench.peers.contestants.tunnels import Chisel, OpenSSH, Rathole


def contestants(haproxy_rhttp: Path | None, trees: Sequence[Path] = ()) -> dict[str, Contestant]:
    """By name. `trees` are other working copies of this product, to compare with."""
    found = [
        Direct(),
        *(Ours(tls) for tls in (PLAIN, OUTSIDE, TUNNEL, BOTH)),
        Ours(workers=2),
        Ours(logs=False),
        *(Ours(tls, tree=tree) for tree in trees for tls in (PLAIN, OUTSIDE)),
        *(HAProxy(tls) for tls in (PLAIN, OUTSIDE)),
        HAProxyTwice(),
        *(Nginx(tls) for tls in (PLAIN, OUTSIDE)),
        *(ReverseHTTP(haproxy_rhttp, tls) for tls in (PLAIN, OUTSIDE, TUNNEL, BOTH)),
        Frp("http", PLAIN),
        Frp("http", TUNNEL),
        Frp("http", BOTH),
        Frp("tcp", PLAIN),
        Frp("tcp", TUNNEL),
        *(Rathole(tls) for tls in (PLAIN, TUNNEL)),
        *(Chisel(tls) for tls in (PLAIN, TUNNEL)),
        OpenSSH(),
    ]
    return {contestant.name: contestant for contestant in found}
