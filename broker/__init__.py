"""A reverse tunnel broker: services behind a firewall, reached through tunnels that they open."""

__version__ = "0.1.0"
