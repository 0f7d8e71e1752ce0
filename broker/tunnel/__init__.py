"""Tunnels as Python sees them: the handshake, dialling with backoff, who is registered and with what."""
