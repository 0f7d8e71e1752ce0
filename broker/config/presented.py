"""What the ports of a configuration present, and what this node shows where it dials: `broker tls show`."""

from __future__ import annotations

from typing import Any

from broker.config.model import Config
from broker.tls.show import show_client, show_server


def presented(config: Config) -> list[dict[str, Any]]:
    """One entry of plain values for each place that speaks TLS. ValueError: a file can't be used."""
    entries = [
        head("external", port.name, port.url) | show_server(port.tls) for port in config.external if port.tls
    ]
    entries += [
        head("registration", port.name, port.url) | show_server(port.tls)
        for port in config.registration
        if port.tls
    ]
    entries += [head("connect", "", each.url) | show_client(each.tls) for each in config.connect if each.tls]
    return entries


def head(kind: str, name: str, url: str) -> dict[str, Any]:
    return {"kind": kind, "name": name, "url": url}
